"""The space in which speakers are compared knows no digits and no training speaker's name."""

import numpy as np
import pytest

from common.evaluate import Embeddings
from common.speaker_space import SpeakerSpace, fit_spaces, fuse


def spoken(seed: int, speakers: int, rows: int = 600) -> Embeddings:
    """Embeddings in which the digit weighs ten times as much as the speaker; the directions are always the same."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    digit, speaker = np.arange(rows) % 10, np.arange(rows) // 10 % speakers
    digits, axes = 10 * fixed.normal(size=(10, 12)), fixed.normal(size=(4, 12))
    z = digits[digit] + rng.normal(size=(speakers, 4))[speaker] @ axes + 0.1 * rng.normal(size=(rows, 12))
    return Embeddings({"1d": z}, digit, speaker)


def share(z: np.ndarray, label: np.ndarray) -> float:
    """The share of the variance that lies between the means of the labels."""
    means = np.stack([z[label == each].mean(axis=0) for each in np.unique(label)])
    between = means[np.unique(label, return_inverse=True)[1]].var(axis=0).sum()
    return float(between / z.var(axis=0).sum())


def test_digits_disappear_and_speakers_stay():
    train, test = spoken(1, speakers=20), spoken(2, speakers=6)
    z = SpeakerSpace(power=0).fit(train.z["1d"], train.digit).transform(test.z["1d"])
    assert share(test.z["1d"], test.digit) > 0.9 and share(z, test.digit) < 0.25
    assert share(test.z["1d"], test.speaker) < 0.1 and share(z, test.speaker) > 0.6
    whitened = SpeakerSpace().fit(train.z["1d"], train.digit).transform(test.z["1d"])
    assert share(whitened, test.speaker) > 0.4, "the axes of the voice are not drowned"


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5])
def test_variances_are_equalised_as_far_as_the_power_says(power):
    """Without different digits nothing but their mean is removed."""
    x = np.random.default_rng(0).normal(size=(500, 3)) * [10, 1, 0] @ [[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]]
    variance = np.linalg.eigvalsh(np.cov(x, rowvar=False)).clip(min=0)
    z = SpeakerSpace(power).fit_transform(x, np.full(500, 4))
    covariance = np.cov(z, rowvar=False)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6)
    expected = variance / (variance + 0.01 * variance.mean()) ** (2 * power)
    np.testing.assert_allclose(np.diag(covariance), expected, atol=1e-6)


@pytest.mark.parametrize("digits", [[3], [3, 8], [0, 1, 2]])
def test_corpora_with_few_digits_have_a_space_too(digits):
    train = spoken(1, speakers=5)
    kept = train.take(np.isin(train.digit, digits))
    z = SpeakerSpace().fit(kept.z["1d"], kept.digit).transform(kept.z["1d"])
    assert share(z, kept.speaker) > 0.4 and share(z, kept.digit) < 0.3
    equal = np.full((4, 3), 0.7)
    assert np.abs(SpeakerSpace().fit(equal, np.arange(4) % len(digits)).transform(equal)).max() < 1e-9


def test_test_clips_are_changed_one_by_one():
    train, test = spoken(1, speakers=8), spoken(2, speakers=4, rows=20)
    space = SpeakerSpace().fit(train.z["1d"], train.digit)
    together = space.transform(test.z["1d"])
    np.testing.assert_allclose(together, np.vstack([space.transform(z[None]) for z in test.z["1d"]]), atol=1e-9)


def test_several_embeddings_have_a_space_each_and_their_similarity_is_the_mean():
    one, two = spoken(1, speakers=8), spoken(2, speakers=8)
    train = one._replace(z={"1d": one.z["1d"], "2d": 9 * two.z["1d"], "concat": one.z["1d"]})
    spaces = fit_spaces(train)
    assert set(spaces) == {"1d", "2d"}
    first, second, both = (fuse(spaces, train, names) for names in (["1d"], ["2d"], ["1d", "2d"]))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1)
    np.testing.assert_allclose(both @ both.T / 2, (first @ first.T + second @ second.T) / 2, atol=1e-9)
    spaces["logmel"], train.z["logmel"] = spaces["1d"], train.z["1d"]
    all_three = fuse(spaces, train)
    np.testing.assert_allclose(all_three @ all_three.T / 4, (2 * first @ first.T + both @ both.T) / 4, atol=1e-9)
    again = fit_spaces(train._replace(speaker=train.speaker[::-1]))
    np.testing.assert_array_equal(fuse(again, train, ["1d"]), first, "no speaker label is used")

"""Speaker identification and verification: hand-placed points, and naive references with a loop for each comparison."""

import numpy as np
import pytest

import task4
from common.run import UserError
from common.speakers import DigitRemover, ask, metrics, minus, protocols, recognise, verify

K, NAMES = 5, "abcdef"


def spoken(speakers: int, clips: int, noise: float | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings [n, 8], digits and speakers; the speakers' centres are always the same."""
    rng, centres = np.random.default_rng(0), np.random.default_rng(99).normal(size=(speakers, 8))
    speaker = np.repeat(np.arange(speakers), clips)
    return centres[speaker] + noise * rng.normal(size=(len(speaker), 8)), np.arange(len(speaker)) % 10, speaker


@pytest.mark.parametrize("repetitions", [1, 2, 5])
def test_clips_are_enrolled_or_queried_never_both(repetitions):
    digit, speaker = np.tile(np.repeat(np.arange(10), repetitions), 7), np.repeat(np.arange(7), 10 * repetitions)
    ((enrolled, queried),), ((low, high), (high_too, low_too)) = protocols(digit, speaker, seed=1)
    assert sorted([*enrolled, *queried]) == sorted([*low, *high]) == list(range(len(digit)))
    one, two = (np.histogram2d(speaker[rows], digit[rows], (range(8), range(11)))[0] for rows in (enrolled, queried))
    assert np.abs(one - two).max() <= repetitions % 2 and (one.sum(axis=1) == two.sum(axis=1)).all()
    assert set(digit[low]) == set(range(5)) and set(digit[high]) == set(range(5, 10))
    assert np.array_equal(low, low_too) and np.array_equal(high, high_too), "then the other way round"


def test_who_has_clips_on_one_side_alone_is_left_out_and_nobody_left_is_one_line():
    digit, speaker = np.array([0, 9, 1, 2, 4, 7]), np.array([0, 0, 1, 2, 2, 3])
    ((enrolled, queried),), ((low, high), _) = protocols(digit, speaker, seed=0)
    assert sorted([*enrolled, *queried]) == [0, 1, 3, 4] and (low.tolist(), high.tolist()) == ([0], [1])
    z = np.random.default_rng(0).normal(size=(6, 2))
    assert list(recognise(z[2:], z[2:], digit[2:], speaker[2:], K, seed=0)) == ["test", "mismatch"]
    with pytest.raises(UserError, match=r"^[^\n]*--ratio[^\n]*$"):
        recognise(z[:3], z[:3], digit[:3], np.arange(3), K, seed=0)


def test_the_script_changes_the_microphones_of_the_test_clips_alone(tone_data):
    """Its labels, too, are in the order of the embeddings."""
    train, same, changed = task4.embed_sets(task4.LogMelStatistics(), tone_data)["logmel"]
    assert len(train) == len(tone_data.examples["train"]) and len(same) == len(changed) == 20
    assert (np.abs(same - changed).max(axis=1) > 0.1).all()
    (waveform, digit, _), *_ = tone_data.loader("test")
    assert np.allclose(task4.LogMelStatistics()(waveform)["logmel"], same[: len(digit)], atol=1e-4)
    assert digit.tolist() == tone_data.examples["test"].digit[: len(digit)].tolist()


def nearest(z: np.ndarray, speaker: np.ndarray, enrolled: np.ndarray, query: np.ndarray) -> int:
    """The speaker for whom the nearest enrolled clips vote, each with the inverse of its distance."""
    distances, votes = [], dict.fromkeys(speaker, 0.0)
    for row in enrolled:
        cosine = query @ z[row] / np.linalg.norm(query) / np.linalg.norm(z[row])
        distances.append((1 - cosine, speaker[row]))
    for distance, name in sorted(distances)[:K]:
        votes[name] += 1 / distance
    return max(votes, key=votes.get)


def test_queries_are_identified_by_their_nearest_neighbours_in_angle():
    z, _, speaker = spoken(5, 16, 1.0)
    z *= np.random.default_rng(1).uniform(0.1, 10, (len(z), 1))  # lengths say nothing
    enrolled, queried = np.arange(0, 80, 2), np.arange(1, 80, 2)
    answers = ask(z, z, speaker, [(enrolled, queried)], K)
    assert answers.predicted.tolist() == [nearest(z, speaker, enrolled, z[row]) for row in queried]
    assert answers.speaker.tolist() == speaker[queried].tolist() and 0.5 < answers.correct.mean() < 1
    both = ask(z, z, speaker, [(enrolled, queried), (queried, enrolled)], K)
    assert both.predicted[:40].tolist() == answers.predicted.tolist() and len(both.correct) == 80


def test_another_channel_changes_the_results_of_its_queries_alone():
    z, digit, speaker = spoken(6, 40, 0.6)
    same = recognise(z, z, digit, speaker, K, 0)
    changed = recognise(z, np.random.default_rng(1).normal(size=z.shape), digit, speaker, K, 0)
    one, other = metrics(same, NAMES), metrics(changed, NAMES)
    assert all(other[key] == value for key, value in one.items() if not key.startswith("mismatch"))
    assert all(one[f"mismatch_{key}"] == one[key] for key in ("eer", "text_independent_acc", "text_independent_eer"))
    assert other["mismatch_acc"] < 0.4 < 0.8 < other["test_acc"] and other["mismatch_eer"] > 0.35 > other["eer"]
    difference, key = minus(same, changed, "noise"), "mismatch_text_independent_acc"
    assert difference["minus_noise"] == 0 and difference["mismatch_minus_noise"] == pytest.approx(one[key] - other[key])


def naive_eer(scores: np.ndarray, own: np.ndarray) -> float:
    """Where false accepts and rejects are equal, if each speaker and each ordered pair of speakers counts the same."""
    own, accepts, rejects = np.unique(own, return_inverse=True)[1], [], []
    for threshold in [*np.unique(scores), np.inf]:
        pairs = np.array([[(scores[own == a, b] >= threshold).mean() for b in np.unique(own)] for a in np.unique(own)])
        different = ~np.eye(len(pairs), dtype=bool)
        accepts.append(pairs[different].mean())
        rejects.append(1 - np.diag(pairs).mean())
    return float(np.interp(0, np.subtract(rejects, accepts), rejects))


def test_verification_compares_each_query_with_the_mean_of_each_speakers_embeddings():
    z, _, speaker = spoken(5, 14, np.repeat(np.linspace(0.3, 4, 5), 14)[:, None])  # the means differ in length
    z *= np.random.default_rng(1).uniform(0.1, 10, (len(z), 1))
    enrolled = np.arange(0, 70, 2)
    queried = np.setdiff1d(np.arange(70), enrolled)[:-5]  # the last speaker has two queries
    scores = np.zeros((len(queried), 5))
    for row, clip in enumerate(queried):
        for name in range(5):
            model = np.mean([z[i] / np.linalg.norm(z[i]) for i in enrolled if speaker[i] == name], axis=0)
            scores[row, name] = z[clip] @ model / np.linalg.norm(z[clip]) / np.linalg.norm(model)
    found = ask(z, z, speaker, [(enrolled, queried)], K)
    assert found.eer == pytest.approx(naive_eer(scores, speaker[queried]), abs=1e-6) and 0.1 < found.eer < 0.45


@pytest.mark.parametrize("clips", [4, 15])
def test_the_interval_of_an_equal_error_rate_is_the_jackknife_over_speakers(clips):
    rng = np.random.default_rng(0)
    own = np.repeat(np.arange(7), rng.integers(2, clips, 7))
    scores = rng.normal(size=(len(own), 7)).astype(np.float32)
    scores[np.arange(len(own)), own] += rng.uniform(0.5, 2.5, 7)[own]  # some speakers are told apart better
    eer, interval = verify(scores, own)
    without = [naive_eer(np.delete(scores[own != one], one, axis=1), own[own != one]) for one in range(7)]
    reach = 2.4469 * np.sqrt(6 / 7 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert eer == pytest.approx(naive_eer(scores, own), abs=1e-6)
    assert interval == pytest.approx([max(eer - reach, 0), eer + reach], abs=0.01)


@pytest.mark.parametrize(
    ("same", "different", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [0.3, 0.2, 0.1, 0.0], 0.0),
        ([0.1, 0.2, 0.3, 0.2], [0.8, 0.9, 0.7, 0.6], 1.0),
        ([0.9, 0.8, 0.7, 0.3], [0.6, 0.2, 0.1, 0.0], 1 / 4),
        ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], 1 / 2),
        ([3, 2, 2, 2], [2, 1, 1, 1], 3 / 16),  # a tie of both kinds, interpolated: x = 3/4 - 3x
    ],
)
def test_equal_error_rate_of_hand_placed_scores(same, different, expected):
    own = np.array([0, 0, 1, 1])
    scores = np.where(own[:, None] == np.arange(2), np.array(same)[:, None], np.array(different)[:, None])
    eer, interval = verify(scores, own)
    assert eer == pytest.approx(expected, abs=1e-9)
    assert interval == [0, 1], "without one of two speakers, there is nobody to mistake for the other"


def test_every_speaker_weighs_the_same_in_verification_and_one_cannot_be_verified():
    rng = np.random.default_rng(0)
    own = np.repeat(np.arange(5), 8)
    scores = rng.normal(size=(40, 5)) + 1.5 * np.eye(5)[own]
    often = np.concatenate([np.arange(40), *[np.flatnonzero(own == 3)] * 9])
    (eer, interval), (same, same_interval) = verify(scores, own), verify(scores[often], own[often])
    assert eer == pytest.approx(same, abs=1e-9) and interval == pytest.approx(same_interval, abs=1e-6)
    z, digit, speaker = spoken(1, 20, 1.0)
    results = metrics(recognise(z, z, digit, speaker, K, 0), NAMES)
    assert results["test_acc"] == results["chance"] == 1 and results["eer"] is results["eer_ci95"] is None


def digits_and_voices(seed: int, speakers: int, rows: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings in which the digit weighs ten times as much as the speaker; the directions are always the same."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    digit, speaker = np.arange(rows) % 10, np.arange(rows) // 10 % speakers
    digits, axes = 10 * fixed.normal(size=(10, 12)), fixed.normal(size=(4, 12))
    voices = rng.normal(size=(speakers, 4))[speaker] @ axes
    return digits[digit] + voices + 0.1 * rng.normal(size=(rows, 12)), digit, speaker


def share(z: np.ndarray, label: np.ndarray) -> float:
    """The share of the variance that lies between the means of the labels."""
    means = np.stack([z[label == each].mean(axis=0) for each in np.unique(label)])
    return float(means[np.unique(label, return_inverse=True)[1]].var(axis=0).sum() / z.var(axis=0).sum())


def test_digits_disappear_and_speakers_stay():
    (train, train_digit, _), (z, digit, speaker) = digits_and_voices(1, 20), digits_and_voices(2, 6)
    rotated, whitened = (DigitRemover(0.1, power).fit(train, train_digit) for power in (0, 0.3))
    without = rotated.transform(z)
    assert share(z, digit) > 0.9 and share(without, digit) < 0.25
    assert share(z, speaker) < 0.1 and share(without, speaker) > 0.6
    assert share(whitened.transform(z), speaker) > 0.4, "the axes of the voice are not drowned"
    np.testing.assert_allclose(without[:5], [rotated.transform(row[None])[0] for row in z[:5]], atol=1e-9)


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5])
def test_variances_are_equalised_as_far_as_the_power_says(power):
    """One digit has nothing but its mean to remove."""
    x = np.random.default_rng(0).normal(size=(500, 3)) * [10, 1, 0] @ [[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]]
    variance = np.linalg.eigvalsh(np.cov(x, rowvar=False)).clip(min=0)
    z = DigitRemover(0.1, power).fit_transform(x, np.full(500, 4))
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    expected = variance / (variance + 0.01 * variance.mean()) ** (2 * power)
    np.testing.assert_allclose(np.cov(z, rowvar=False), np.diag(expected), atol=1e-6)


@pytest.mark.parametrize("digits", [[3], [0, 1, 2]])
def test_corpora_with_few_digits_can_be_compared_too(digits):
    z, digit, speaker = (part[np.isin(np.arange(600) % 10, digits)] for part in digits_and_voices(1, 5))
    without = DigitRemover(0.1, 0.3).fit_transform(z, digit)
    assert share(without, speaker) > 0.4 and share(without, digit) < 0.3

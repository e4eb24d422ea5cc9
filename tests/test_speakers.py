"""Speaker identification and verification on hand-placed points."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import auc, roc_curve
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from common.evaluate import Embeddings
from common.run.console import UserError
from common.speakers import (
    NEIGHBOURS,
    WHITENING_POWER,
    equal_error_rate,
    halves,
    identify,
    split_by_digit,
    verify,
    whiten,
)


def points(z, speaker, digit=None) -> Embeddings:
    z, speaker = np.asarray(z, dtype=np.float64), np.asarray(speaker)
    return Embeddings({"1d": z}, np.zeros(len(z), dtype=int) if digit is None else np.asarray(digit), speaker)


def numbered(speaker, digit) -> Embeddings:
    """Embeddings that are the numbers of their clips."""
    return points(np.arange(len(speaker))[:, None], speaker, digit)


def grid(speakers: int, digits: int, repetitions: int) -> Embeddings:
    speaker, digit, _ = np.array(list(itertools.product(range(speakers), range(digits), range(repetitions)))).T
    return numbered(speaker, digit)


def clips(embeddings: Embeddings) -> list[int]:
    return embeddings.z["1d"][:, 0].astype(int).tolist()


def clusters(speakers: int, repetitions: int, noise: float, seed: int = 0, dim: int = 8) -> Embeddings:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(speakers, dim))
    speaker = np.repeat(np.arange(speakers), repetitions)
    return points(centres[speaker] + noise * rng.normal(size=(len(speaker), dim)), speaker)


# --- halves


@pytest.mark.parametrize("repetitions", [1, 2, 5, 10])
def test_halves_are_equal_disjoint_and_stratified(repetitions):
    everything = grid(7, 10, repetitions)
    enrolment, query = halves(everything, seed=42)
    assert sorted(clips(enrolment) + clips(query)) == clips(everything)
    assert len(query.digit) == len(enrolment.digit)
    for speaker in range(7):
        assert (query.speaker == speaker).sum() == (enrolment.speaker == speaker).sum()
        for digit in range(10):
            one, two = (((h.speaker == speaker) & (h.digit == digit)).sum() for h in (enrolment, query))
            assert abs(one - two) <= repetitions % 2


def test_halves_are_fixed_by_the_seed():
    everything = grid(5, 10, 4)
    first, again, other = (clips(halves(everything, seed)[1]) for seed in (1, 1, 2))
    assert first == again and first != other


@pytest.mark.parametrize("seed", range(5))
def test_everybody_who_is_queried_is_enrolled_and_single_clips_are_kept(seed):
    everything = numbered([0, 1, 1, 2, 3, 3, 3], [5, 0, 1, 7, 2, 2, 3])
    enrolment, query = halves(everything, seed)
    assert set(query.speaker) <= set(enrolment.speaker) == {0, 1, 2, 3}
    assert sorted(clips(enrolment) + clips(query)) == list(range(7))
    assert {1, 3} <= set(query.speaker)


def test_other_words_are_queried_than_enrolled():
    enrolment, query = split_by_digit(grid(4, 10, 3))
    assert not set(enrolment.digit) & set(query.digit)
    assert len(set(enrolment.digit)) == len(set(query.digit)) == 5
    assert set(enrolment.speaker) == set(query.speaker) == {0, 1, 2, 3}
    assert len(enrolment.digit) + len(query.digit) == 120


def test_speakers_with_words_on_one_side_only_are_left_out():
    low, high = 0, 9
    enrolment, query = split_by_digit(numbered([0, 0, 1, 2], [low, high, low, high]))
    assert (clips(enrolment), clips(query)) == ([0], [1])
    assert split_by_digit(numbered([1, 2], [low, high])) is None


# --- whitening


def stretched(seed: int, rows: int = 500) -> Embeddings:
    """Normal points with variances of 100, 1 and 0, rotated in a plane and away from the origin."""
    x = np.random.default_rng(seed).normal(size=(rows, 3)) * [10, 1, 0]
    turn = np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]])
    return points(x @ turn + [3, -5, 2], np.arange(rows) % 4)


def test_whitening_evens_out_the_variances_of_the_training_clips_in_part():
    train = stretched(0)
    variance = np.sort(np.linalg.eigvalsh(np.cov(train.z["1d"], rowvar=False))).clip(min=0)
    z = whiten(train, train).z["1d"]
    covariance = np.cov(z, rowvar=False)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6)
    assert 0 < WHITENING_POWER < 0.5
    expected = variance / (variance + 0.01 * variance.mean()) ** (2 * WHITENING_POWER)
    np.testing.assert_allclose(np.sort(np.diag(covariance)), expected, atol=1e-6)


def test_whitening_takes_nothing_from_the_test_clips():
    train, test = stretched(0), stretched(1, rows=20)
    together = whiten(train, test)
    alone = np.concatenate([whiten(train, test.take(np.array([i]))).z["1d"] for i in range(20)])
    np.testing.assert_allclose(together.z["1d"], alone)
    np.testing.assert_array_equal(together.speaker, test.speaker)
    shuffled = train._replace(speaker=train.speaker[::-1], digit=train.digit + 1)
    np.testing.assert_array_equal(whiten(shuffled, test).z["1d"], together.z["1d"], "labels are not used")


# --- identification

# One clip per speaker on two rings: four far out on the axes (0-3), four near the middle on the diagonals (4-7).
RINGS = points([[5, 0], [0, 5], [-5, 0], [0, -5], [1, 1], [-1, 1], [-1, -1], [1, -1]], range(8))


def test_the_nearest_neighbour_is_nearest_in_angle():
    # The first is nearer to speaker 4 as the crow flies, the second to speaker 0.
    query = points([[0.9, 0.1], [4.6, 3.9]], [0, 4])
    result, _ = identify(RINGS, query, "1d", seed=0)
    assert result["test_acc"] == 1.0 and result["test_clips"] == 2 and result["test_k"] == 1
    swapped, _ = identify(RINGS, points([[0.9, 0.1], [4.6, 3.9]], [4, 0]), "1d", seed=0)
    assert swapped["test_acc"] == 0.0


def test_the_prefix_names_the_results():
    result, _ = identify(RINGS, RINGS, "1d", seed=0, prefix="other")
    assert set(result) == {"other_acc", "other_clips", "other_acc_ci95", "other_k"} and result["other_acc"] == 1.0


@pytest.mark.parametrize("strangers", [[0, 1, 8], [8, 9], []])
def test_whoever_is_not_enrolled_cannot_be_asked_for(strangers):
    query = points(np.ones((len(strangers), 2)), np.array(strangers, dtype=int))
    with pytest.raises(UserError, match="--ratio") as caught:
        identify(RINGS, query, "1d", seed=0)
    assert "\n" not in str(caught.value)


def test_speakers_apart_are_all_found():
    result, _ = identify(clusters(10, 6, 0.01), clusters(10, 6, 0.01, seed=1), "1d", seed=0)
    assert result["test_acc"] == 1.0 and result["test_clips"] == 60


def test_shuffled_speakers_are_found_by_chance_only():
    enrolment, query = clusters(10, 40, 0.3), clusters(10, 40, 0.3, seed=1)
    rng = np.random.default_rng(2)
    for shuffled in (
        (enrolment._replace(speaker=rng.permutation(enrolment.speaker)), query),
        (enrolment, query._replace(speaker=rng.permutation(query.speaker))),
    ):
        assert 0.02 < identify(*shuffled, "1d", seed=0)[0]["test_acc"] < 0.2


def test_nothing_is_fitted_to_the_queries(monkeypatch):
    enrolment, query = clusters(6, 8, 0.8), clusters(6, 8, 0.8, seed=1)
    enrolled = {row.tobytes() for row in enrolment.z["1d"]}
    fitted, asked = [], []
    real_fit, real_predict = KNeighborsClassifier.fit, KNeighborsClassifier.predict

    def fit_spy(self, x, y):
        fitted.append(np.array(x))
        return real_fit(self, x, y)

    def predict_spy(self, x):
        asked.append(np.array(x))
        return real_predict(self, x)

    monkeypatch.setattr(KNeighborsClassifier, "fit", fit_spy)
    monkeypatch.setattr(KNeighborsClassifier, "predict", predict_spy)
    identify(enrolment, query, "1d", seed=0)

    assert len(fitted) > 5, "cross-validation fits many times"
    assert all(row.tobytes() in enrolled for x in fitted for row in x)
    foreign = [x for x in asked if not all(row.tobytes() in enrolled for row in x)]
    assert len(foreign) == 1 and np.array_equal(foreign[0], query.z["1d"]), "the queries are used once"


def test_k_does_not_depend_on_what_is_queried():
    enrolment, query = clusters(6, 12, 1.5), clusters(6, 12, 1.5, seed=1)
    rng = np.random.default_rng(3)
    ks = {
        identify(enrolment, query._replace(speaker=rng.permutation(query.speaker)), "1d", seed=0)[0]["test_k"]
        for _ in range(4)
    }
    assert len(ks) == 1


def test_k_is_chosen_and_not_always_one():
    """With overlapping speakers many neighbours are better than one."""
    enrolment = clusters(2, 60, 3.0)
    assert identify(enrolment, clusters(2, 60, 3.0, seed=1), "1d", seed=0)[0]["test_k"] > 1


@pytest.mark.parametrize("seed", range(8))
def test_k_is_what_a_search_over_all_k_finds(seed):
    enrolment = clusters(4, 10, [0.5, 1, 1.5, 3][seed % 4], seed)
    knn = KNeighborsClassifier(metric="cosine", weights=lambda distances: 1 / (distances + 1e-6))
    grid = GridSearchCV(knn, {"n_neighbors": NEIGHBOURS}, cv=StratifiedKFold(5, shuffle=True, random_state=seed))
    expected = grid.fit(enrolment.z["1d"], enrolment.speaker).best_params_["n_neighbors"]
    assert identify(enrolment, enrolment, "1d", seed)[0]["test_k"] == expected


# --- verification


@pytest.mark.parametrize(
    "same, different, expected",
    [
        ([0.9, 0.8, 0.7], [0.3, 0.2], 0.0),
        ([0.1, 0.2], [0.8, 0.9, 0.7], 1.0),
        ([0.9, 0.6, 0.3], [0.8, 0.4, 0.1], 1 / 3),
        ([0.9, 0.5], [0.7, 0.1], 1 / 2),
        ([1, 3], [2], 1 / 2),
        ([0.5, 0.5], [0.5, 0.5, 0.5], 1 / 2),
        ([3, 2, 2, 2], [2, 1, 1, 1], 3 / 16),  # a tie of both kinds, interpolated: x = 3/4 - 3x
    ],
)
def test_equal_error_rate_of_hand_placed_scores(same, different, expected):
    truth = np.repeat([True, False], [len(same), len(different)])
    result = equal_error_rate(np.array([*same, *different], dtype=float), truth)
    assert result.eer == pytest.approx(expected, abs=1e-9)


def test_error_rates_are_those_of_every_threshold():
    rng = np.random.default_rng(0)
    truth = np.repeat([True, False], [150, 400])
    scores = np.round(rng.normal(size=550) + truth, 1)  # with ties
    result = equal_error_rate(scores, truth)
    rates = [((scores[~truth] >= t).mean(), (scores[truth] < t).mean()) for t in np.unique(scores)]
    naive = {(round(a, 9), round(r, 9)) for a, r in rates} | {(0.0, 1.0)}
    assert {(round(a, 9), round(r, 9)) for a, r in zip(*result[:2], strict=True)} <= naive
    assert max(min(pair) for pair in rates) - 1e-9 <= result.eer <= min(max(pair) for pair in rates) + 1e-9
    at_threshold = (scores[~truth] >= result.threshold).mean(), (scores[truth] < result.threshold).mean()
    assert at_threshold == pytest.approx((result.eer, result.eer), abs=0.05)
    assert 0 <= result.eer <= 1


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_the_trade_off_is_the_receiver_operating_characteristic(share, decimals):
    rng = np.random.default_rng(7)
    truth = rng.random(400) < share
    scores = np.round(rng.normal(size=400) + truth, decimals)  # the fewer decimals, the more ties
    result = equal_error_rate(scores, truth)
    false_accepts, true_accepts, _ = roc_curve(truth, scores)
    assert auc(result.false_accepts, 1 - result.false_rejects) == pytest.approx(auc(false_accepts, true_accepts))
    expected = np.interp(0, false_accepts - (1 - true_accepts), false_accepts)
    assert result.eer == pytest.approx(expected, abs=1e-9) and 0.02 < expected < 0.6


def test_verification_compares_all_pairs_by_the_angle_between_them():
    query = clusters(4, 3, 1.0, seed=6)
    query.z["1d"][:] *= np.arange(1, 13)[:, None]
    scores, truth = [], []
    for i, j in itertools.combinations(range(12), 2):
        x, y = query.z["1d"][i], query.z["1d"][j]
        scores.append(x @ y / np.sqrt((x @ x) * (y @ y)))
        truth.append(query.speaker[i] == query.speaker[j])
    expected = equal_error_rate(np.array(scores), np.array(truth))
    assert 0 < expected.eer < 1
    result = verify(query, "1d")
    assert result.eer == pytest.approx(expected.eer) and result.threshold == pytest.approx(expected.threshold)


def test_speakers_apart_are_verified_without_error():
    assert verify(clusters(5, 4, 0.01), "1d").eer == 0


@pytest.mark.parametrize("speakers", [[3, 3, 3], [1, 2, 3], [1]])
def test_pairs_of_one_kind_cannot_be_verified(speakers):
    query = points(np.eye(3)[: len(speakers)], speakers)
    assert verify(query, "1d") is None

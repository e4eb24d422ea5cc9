"""Speaker identification and verification on hand-placed points."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import auc, roc_curve

from common.evaluate import Embeddings
from common.intervals import accuracy_metrics
from common.run.console import UserError
from common.speakers import equal_error_rate, halves, identify, split_by_digit, verify


def points(z, speaker, digit=None) -> Embeddings:
    z, speaker = np.asarray(z, dtype=np.float64), np.asarray(speaker)
    return Embeddings({"1d": z}, np.zeros(len(z), dtype=int) if digit is None else np.asarray(digit), speaker)


def numbered(speaker, digit) -> Embeddings:
    """The embedding of each clip is its index."""
    return points(np.arange(len(speaker))[:, None], speaker, digit)


def grid(speakers: int, repetitions: int) -> Embeddings:
    """All ten digits of each speaker."""
    return numbered(np.repeat(np.arange(speakers), 10 * repetitions), np.arange(speakers * 10 * repetitions) % 10)


def indices(embeddings: Embeddings) -> list[int]:
    return embeddings.z["1d"][:, 0].astype(int).tolist()


def clusters(speakers: int, repetitions: int, noise: float, seed: int = 0, dim: int = 8) -> Embeddings:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(speakers, dim))
    speaker = np.repeat(np.arange(speakers), repetitions)
    return points(centres[speaker] + noise * rng.normal(size=(len(speaker), dim)), speaker)


# --- halves


@pytest.mark.parametrize("repetitions", [1, 2, 5, 10])
def test_halves_are_equal_disjoint_and_stratified(repetitions):
    everything = grid(7, repetitions)
    enrolment, query = halves(everything, seed=42)
    assert sorted(indices(enrolment) + indices(query)) == indices(everything)
    one, two = (np.histogram2d(h.speaker, h.digit, (np.arange(8), np.arange(11)))[0] for h in (enrolment, query))
    assert (one.sum(axis=1) == two.sum(axis=1)).all() and np.abs(one - two).max() <= repetitions % 2
    again, other = (indices(halves(everything, seed)[1]) for seed in (42, 1))
    assert again == indices(query) != other


@pytest.mark.parametrize("seed", range(5))
def test_every_query_speaker_is_enrolled_and_no_clip_is_lost(seed):
    everything = numbered([0, 1, 1, 2, 3, 3, 3], [5, 0, 1, 7, 2, 2, 3])
    enrolment, query = halves(everything, seed)
    assert set(query.speaker) <= set(enrolment.speaker) == {0, 1, 2, 3}
    assert sorted(indices(enrolment) + indices(query)) == list(range(7))
    assert {1, 3} <= set(query.speaker)


def test_other_digits_are_queried_than_enrolled():
    enrolment, query = split_by_digit(grid(4, 3))
    assert set(enrolment.digit) == set(range(5)) and set(query.digit) == set(range(5, 10))
    assert np.bincount(enrolment.speaker).tolist() == np.bincount(query.speaker).tolist() == [15] * 4


def test_speakers_with_digits_on_one_side_only_are_left_out():
    low, high = 0, 9
    enrolment, query = split_by_digit(numbered([0, 0, 1, 2], [low, high, low, high]))
    assert (indices(enrolment), indices(query)) == ([0], [1])
    assert split_by_digit(numbered([1, 2], [low, high])) is None


# --- identification

# One clip per speaker on two rings: four far out on the axes (0-3), four near the middle on the diagonals (4-7).
RINGS = points([[5, 0], [0, 5], [-5, 0], [0, -5], [1, 1], [-1, 1], [-1, -1], [1, -1]], range(8))


def test_the_nearest_neighbour_is_nearest_in_angle():
    # By Euclidean distance the first query is nearer to speaker 4, the second to speaker 0.
    result, predicted = identify(RINGS, points([[0.9, 0.1], [4.6, 3.9]], [0, 0]), "1d", seed=0)
    assert predicted.tolist() == [0, 4]
    assert result == accuracy_metrics("test", np.array([True, False]), np.zeros(2, dtype=int)) | {"test_k": 1}
    keys = set(identify(RINGS, RINGS, "1d", seed=0, prefix="other")[0])
    assert {"other_acc", "other_clips", "other_acc_ci95", "other_k", "other_worst_speaker_acc"} < keys


@pytest.mark.parametrize("speakers", [[0, 1, 8], [8, 9], []])
def test_queries_of_speakers_who_are_not_enrolled_are_refused(speakers):
    query = points(np.ones((len(speakers), 2)), np.array(speakers, dtype=int))
    with pytest.raises(UserError, match="--ratio") as caught:
        identify(RINGS, query, "1d", seed=0)
    assert "\n" not in str(caught.value)


def test_distinct_speakers_are_all_identified():
    result, _ = identify(clusters(10, 6, 0.01), clusters(10, 6, 0.01, seed=1), "1d", seed=0)
    assert result["test_acc"] == 1.0 and result["test_clips"] == 60
    assert result["test_k"] == 1, "the smallest of equals"


def test_shuffled_speakers_are_identified_at_chance():
    enrolment, query = clusters(10, 40, 0.3), clusters(10, 40, 0.3, seed=1)
    rng = np.random.default_rng(2)
    for shuffled in (
        (enrolment._replace(speaker=rng.permutation(enrolment.speaker)), query),
        (enrolment, query._replace(speaker=rng.permutation(query.speaker))),
    ):
        assert 0.02 < identify(*shuffled, "1d", seed=0)[0]["test_acc"] < 0.2


def test_the_prediction_of_a_query_depends_on_no_other_query_and_on_no_query_label():
    enrolment, query = clusters(6, 12, 1.5), clusters(6, 12, 1.5, seed=1)
    together, predicted = identify(enrolment, query, "1d", seed=0)
    assert together["test_k"] > 1 and 0.3 < together["test_acc"] < 1
    shuffled = query._replace(speaker=np.random.default_rng(3).permutation(query.speaker))
    result, again = identify(enrolment, shuffled, "1d", seed=0)
    assert result["test_k"] == together["test_k"] and again.tolist() == predicted.tolist()
    for i in range(0, len(predicted), 24):
        result, alone = identify(enrolment, query.take(np.array([i])), "1d", seed=0)
        assert result["test_k"] == together["test_k"] and alone.tolist() == [predicted[i]]


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
    rejects, accepts = (scores[truth] < result.threshold).mean(), (scores[~truth] >= result.threshold).mean()
    assert rejects - 1e-9 <= result.eer <= accepts + 1e-9, "the two rates cross at the threshold"


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


@pytest.mark.parametrize("speakers", [[3, 3, 3], [1, 2, 3], [1]])
def test_pairs_of_one_kind_cannot_be_verified(speakers):
    query = points(np.eye(3)[: len(speakers)], speakers)
    assert verify(query, "1d") is None


def test_the_interval_of_an_equal_error_rate_is_over_speakers():
    """Speakers who differ in how well they are told apart: more clips of them do not narrow the interval."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 8))

    def corpus(clips: int) -> Embeddings:
        speaker = np.repeat(np.arange(10), clips)
        spread = np.linspace(0.3, 3, 10)[speaker, None]
        return points(centres[speaker] + spread * np.random.default_rng(1).normal(size=(len(speaker), 8)), speaker)

    few = corpus(12)
    curve = verify(few, "1d")
    low, high = curve.eer_ci95
    assert low < curve.eer < high and high - low > 0.05
    doubled = verify(
        Embeddings({"1d": np.tile(few.z["1d"], (2, 1))}, np.tile(few.digit, 2), np.tile(few.speaker, 2)), "1d"
    )
    assert doubled.eer_ci95[1] - doubled.eer_ci95[0] > 0.9 * (high - low)
    many = verify(corpus(60), "1d")
    assert many.eer_ci95[1] - many.eer_ci95[0] > 0.6 * (high - low)

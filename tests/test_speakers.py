"""Speaker identification and verification on hand-placed points."""

import numpy as np
import pytest
from sklearn.metrics import auc, roc_curve

from common.evaluate import Embeddings
from common.run import UserError
from common.speakers import (
    average_clips,
    count_similarities,
    digit_parts,
    equal_error_rate,
    fit_neighbours,
    halves,
    recognise,
    verify,
)


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


def test_no_speaker_with_two_clips_is_one_line():
    with pytest.raises(UserError, match="--ratio") as caught:
        halves(numbered([0, 1, 2], [0, 1, 2]), seed=0)
    assert "\n" not in str(caught.value)


def test_other_digits_are_queried_than_enrolled_in_both_directions():
    everything = grid(4, 3)
    (enrolled, asked), (enrolled_too, asked_too) = digit_parts(everything)
    assert set(enrolled.digit) == set(everything.digit[asked_too]) == set(range(5))
    assert set(enrolled_too.digit) == set(everything.digit[asked]) == set(range(5, 10))
    assert sorted([*asked, *asked_too]) == indices(everything), "each clip is asked once"


def test_speakers_with_digits_on_one_side_only_are_left_out():
    low, high = 0, 9
    (enrolled, asked), _ = digit_parts(numbered([0, 0, 1, 2], [low, high, low, high]))
    assert (indices(enrolled), asked.tolist()) == ([0], [1])
    assert digit_parts(numbered([1, 2], [low, high])) == []


# --- identification

# One clip per speaker on two rings: four far out on the axes (0-3), four near the middle on the diagonals (4-7).
RINGS = points([[5, 0], [0, 5], [-5, 0], [0, -5], [1, 1], [-1, 1], [-1, -1], [1, -1]], range(8))


def accuracy(enrolment: Embeddings, query: Embeddings) -> float:
    return float((fit_neighbours(enrolment, "1d", seed=0).predict(query.z["1d"]) == query.speaker).mean())


def test_the_nearest_neighbour_is_nearest_in_angle():
    # By Euclidean distance the first query is nearer to speaker 4, the second to speaker 0.
    knn = fit_neighbours(RINGS, "1d", seed=0)
    assert knn.n_neighbors == 1 and knn.predict(np.array([[0.9, 0.1], [4.6, 3.9]])).tolist() == [0, 4]


def test_shuffled_speakers_are_identified_at_chance():
    enrolment, query = clusters(10, 40, 0.3), clusters(10, 40, 0.3, seed=1)
    rng = np.random.default_rng(2)
    for shuffled in (
        (enrolment._replace(speaker=rng.permutation(enrolment.speaker)), query),
        (enrolment, query._replace(speaker=rng.permutation(query.speaker))),
    ):
        assert 0.02 < accuracy(*shuffled) < 0.2


def test_the_number_of_neighbours_is_chosen_across_digits_where_other_digits_are_asked():
    """Each digit of a speaker has a place of its own, in which the nearest clips are those of another speaker."""
    rng = np.random.default_rng(0)
    speaker, digit = np.repeat([0, 1], 250), np.arange(500) % 5
    # What one digit has in common is strong, and the voice, in the last dimension, is weak.
    z = np.hstack([3 * np.eye(10)[digit + 5 * speaker], (2.0 * speaker - 1)[:, None] + 3 * rng.normal(size=(500, 1))])
    enrolment = points(z, speaker, digit)
    assert fit_neighbours(enrolment, "1d", seed=0).n_neighbors == 1
    assert fit_neighbours(enrolment, "1d", seed=0, across_digits=True).n_neighbors > 1


def test_queries_over_other_microphones_meet_the_same_enrolment():
    rng = np.random.default_rng(0)
    speaker, digit = np.repeat(np.arange(6), 20), np.arange(120) % 10
    clean = points(rng.normal(size=(6, 8))[speaker] + 0.5 * rng.normal(size=(120, 8)), speaker, digit)
    results, predicted, curve, correct, _ = recognise(clean, clean, "1d", seed=0)
    for key in ("text_independent_acc", "eer", "eer_3_clips", "eer_5_clips", "same_digit_eer", "other_digits_eer"):
        assert results[key] == results[f"mismatch_{key}"]
    assert results["test_acc"] == results["mismatch_acc"] == (predicted == halves(clean, 0)[1].speaker).mean() > 0.8
    assert results["text_independent_acc"] == correct[""].mean() and len(correct[""]) == 120
    assert curve.eer == results["eer"]
    assert results["eer_5_clips"] < results["eer_3_clips"] < results["eer"] < 0.4
    noise = points(rng.normal(size=(120, 8)), speaker, digit)
    changed, again, *_ = recognise(clean, noise, "1d", seed=0)
    kept = [key for key in results if not key.startswith("mismatch")]
    assert [changed[key] for key in kept] == [results[key] for key in kept] and again.tolist() == predicted.tolist()
    assert changed["mismatch_acc"] < 0.4 and changed["mismatch_eer"] > 0.35


def test_predictions_do_not_depend_on_other_queries_nor_on_the_labels_of_queries():
    clean = clusters(6, 24, 1.5)
    results, predicted, *_ = recognise(clean, clean, "1d", seed=0)
    assert results["k"] > 1 and 0.3 < results["test_acc"] < 1
    enrolment, query = halves(clean, 0)
    knn = fit_neighbours(enrolment, "1d", seed=0)
    assert [knn.predict(query.z["1d"][i : i + 1])[0] for i in range(0, 72, 12)] == predicted[::12].tolist()
    relabelled = clean.speaker.copy()
    relabelled[np.isin(clean.z["1d"][:, 0], query.z["1d"][:, 0])] = 5
    again = recognise(clean, clean._replace(speaker=relabelled), "1d", seed=0)
    assert again.predicted.tolist() == predicted.tolist() and again.results["k"] == results["k"]


# --- verification


def compare(enrolment: Embeddings, query: Embeddings):
    return verify(count_similarities(enrolment, query, "1d").sum(axis=0))


@pytest.mark.parametrize(
    "same, different, expected",
    [
        ([0.9, 0.8, 0.7], [0.3, 0.2], 0.0),
        ([0.1, 0.2], [0.8, 0.9, 0.7], 1.0),
        ([0.9, 0.6, 0.3], [0.8, 0.4, 0.1], 1 / 3),
        ([1, 3], [2], 1 / 2),
        ([0.5, 0.5], [0.5, 0.5, 0.5], 1 / 2),
        ([3, 2, 2, 2], [2, 1, 1, 1], 3 / 16),  # a tie of both kinds, interpolated: x = 3/4 - 3x
    ],
)
def test_equal_error_rate_of_hand_placed_scores(same, different, expected):
    truth = np.repeat([True, False], [len(same), len(different)])
    eer, _ = equal_error_rate(np.array([*same, *different], dtype=float), truth)
    assert eer == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_the_equal_error_rate_lies_on_the_receiver_operating_characteristic(share, decimals):
    rng = np.random.default_rng(7)
    truth = rng.random(400) < share
    scores = np.round(rng.normal(size=400) + truth, decimals)  # the fewer decimals, the more ties
    eer, threshold = equal_error_rate(scores, truth)
    false_accepts, true_accepts, _ = roc_curve(truth, scores)
    expected = np.interp(0, false_accepts - (1 - true_accepts), false_accepts)
    assert eer == pytest.approx(expected, abs=1e-9) and 0.02 < expected < 0.6

    def gap(at: float) -> float:
        return (scores[truth] < at).mean() - (scores[~truth] >= at).mean()

    assert gap(scores[scores < threshold].max()) < 1e-9 and (gap(threshold) > -1e-9 or threshold == scores.max())


def test_verification_compares_all_pairs_by_the_angle_between_them():
    enrolment, query = clusters(4, 30, 1.0, seed=6), clusters(4, 30, 1.0, seed=7)
    query.z["1d"][:] *= np.arange(1, 121)[:, None]
    cosine = [[x @ y / np.sqrt((x @ x) * (y @ y)) for y in query.z["1d"]] for x in enrolment.z["1d"]]
    truth = enrolment.speaker[:, None] == query.speaker
    eer, _ = equal_error_rate(np.ravel(cosine), truth.ravel())
    result = compare(enrolment, query)
    assert result.eer == pytest.approx(eer, abs=0.004) and 0.05 < eer < 0.5
    false_accepts, true_accepts, _ = roc_curve(truth.ravel(), np.ravel(cosine))
    area = auc(result.false_accepts, 1 - result.false_rejects)
    assert area == pytest.approx(auc(false_accepts, true_accepts), abs=0.002)


def test_every_speaker_weighs_the_same_in_verification():
    enrolment, query = clusters(5, 20, 1.0), clusters(5, 20, 1.0, seed=1)
    often = query.take(np.concatenate([np.arange(100), *[np.flatnonzero(query.speaker == 3)] * 9]))
    one, other = compare(enrolment, query), compare(enrolment, often)
    assert one.eer == pytest.approx(other.eer, abs=1e-6) and one.eer_ci95 == pytest.approx(other.eer_ci95, abs=1e-6)


def test_pairs_with_the_same_digit_are_counted_apart():
    enrolment, query = grid(3, 2), grid(3, 2)
    different, same = count_similarities(enrolment, query, "1d")
    assert (same.sum(axis=2) == 40).all() and (different.sum(axis=2) == 360).all()


def test_averages_are_over_clips_of_one_speaker_without_repetition():
    averages = average_clips(numbered([0] * 7 + [1] * 3 + [2] * 2, np.zeros(12)), "1d", 3, seed=0)
    assert np.bincount(averages.speaker).tolist() == [8, 4], "four groupings; two clips are too few"
    clips = Embeddings({"1d": np.eye(7)}, np.zeros(7), np.zeros(7, dtype=int))
    z = average_clips(clips, "1d", 3, seed=0).z["1d"]
    assert sorted(np.unique(z)) == pytest.approx([0, 1 / 3]) and (z.reshape(4, 2, 7).sum(axis=1) < 0.4).all()


@pytest.mark.parametrize("speakers", [[3, 3, 3], [1]])
def test_pairs_of_one_kind_cannot_be_verified(speakers):
    clips = points(np.eye(3)[: len(speakers)], speakers)
    assert compare(clips, clips) is None
    assert compare(points(np.eye(2), [0, 1]), points(np.eye(2), [2, 3])) is None


def test_the_equal_error_rate_of_few_pairs_is_interpolated_and_that_of_distinct_speakers_is_zero():
    counts = np.zeros((2, 2, 1000))
    counts[0, 0, [100, 900]] = counts[0, 1, 500] = 1  # half of the genuine pairs lie below the only other one
    assert verify(counts).eer == 0.5
    for speakers in (2, 3, 4, 8):
        distinct = points(np.repeat(np.eye(8)[:speakers], 3, axis=0), np.repeat(np.arange(speakers), 3))
        curve = compare(distinct, distinct)
        assert curve.eer == 0 and curve.eer_ci95 == ([0, 1] if speakers < 4 else [0, 0])


def test_the_interval_of_an_equal_error_rate_is_over_speakers():
    """Speakers who differ in how well they are told apart: more clips of them do not narrow the interval."""
    centres = np.random.default_rng(0).normal(size=(10, 8))

    def corpus(clips: int, seed: int) -> Embeddings:
        speaker = np.repeat(np.arange(10), clips)
        spread = np.linspace(0.3, 3, 10)[speaker, None]
        return points(centres[speaker] + spread * np.random.default_rng(seed).normal(size=(len(speaker), 8)), speaker)

    curve = compare(corpus(12, 1), corpus(12, 2))
    low, high = curve.eer_ci95
    assert low < curve.eer < high and high - low > 0.05
    low_of_many, high_of_many = compare(corpus(60, 1), corpus(60, 2)).eer_ci95
    assert high_of_many - low_of_many > 0.6 * (high - low)

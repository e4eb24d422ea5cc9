"""Intervals are over speakers: they know how speakers differ, and clips of one speaker are no independent trials."""

import numpy as np
import pytest

from common.intervals import accuracy_metrics, compare, mean_ci95


def width(interval):
    return interval[1] - interval[0]


def test_an_accuracy_comes_with_its_clips_its_interval_and_its_worst_speaker():
    speaker = np.repeat([4, 7, 9], 10)
    correct = np.arange(30) % 10 < np.repeat([10, 6, 8], 10)
    metrics = accuracy_metrics("test", correct, speaker, names="abcdefghij")
    low, high = metrics.pop("test_acc_ci95")
    assert metrics == {"test_acc": 0.8, "test_clips": 30, "worst_speaker_acc": 0.6, "worst_speaker": "h"}
    assert 0.2 < low < 0.4 and high == 1.0, "three speakers say little"
    others = accuracy_metrics("val", correct, speaker)
    assert others["val_worst_speaker"] == "7" and others["val_worst_speaker_acc"] == 0.6


@pytest.mark.parametrize("copies", [2, 10])
def test_duplicating_every_clip_does_not_narrow_an_interval(copies):
    rng = np.random.default_rng(0)
    speaker, correct = np.repeat(np.arange(12), 30), rng.random(360) < np.repeat(rng.uniform(0.6, 1, 12), 30)
    once = mean_ci95(correct, speaker)
    assert mean_ci95(np.tile(correct, copies), np.tile(speaker, copies)) == pytest.approx(once)


def test_one_speaker_who_fails_gives_a_wide_interval():
    speaker = np.repeat(np.arange(10), 50)
    scattered, one_fails = np.arange(500) % 10 > 0, speaker > 0
    assert scattered.mean() == one_fails.mean() == 0.9
    assert width(mean_ci95(scattered, speaker)) < 0.01 and width(mean_ci95(one_fails, speaker)) > 0.3
    assert accuracy_metrics("test", one_fails, speaker)["worst_speaker_acc"] == 0


@pytest.mark.parametrize("speakers", [2, 3, 5, 13, 20, 60])
def test_the_interval_covers_the_truth_in_about_95_of_100_experiments(speakers):
    rng, hits, experiments = np.random.default_rng(speakers), 0, 400
    for _ in range(experiments):
        clips = rng.integers(20, 60, speakers)
        ability = rng.beta(8, 2, speakers)  # mean 0.8
        speaker = np.repeat(np.arange(speakers), clips)
        low, high = mean_ci95(rng.random(len(speaker)) < ability[speaker], speaker)
        hits += low <= 0.8 <= high
    assert 0.9 < hits / experiments < 0.985


def test_one_speaker_says_nothing_about_others():
    assert mean_ci95(np.ones(9), np.zeros(9)) == [0, 1]
    assert compare(np.ones(9, dtype=bool), np.ones(9, dtype=bool), np.zeros(9), "other")["over_other_ci95"] == [-1, 1]


def test_two_models_are_compared_on_the_same_clips():
    """Both fail with the same speakers, so that the difference is surer than either accuracy."""
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(15), 40)
    worse = rng.random(600) < np.repeat(rng.uniform(0.3, 0.9, 15), 40)
    better = worse | (rng.random(600) < 0.2)
    result = compare(better, worse, speaker, "worse")
    assert result["over_worse"] == pytest.approx(better.mean() - worse.mean())
    low, high = result["over_worse_ci95"]
    assert 0 < low < result["over_worse"] < high
    assert high - low < 0.5 * width(mean_ci95(better, speaker))

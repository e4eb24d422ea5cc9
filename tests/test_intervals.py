"""Intervals are over speakers: they know how speakers differ, and clips of one speaker are no independent trials."""

import numpy as np
import pytest
from scipy.stats import binomtest

from common.intervals import accuracy_ci95, accuracy_metrics, compare


def experiment(rng, speakers: int, error_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Which clips are right and who said them; the error rates of speakers differ (beta distribution)."""
    speaker = np.repeat(np.arange(speakers), rng.integers(20, 60, speakers))
    errors = rng.beta(20 * error_rate, 20 * (1 - error_rate), speakers)
    return rng.random(len(speaker)) >= errors[speaker], speaker


def test_an_accuracy_comes_with_its_clips_its_interval_and_its_worst_speaker():
    speaker = np.repeat([4, 7, 9], 10)
    correct = np.arange(30) % 10 < np.repeat([10, 6, 8], 10)
    metrics = accuracy_metrics("test", correct, speaker, names="abcdefghij")
    assert metrics.pop("test_acc_ci95") == accuracy_ci95(correct, speaker)
    assert metrics == {"test_acc": 0.8, "test_clips": 30, "worst_speaker_acc": 0.6, "worst_speaker": "h"}
    others = accuracy_metrics("val", correct, speaker, interval=False)
    assert others == {"val_acc": 0.8, "val_clips": 30, "val_worst_speaker_acc": 0.6, "val_worst_speaker": "7"}


@pytest.mark.parametrize("error_rate", [0.2, 0.05, 0.013, 0.002])
@pytest.mark.parametrize("speakers", [3, 13, 20, 60])
def test_the_interval_of_an_accuracy_covers_the_truth(speakers, error_rate):
    rng = np.random.default_rng(0)
    intervals = np.array([accuracy_ci95(*experiment(rng, speakers, error_rate)) for _ in range(200)])
    covered = (intervals[:, 0] <= 1 - error_rate) & (1 - error_rate <= intervals[:, 1])
    assert covered.mean() > 0.86 and (intervals[:, 0] < intervals[:, 1]).all()


@pytest.mark.parametrize("speakers", [3, 13, 60])
def test_the_interval_of_a_difference_covers_the_truth_in_about_95_of_100_experiments(speakers):
    rng, covered = np.random.default_rng(speakers), []
    for _ in range(400):
        correct, speaker = experiment(rng, speakers, 0.2)
        low, high = compare(correct, rng.random(len(correct)) < 0.5, speaker, "coin")["over_coin_ci95"]
        covered.append(low <= 0.3 <= high)
    assert 0.9 < np.mean(covered) < 0.975


def test_clips_that_vary_no_more_than_independent_ones_have_the_interval_of_clopper_and_pearson():
    speaker, correct = np.repeat(np.arange(400), 10), np.arange(4000) % 10 > 0  # so many that Student's t is normal
    exact = binomtest(3600, 4000).proportion_ci()
    assert accuracy_ci95(correct, speaker) == pytest.approx([exact.low, exact.high], abs=1e-4)
    assert accuracy_ci95(speaker >= 40, speaker)[0] < exact.low - 0.01, "all clips of some speakers are wrong"


@pytest.mark.parametrize("copies", [2, 10])
@pytest.mark.parametrize("error_rate", [0.2, 0.013, 1e-9])
def test_duplicating_every_clip_does_not_narrow_an_interval(copies, error_rate):
    correct, speaker = experiment(np.random.default_rng(0), 12, error_rate)
    once, again = (accuracy_ci95(np.tile(correct, n), np.tile(speaker, n)) for n in (1, copies))
    assert 0 < np.ptp(once) <= np.ptp(again) + 1e-9


def test_no_errors_and_nothing_but_errors_still_have_an_interval_and_one_speaker_says_nothing_about_others():
    speaker = np.repeat(np.arange(13), 45)
    low, high = accuracy_ci95(np.ones(585, dtype=bool), speaker)
    assert 0.95 < low < 0.98 and high == 1
    assert accuracy_ci95(np.zeros(585, dtype=bool), speaker) == pytest.approx([0, 1 - low])
    assert accuracy_ci95(np.ones(9, dtype=bool), np.zeros(9)) == [0, 1]
    assert compare(np.ones(9, dtype=bool), np.ones(9), np.zeros(9), "other")["over_other_ci95"] == [-1, 1]


def test_models_are_compared_on_the_same_clips_without_one_speaker_after_the_other():
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(15), np.arange(30, 45))
    worse = rng.random(len(speaker)) < rng.uniform(0.3, 0.9, 15)[speaker]
    better = worse | (rng.random(len(speaker)) < 0.2)
    result = compare(better, worse, speaker, "worse", "minus")
    without = [better[speaker != one].mean() - worse[speaker != one].mean() for one in range(15)]
    reach = 2.1448 * np.sqrt(14 / 15 * np.sum((np.array(without) - np.mean(without)) ** 2))
    difference = better.mean() - worse.mean()
    assert result["minus_worse"] == pytest.approx(difference)
    assert result["minus_worse_ci95"] == pytest.approx([difference - reach, difference + reach], 1e-4)
    assert 2 * np.ptp(result["minus_worse_ci95"]) < np.ptp(accuracy_ci95(better, speaker)), "both fail with the same"

"""Accuracies with 95% confidence intervals over speakers.

Clips of one speaker are alike, so they are not so many independent trials: what would be drawn anew in another
experiment is the speakers. Accuracies have the interval of Korn and Graubard (Survey Methodology 24, 1998), differences
and equal error rates that of the jackknife (Efron and Stein, Annals of Statistics 9, 1981). One speaker tells nothing
about others: the interval is then all that is possible. Axes: n clips, S speakers.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import betaincinv, stdtrit


def accuracy_ci95(correct: np.ndarray, speaker: np.ndarray) -> list[float]:
    """The 95% interval of the accuracy of ``correct`` [n] (bool), said by ``speaker`` [n].

    It is that of Clopper and Pearson for as many independent clips as would vary like the speakers: n / design effect,
    at most n, and fewer as the speakers are few. Where all clips are right, or all wrong, nothing shows how alike those
    of a speaker are. A speaker then counts as ten clips at most, one for each digit.
    """
    right, clips = _by_speaker(correct, speaker)
    n, speakers, accuracy = len(correct), len(clips), float(correct.mean())
    if speakers == 1:
        return [0.0, 1.0]
    binomial = accuracy * (1 - accuracy)
    variance = speakers / (speakers - 1) * np.sum((right - accuracy * clips) ** 2) / n**2
    independent = binomial / max(variance, binomial / n) if binomial else min(n, 10 * speakers)
    independent *= (stdtrit(n - 1, 0.975) / stdtrit(speakers - 1, 0.975)) ** 2
    hits, misses = accuracy * independent, (1 - accuracy) * independent
    low = betaincinv(hits, misses + 1, 0.025) if hits else 0.0
    high = betaincinv(hits + 1, misses, 0.975) if misses else 1.0
    return [float(low), float(high)]


def jackknife_ci95(estimate: float, without: np.ndarray, bounds: tuple[float, float]) -> list[float]:
    """The 95% interval of ``estimate`` from the estimates ``without`` each of the speakers, [S], by Student's t.

    It lies within ``bounds``.
    """
    speakers = len(without)
    if speakers == 1:
        return [float(bound) for bound in bounds]
    reach = stdtrit(speakers - 1, 0.975) * np.sqrt((speakers - 1) * np.var(without))
    return np.clip([estimate - reach, estimate + reach], *bounds).tolist()


def accuracy_metrics(
    prefix: str, correct: np.ndarray, speaker: np.ndarray, names: Sequence[str] | None = None, interval: bool = True
) -> dict:
    """Accuracy, number of clips, interval over speakers and worst speaker, as every metrics file has them.

    Args:
        prefix: begins the keys, except for worst_speaker_acc and worst_speaker of the prefix "test".
        correct: [n] bool.
        speaker: [n], indices into ``names`` if these are given.
        interval: False for speakers who were in training: they tell nothing about others.
    """
    right, clips = _by_speaker(correct, speaker)
    worst = int((right / clips).argmin())
    index = np.unique(speaker)[worst]
    of_worst = "" if prefix == "test" else f"{prefix}_"
    return {
        f"{prefix}_acc": float(correct.mean()),
        f"{prefix}_clips": len(correct),
        **({f"{prefix}_acc_ci95": accuracy_ci95(correct, speaker)} if interval else {}),
        f"{of_worst}worst_speaker_acc": float(right[worst] / clips[worst]),
        f"{of_worst}worst_speaker": str(index) if names is None else names[index],
    }


def compare(better: np.ndarray, than: np.ndarray, speaker: np.ndarray, name: str, prefix: str = "over") -> dict:
    """How much more accurate one model is than another on the same clips, with the interval of the paired difference.

    Args:
        better, than: [n] bool, which clips each model got right.
        name: of the second model; the keys are {prefix}_{name} and {prefix}_{name}_ci95.
    """
    sums, clips = _by_speaker(better.astype(float) - than, speaker)
    difference = float(sums.sum() / clips.sum())
    without = (sums.sum() - sums) / (clips.sum() - clips).clip(min=1)
    return {f"{prefix}_{name}": difference, f"{prefix}_{name}_ci95": jackknife_ci95(difference, without, (-1, 1))}


def _by_speaker(values: np.ndarray, speaker: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of ``values`` [n] and numbers of clips of each speaker who occurs, in order: [S], [S]."""
    _, index, clips = np.unique(speaker, return_inverse=True, return_counts=True)
    return np.bincount(index, values), clips

"""Accuracies with 95% confidence intervals over speakers.

Clips of one speaker are alike, so they are not so many independent trials: what would be drawn anew in another
experiment is the speakers. The bootstrap therefore draws speakers, each with all of its clips. Axes: n clips,
S speakers, R resamples.
"""

import functools
from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
FEW_SPEAKERS = 6  # with fewer, the percentiles of resamples say too little


@functools.cache
def resampled_speakers(speakers: int) -> np.ndarray:
    """How often each speaker is in each resample: [R, S] whole numbers, the same on every call."""
    return np.random.default_rng(0).multinomial(speakers, np.full(speakers, 1 / speakers), RESAMPLES)


def ci95(estimate: float, resampled: np.ndarray, speakers: int) -> list[float]:
    """The 95% interval of an estimate from its values in the resamples, [R]; NaN counts as missing.

    Percentiles of few speakers are too narrow. They are therefore taken further out, by what Student's t distribution
    demands beyond the normal one (Hesterberg, "What Teachers Should Know About the Bootstrap", arXiv:1411.5279).
    """
    from scipy.special import ndtr, stdtrit  # slow to import, and not needed to predict

    tail = ndtr(np.sqrt(speakers / (speakers - 1)) * stdtrit(speakers - 1, 0.025))
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return [float(min(low, estimate)), float(max(high, estimate))]


def mean_ci95(values: np.ndarray, speaker: np.ndarray, bounds: tuple[float, float] = (0, 1)) -> list[float]:
    """The 95% interval of the mean over clips of ``values`` [n], said by ``speaker`` [n].

    For a paired comparison of two models, ``values`` are differences. One speaker tells nothing about others: the
    interval is then all that is possible, ``bounds``. Of two to five speakers it follows from Student's t distribution.
    Where all speakers are alike it has no width, which does not mean certainty, and near 100% it is somewhat narrow.
    """
    _, index, clips = np.unique(speaker, return_inverse=True, return_counts=True)
    mean, sums = float(values.mean()), np.bincount(index, values)  # [S]
    if len(clips) == 1:
        return [float(bound) for bound in bounds]
    if len(clips) < FEW_SPEAKERS:
        from scipy.special import stdtrit

        deviation = np.sqrt(np.sum((sums - mean * clips) ** 2) * len(clips) / (len(clips) - 1)) / clips.sum()
        reach = stdtrit(len(clips) - 1, 0.975) * deviation
        return [float(max(mean - reach, bounds[0])), float(min(mean + reach, bounds[1]))]
    weights = resampled_speakers(len(clips))  # [R, S]
    return ci95(mean, weights @ sums / (weights @ clips), len(clips))


def accuracy_metrics(prefix: str, correct: np.ndarray, speaker: np.ndarray, names: Sequence[str] | None = None) -> dict:
    """Accuracy, its number of clips, its interval over speakers and its worst speaker, as every metrics file has them.

    Args:
        prefix: begins the keys: {prefix}_acc, {prefix}_clips, {prefix}_acc_ci95 and, of the test without prefix,
            worst_speaker_acc and worst_speaker.
        correct: [n] bool.
        speaker: [n], indices into ``names`` if these are given.
    """
    present, index, clips = np.unique(speaker, return_inverse=True, return_counts=True)
    of_speaker = np.bincount(index, correct) / clips  # [S]
    worst = int(of_speaker.argmin())
    name = names[present[worst]] if names is not None else str(present[worst])
    of_worst = "" if prefix == "test" else f"{prefix}_"
    return {
        f"{prefix}_acc": float(correct.mean()),
        f"{prefix}_clips": len(correct),
        f"{prefix}_acc_ci95": mean_ci95(correct.astype(float), speaker),
        f"{of_worst}worst_speaker_acc": float(of_speaker[worst]),
        f"{of_worst}worst_speaker": name,
    }


def compare(better: np.ndarray, than: np.ndarray, speaker: np.ndarray, name: str) -> dict:
    """How much more accurate one model is than another on the same clips, with the interval of the paired difference.

    Args:
        better, than: [n] bool, which clips each model got right.
        name: of the second model; the keys are over_{name} and over_{name}_ci95.
    """
    difference = better.astype(float) - than
    return {
        f"over_{name}": float(difference.mean()),
        f"over_{name}_ci95": mean_ci95(difference, speaker, bounds=(-1, 1)),
    }

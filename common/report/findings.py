"""What was found, in words that follow from the numbers of each task."""

from collections.abc import Callable
from typing import Any

Models = dict[str, dict[str, Any]]
LEARNED = 0.8  # accuracy of digits below which it is too early to compare anything
CONDITIONS = ("white_0db_acc", "babble_10db_acc", "reverb_600ms_acc", "telephone_acc")


def finding(folder: str, results: dict[str, Models]) -> str:
    """A few sentences about the results of a task; empty if its metrics lack what they speak of.

    Args:
        results: of all tasks; whether embeddings can tell people apart means little before task 2 has learned anything.
    """
    try:
        found = _FINDINGS[folder](results[folder])
        probe = results.get("task2_contrastive", {}).get("concat", {}).get("test_acc", 1.0)
        early = folder == "task4_biometrics" and probe < LEARNED
        return f"The encoders of task 2 have learned little yet. {found}" if early else found
    except (KeyError, TypeError, ValueError):  # metrics of another version, or of an interrupted task
        return ""


def _supervised(models: Models) -> str:
    one, two = models["1d"], models["2d"]
    if max(one["test_acc"], two["test_acc"]) < LEARNED:
        return _too_early(max(one, two, key=lambda numbers: numbers["test_acc"]))
    hardest = min(CONDITIONS, key=lambda key: two[key])
    return (
        f"The 1D model is right for {_percent(one['test_acc'])} of the clips of unseen speakers, the 2D model for "
        f"{_percent(two['test_acc'])} and for {_percent(two['worst_speaker_acc'])} of those of its worst speaker, "
        f"{two['worst_speaker']}. {_versus('2D', '1D', two, 'over_1d')} What 2D finds hardest is "
        f"{_condition(hardest)}: {_percent(two[hardest])}."
    )


def _contrastive(models: Models) -> str:
    concat, logmel = models["concat"], models["logmel"]
    text = f"A linear probe reads {_percent(concat['test_acc'])} of the digits from both embeddings. "
    text += _versus("training", "no training", concat, "over_untrained")
    if logmel["test_acc"] >= concat["test_acc"]:
        text += f" Log-mel statistics, which learned nothing, reach {_percent(logmel['test_acc'])}."
    return text if concat["test_acc"] >= LEARNED else _too_early(concat)


def _speakers(models: Models) -> str:
    sentences = []
    for channel, prefix in (("With other digits enrolled", ""), ("Over other microphones", "mismatch_")):
        accuracy = _percent(models["concat"][f"{prefix}text_independent_acc"])
        sentences.append(f"{channel}, both embeddings together (concat) find the speaker of {accuracy} of the clips.")
        key = f"{prefix}over_logmel"
        sentences.append(_versus("this", "log-mel statistics, which learned nothing,", models["concat"], key))
        sentences.append(_versus("the fusion of both", "the statistics alone", models["fusion"], key))
    return " ".join(sentences)


def _finetuned(models: Models) -> str:
    tuned = models["concat_finetuned"]
    if max(each["test_acc"] for each in models.values()) < LEARNED:
        return _too_early(tuned)
    text = f"With both encoders fine-tuned, {_percent(tuned['test_acc'])} of the clips are read right. "
    return text + _versus("fine-tuning", "freezing", tuned, "over_frozen")


_FINDINGS: dict[str, Callable[[Models], str]] = {
    "task1_supervised": _supervised,
    "task2_contrastive": _contrastive,
    "task4_biometrics": _speakers,
    "task5_finetune": _finetuned,
}


def _versus(one: str, other: str, numbers: dict[str, Any], key: str) -> str:
    """Which of two is better by their paired difference, and whether its interval excludes zero."""
    points, (low, high) = 100 * numbers[key], (100 * bound for bound in numbers[f"{key}_ci95"])
    interval = f"[{low:.1f}, {high:.1f}]"
    if low > 0:
        verdict = f"is better than {other} by {points:.1f} points {interval}."
    elif high < 0:
        verdict = f"is worse than {other} by {-points:.1f} points [{-high:.1f}, {-low:.1f}]."
    else:
        verdict = f"and {other} cannot be told apart: {points:+.1f} points, and the interval {interval} includes zero."
    return f"{one[0].upper()}{one[1:]} {verdict}"


def _too_early(numbers: dict[str, Any]) -> str:
    return (
        f"Little has been learned yet: {_percent(numbers['test_acc'])} of the clips are right. "
        "Train on more clips or for more epochs before comparing anything."
    )


def _condition(key: str) -> str:
    names = {"white": "white noise as loud as the speech", "babble": "other voices 10 dB below the speech"}
    names |= {"reverb": "a room with a reverberation time of 0.6 s", "telephone": "the telephone"}
    return names[key.split("_")[0]]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"

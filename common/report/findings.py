"""What was found, in words that follow from the numbers of each task."""

from collections.abc import Callable
from typing import Any

from common.run.console import model_name

Models = dict[str, dict[str, Any]]
LEARNED = 0.5  # accuracy of digits below which there is nothing to compare
CONDITIONS = ("white_0db_acc", "babble_10db_acc", "reverb_600ms_acc", "telephone_acc")


def finding(folder: str, models: Models) -> str:
    """One or two sentences about the results of a task; empty if its metrics lack what they speak of."""
    try:
        return _FINDINGS[folder](models)
    except (KeyError, TypeError, ValueError):  # metrics of another version, or of an interrupted task
        return ""


def _supervised(models: Models) -> str:
    best = _best(models)
    if models[best]["test_acc"] < LEARNED:
        return _nothing(models[best]["test_acc"])
    worst = models[best]["worst_speaker"], models[best]["worst_speaker_acc"]
    conditions = {key: models[best][key] for key in CONDITIONS}
    hardest = min(conditions, key=lambda key: conditions[key])
    return (
        f"{_name(best)} is right for {_percent(models[best]['test_acc'])} of the clips of unseen speakers, and for "
        f"{_percent(worst[1])} of those of the speaker whom it reads worst, {worst[0]}. "
        f"{_versus('2D', '1D', models['2d'], 'over_1d')} "
        f"The hardest condition for it is {_condition(hardest)}: {_percent(conditions[hardest])}."
    )


def _contrastive(models: Models) -> str:
    trained = {name: models[name] for name in ("1d", "2d", "concat")}
    best = _best(trained)
    text = (
        f"A linear probe reads {_percent(models[best]['test_acc'])} of the digits from the embeddings ({_name(best)}). "
    )
    text += _versus("training", "no training", models[best], "over_untrained")
    if models["logmel"]["test_acc"] >= models[best]["test_acc"]:
        text += f" Log-mel statistics, which learned nothing, reach {_percent(models['logmel']['test_acc'])}."
    return text


def _speakers(models: Models) -> str:
    concat, control = models["concat"], "an average of the spectrogram (logmel)"
    return (
        f"With other digits enrolled, {_percent(concat['text_independent_acc'])} of the clips are given to their "
        f"speaker (concat). {_versus('this', control, concat, 'over_logmel')} Over other microphones it is "
        f"{_percent(concat['mismatch_text_independent_acc'])}. "
        f"{_versus('this', control, concat, 'mismatch_over_logmel')}"
    )


def _finetuned(models: Models) -> str:
    best = _best(models)
    if models[best]["test_acc"] < LEARNED:
        return _nothing(models[best]["test_acc"])
    text = f"The best configuration, {_name(best)}, is right for {_percent(models[best]['test_acc'])} of the clips. "
    return text + _versus("fine-tuning both encoders", "freezing them", models["concat_finetuned"], "over_frozen")


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


def _nothing(accuracy: float) -> str:
    return (
        f"Nothing has been learned yet: the best model is right for {_percent(accuracy)} of the clips, and guessing "
        "for 10%. Train on more clips or for more epochs before comparing anything."
    )


def _best(models: Models) -> str:
    return max(models, key=lambda name: models[name]["test_acc"])


def _name(model: str) -> str:
    name = model_name(model)
    return f"{name[0].upper()}{name[1:]}"


def _condition(key: str) -> str:
    names = {"white": "white noise as loud as the speech", "babble": "other voices 10 dB below the speech"}
    names |= {"reverb": "a room with a reverberation time of 0.6 s", "telephone": "the telephone"}
    return names[key.split("_")[0]]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"

"""The sentences of the report follow from the numbers."""

import pytest

from common.report import findings

CONDITIONS = {"white_0db_acc": 0.9, "babble_10db_acc": 0.95, "reverb_600ms_acc": 0.96, "telephone_acc": 0.97}
DIGITS = {"test_acc": 0.98, "worst_speaker": "07", "worst_speaker_acc": 0.81} | CONDITIONS


def finding(folder: str, models: dict) -> str:
    return findings.finding(folder, {folder: models})


def supervised(points: float, low: float, high: float, **more: float) -> dict:
    return {"1d": DIGITS, "2d": DIGITS | {"over_1d": points, "over_1d_ci95": [low, high]} | more}


@pytest.mark.parametrize(
    "models, expected",
    [
        (supervised(0.012, 0.003, 0.025), "2D is better than 1D by 1.2 points [0.3, 2.5]."),
        (supervised(-0.012, -0.025, -0.003), "2D is worse than 1D by 1.2 points [0.3, 2.5]."),
        (supervised(0.004, -0.01, 0.02), "2D and 1D cannot be told apart: +0.4 points, and the interval [-1.0, 2.0]"),
        (supervised(0, 0, 0, test_acc=0.99), "98.0% of the clips of unseen speakers, the 2D model for 99.0%"),
        (supervised(0, 0, 0), "white noise as loud as the speech: 90.0%"),
        (supervised(0, 0, 0, test_acc=0.99, telephone_acc=0.5), "the telephone: 50.0%"),
    ],
)
def test_two_models_are_compared_by_their_paired_interval(models, expected):
    assert expected in finding("task1_supervised", models)


def test_chance_is_not_presented_as_a_result():
    models = {name: DIGITS | {"test_acc": 0.13, "over_1d": 0.0, "over_1d_ci95": [0, 0]} for name in ("1d", "2d")}
    text = finding("task1_supervised", models)
    assert text.startswith("Little has been learned yet") and "13.0%" in text and "better" not in text
    models = {f"{name}_{mode}": {"test_acc": 0.2} for name in ("1d", "concat") for mode in ("frozen", "finetuned")}
    assert finding("task5_finetune", models).startswith("Little has been learned yet")


def test_a_control_that_wins_is_named():
    lost = {"over_logmel": -0.05, "over_logmel_ci95": [-0.09, -0.01]}
    won = {"mismatch_over_logmel": 0.1, "mismatch_over_logmel_ci95": [0.02, 0.2]}
    concat = {"text_independent_acc": 0.8, "mismatch_text_independent_acc": 0.7} | lost | won
    text = finding("task4_biometrics", {"concat": concat, "fusion": lost | won})
    assert "This is worse than log-mel statistics, which learned nothing, by 5.0 points [1.0, 9.0]." in text
    assert "The fusion of both is better than the statistics alone by 10.0 points [2.0, 20.0]." in text
    assert "This is better than log-mel statistics, which learned nothing, by 10.0 points [2.0, 20.0]." in text
    probe = {"test_acc": 0.82, "over_untrained": 0.0, "over_untrained_ci95": [-0.1, 0.1]}
    models = dict.fromkeys(("1d", "2d", "concat"), probe) | {"logmel": {"test_acc": 0.85}}
    text = finding("task2_contrastive", models)
    assert "Training and no training cannot be told apart" in text
    assert "Log-mel statistics, which learned nothing" in text
    assert "Log-mel" not in finding("task2_contrastive", models | {"logmel": {"test_acc": 0.6}})


def test_voices_are_compared_with_a_warning_before_task_2_has_learned_anything():
    numbers = {"over_logmel": 0.1, "over_logmel_ci95": [0.0, 0.2]}
    numbers |= {f"mismatch_{key}": value for key, value in numbers.items()}
    numbers |= {"text_independent_acc": 0.8, "mismatch_text_independent_acc": 0.7}
    probe = {"test_acc": 0.3, "over_untrained": 0.0, "over_untrained_ci95": [-0.1, 0.1]}
    early = {"task2_contrastive": {"concat": probe, "logmel": probe}}
    voices = {"task4_biometrics": {"concat": numbers, "fusion": numbers}}
    assert findings.finding("task2_contrastive", early).startswith("Little has been learned yet")
    assert findings.finding("task4_biometrics", early | voices).startswith("The encoders of task 2 have learned little")
    assert findings.finding("task4_biometrics", voices).startswith("With other digits enrolled")


@pytest.mark.parametrize("folder", ["task1_supervised", "task2_contrastive", "task4_biometrics", "task5_finetune"])
@pytest.mark.parametrize("models", [{}, {"1d": {}}, {"1d": {"test_acc": None}}, {"1d": {"test_acc": 0.9}}])
def test_metrics_of_another_version_have_no_sentence(folder, models):
    assert finding(folder, models) == ""

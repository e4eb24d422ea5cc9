"""A calibrated model is right as often as it says."""

import pytest
import torch
from common.calibration import expected_calibration_error, fit_temperature


def model_of(confidence: float, accuracy: float, clips: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that give one digit ``confidence``, and true digits of which ``accuracy`` are that one."""
    p = torch.full((clips, 10), (1 - confidence) / 9)
    p[:, 3] = confidence
    return p.log(), torch.where(torch.arange(clips) < accuracy * clips, 3, 4)


@pytest.mark.parametrize("confidence, accuracy", [(0.9, 0.9), (0.9, 0.6), (0.7, 0.99)])
def test_the_error_is_the_distance_between_confidence_and_accuracy(confidence, accuracy):
    assert expected_calibration_error(*model_of(confidence, accuracy)) == pytest.approx(
        abs(confidence - accuracy), abs=1e-6
    )


def test_errors_of_different_bins_do_not_cancel():
    (a, first), (b, second) = model_of(0.9, 0.6), model_of(0.5, 0.8)
    error = expected_calibration_error(torch.cat([a, b]), torch.cat([first, second]))
    assert error == pytest.approx(0.3), "0.3 too sure of one half, 0.3 too unsure of the other"


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found_and_calibrates_other_clips(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6000, 10, generator=generator)
    digit = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    val, test = logits[:3000] * temperature, logits[3000:] * temperature
    found = fit_temperature(val, digit[:3000])
    assert found == pytest.approx(temperature, rel=0.1)
    assert expected_calibration_error(test / found, digit[3000:]) < 0.04


def test_few_clips_that_are_all_right_do_not_make_a_model_certain():
    logits, digit = model_of(0.8, 1.0, clips=20)
    confidence = (logits / fit_temperature(logits, digit)).softmax(dim=1).max()
    assert 0.9 < confidence < 0.97

"""How sure a classifier may be: expected calibration error, and a temperature that lowers it.

Label smoothing makes the classifiers less sure than they are right. Axes: n clips.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.checkpoints import read_checkpoint, save_checkpoint
from common.evaluate import Predictions

BINS = 15
TEMPERATURES = np.geomspace(0.1, 10, 400)


def expected_calibration_error(logits: Tensor, digit: Tensor) -> float:
    """Mean distance between confidence and accuracy, over 15 bins of confidence: [n, 10], [n] -> 0 to 1.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599, also for the temperature.
    """
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)  # [n] each
    gaps = ((predicted == digit).double() - confidence).numpy()
    bin_of = np.minimum((confidence.numpy() * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bin_of, gaps, BINS)).sum() / len(gaps))


def fit_temperature(logits: Tensor, digit: Tensor) -> float:
    """The temperature T with which softmax(logits / T) has the lowest cross-entropy: [n, 10], [n] -> 0.1 to 10.

    The digits count as certain only as far as n clips can make them (Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999). Otherwise T would fall without end where every clip is right.
    """
    losses = [F.cross_entropy(logits.double() / t, digit, label_smoothing=1 / (len(digit) + 2)) for t in TEMPERATURES]
    return float(TEMPERATURES[torch.stack(losses).argmin()])


def _store(path: Path, temperature: float) -> None:
    save_checkpoint(read_checkpoint(path) | {"temperature": temperature}, path)


def calibrate(path: Path, val: Predictions, test: Predictions) -> dict:
    """Fit a temperature on ``val`` and add it to the checkpoint ``path``, for ``common.voice``.

    Returns:
        the temperature, and the calibration error of ``test`` without and with it.
    """
    temperature = fit_temperature(val.logits, val.digit)
    _store(path, temperature)
    return {
        "test_ece": expected_calibration_error(test.logits, test.digit),
        "test_ece_calibrated": expected_calibration_error(test.logits / temperature, test.digit),
        "temperature": temperature,
    }

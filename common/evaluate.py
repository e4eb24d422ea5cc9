"""What embeddings are worth: the one extraction that all evaluations use, accuracy intervals and the linear probe.

Nothing here trains an encoder. Axes: n clips, D embedding.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils.data import DataLoader

PROBE_STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # C of scikit-learn: smaller is more regularised


class Embeddings(NamedTuple):
    """Embeddings of some clips with their labels."""

    z: dict[str, np.ndarray]  # format -> [n, D] float32; with two formats also "concat" -> [n, 2D]
    digit: np.ndarray  # [n]
    speaker: np.ndarray  # [n]

    def take(self, rows: np.ndarray) -> "Embeddings":
        """The clips of ``rows`` (indices or mask)."""
        return Embeddings({name: z[rows] for name, z in self.z.items()}, self.digit[rows], self.speaker[rows])


@torch.inference_mode()
def outputs(module: nn.Module, loader: DataLoader, change: Callable[[Tensor], Tensor] = lambda inputs: inputs) -> list:
    """(output, digit, speaker) of each batch, in eval mode: no augmentation, fixed BatchNorm statistics.

    The module moves to where the batches are.

    Args:
        change: applied to the inputs first.
    """
    was_training = module.training
    module.eval()
    results = [(module.to(batch.inputs.device)(change(batch.inputs)), batch.digit, batch.speaker) for batch in loader]
    module.train(was_training)
    return results


def embed(embedder: nn.Module, loader: DataLoader) -> Embeddings:
    """Embed every clip of ``loader``, in its order."""
    parts, digits, speakers = zip(*outputs(embedder, loader), strict=True)
    z = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
    if len(z) > 1:
        z["concat"] = np.hstack(list(z.values()))
    return Embeddings(z, torch.cat(digits).cpu().numpy(), torch.cat(speakers).cpu().numpy())


class Predictions(NamedTuple):
    """What a digit classifier makes of some clips."""

    logits: Tensor  # [n, 10]
    digit: Tensor  # [n] the truth

    @property
    def predicted(self) -> Tensor:
        """The most probable digits, [n]."""
        return self.logits.argmax(dim=1)

    def accuracy(self, prefix: str) -> dict:
        """Accuracy with its interval; ``prefix`` is what the names of the results begin with."""
        return accuracy_metrics(prefix, int((self.predicted == self.digit).sum()), len(self.digit))


def predict_digits(
    classifier: nn.Module, loader: DataLoader, change: Callable[[Tensor], Tensor] = lambda inputs: inputs
) -> Predictions:
    """Classify every clip of ``loader``, in its order; ``change`` is applied to the inputs first."""
    logits, digit, _ = (torch.cat(part).cpu() for part in zip(*outputs(classifier, loader, change), strict=True))
    return Predictions(logits, digit)


def score_digits(predictions: Predictions, prefix: str) -> dict:
    """Accuracy with its interval, and cross-entropy in nats; ``prefix`` is what their names begin with."""
    loss = float(F.cross_entropy(predictions.logits, predictions.digit))
    return predictions.accuracy(prefix) | {f"{prefix}_loss": loss}


def score_in_noise(classifier: nn.Module, loader: DataLoader, snr_db: float) -> dict:
    """Digit accuracy under white noise, the same at every call; ``snr_db`` is its signal-to-noise ratio."""
    noisy = functools.partial(add_white_noise, snr_db=snr_db, generator=torch.Generator().manual_seed(0))
    return predict_digits(classifier, loader, noisy).accuracy(f"noise_{snr_db:g}db")


def add_white_noise(wave: Tensor, snr_db: float, generator: torch.Generator) -> Tensor:
    """Clips at half their level with noise at ``snr_db`` below it: [B, N] int16 -> [B, N] int16."""
    signal = wave.float() / 2  # room for the noise on top
    level = signal.square().mean(dim=1, keepdim=True).sqrt() * 10 ** (-snr_db / 20)
    noisy = signal + level * torch.randn(wave.shape, generator=generator).to(wave.device)  # the same on any device
    return noisy.round().clamp(-32768, 32767).short()


def accuracy_metrics(prefix: str, correct: int, total: int) -> dict:
    """Accuracy with its number of clips and its 95% interval, as every metrics file gives it."""
    return {
        f"{prefix}_acc": correct / total,
        f"{prefix}_clips": total,
        f"{prefix}_acc_ci95": wilson_interval(correct, total),
    }


def wilson_interval(correct: int, total: int) -> list[float]:
    """95% interval of a proportion that stays inside [0, 1] even at 0 or 100% (Wilson, JASA 22, 1927)."""
    z = 1.959964
    p = correct / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return [max(0.0, float(centre - half)), min(1.0, float(centre + half))]


def linear_probe(name: str, train: Embeddings, val: Embeddings, test: Embeddings) -> dict:
    """Logistic regression from frozen embeddings to digits: how linearly separable are the digits?

    The scaler is fitted on ``train`` alone, the regularisation is chosen on ``val``, and ``test`` is used once.

    Args:
        name: which embedding: "1d", "2d" or "concat".

    Returns:
        train, val and test accuracy with their intervals, and the chosen ``C``.
    """
    sets = {"train": train, "val": val, "test": test}
    if len(np.unique(train.digit)) == 1:  # scikit-learn refuses to fit one class; its prediction is that class
        predicted = {key: np.full(len(part.digit), train.digit[0]) for key, part in sets.items()}
        strength = None
    else:
        probes = {c: _fit_probe(train.z[name], train.digit, c) for c in PROBE_STRENGTHS}
        scores = {c: probe.score(val.z[name], val.digit) for c, probe in probes.items()}
        strength = max(scores, key=scores.get)  # of equals the first: the most regularised
        predicted = {key: probes[strength].predict(part.z[name]) for key, part in sets.items()}
    result = {"C": strength}
    for key, part in sets.items():
        result |= accuracy_metrics(key, int((predicted[key] == part.digit).sum()), len(part.digit))
    return result


def _fit_probe(x: np.ndarray, digit: np.ndarray, strength: float) -> Pipeline:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    # The solver's products are small: sharing one out costs more than it saves, and many times more on busy cores.
    with threadpool_limits(1, user_api="blas"):
        return probe.fit(x, digit)

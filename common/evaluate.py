"""Evaluate frozen models: embeddings, predictions, accuracies with intervals, linear probes, layouts in the plane.

Nothing here trains an encoder. Axes: n clips, B batch, N samples, D embedding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.batches import Batch
from common.intervals import accuracy_metrics
from common.networks import DigitNetwork, Embedder
from common.run import progress_bar

PROBE_STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 4))  # C of scikit-learn: smaller is more regularised


class Embeddings(NamedTuple):
    """Embeddings of some clips with their labels."""

    z: dict[str, np.ndarray]  # kind -> [n, D] float32; with several kinds also "concat", all side by side
    digit: np.ndarray  # [n]
    speaker: np.ndarray  # [n]

    def take(self, rows: np.ndarray) -> "Embeddings":
        """The clips of ``rows`` (indices or mask)."""
        return Embeddings({name: z[rows] for name, z in self.z.items()}, self.digit[rows], self.speaker[rows])


class Predictions(NamedTuple):
    """The output of a digit classifier for some clips."""

    logits: Tensor  # [n, 10]
    digit: Tensor  # [n] the truth
    speaker: Tensor  # [n]

    @property
    def predicted(self) -> Tensor:
        """The most probable digits, [n]."""
        return self.logits.argmax(dim=1)

    @property
    def correct(self) -> np.ndarray:
        """Which clips are predicted right, [n] bool."""
        return (self.predicted == self.digit).numpy()

    def accuracy(self, prefix: str, names: Sequence[str] | None = None) -> dict:
        """Accuracy, see ``common.intervals.accuracy_metrics``."""
        return accuracy_metrics(prefix, self.correct, self.speaker.numpy(), names)

    def metrics(self, prefix: str, names: Sequence[str] | None = None) -> dict:
        """Accuracy, and cross-entropy in nats."""
        return self.accuracy(prefix, names) | {f"{prefix}_loss": float(F.cross_entropy(self.logits, self.digit))}


def batches_for(module: nn.Module, loader: Iterable) -> Iterator:
    """The batches of ``loader``, with ``module`` on their device and in eval mode, whose earlier mode is restored.

    In eval mode nothing is augmented, and the BatchNorm statistics are fixed.
    """
    was_training = module.training
    module.eval()
    try:
        for batch in loader:
            module.to(batch[0].device)
            yield batch
    finally:
        module.train(was_training)


@torch.inference_mode()
def embed(embedder: nn.Module, loader: Iterable) -> Embeddings:
    """Embed every clip of ``loader`` (batches of waveform, digit, speaker), in its order."""
    parts, digits, speakers = [], [], []
    for waveform, digit, speaker in batches_for(embedder, loader):
        parts.append(embedder(waveform))  # {format: [B, D]}
        digits.append(digit)
        speakers.append(speaker)
    z = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
    if len(z) > 1:
        z["concat"] = np.hstack(list(z.values()))
    return Embeddings(z, torch.cat(digits).cpu().numpy(), torch.cat(speakers).cpu().numpy())


@torch.no_grad()
def calibrated(embedder: Embedder, loader: Iterable) -> Embedder:
    """A copy of ``embedder`` whose BatchNorm statistics are those of the clips of ``loader``; no label is used.

    Untrained encoders need it: their layers were never told the scale of their inputs, which alone costs a linear probe
    several points.
    """
    twin = Embedder(tuple(embedder.encoders), augment="none")
    twin.copy_weights(embedder)
    norms = [module for module in twin.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    for waveform, *_ in loader:
        twin.to(waveform.device).train()
        twin(waveform)
    return twin.eval()


@torch.inference_mode()
def predict_digits(
    classifier: DigitNetwork, loader: Iterable, change: Callable[[Batch], Batch] | None = None
) -> Predictions:
    """Classify every clip of ``loader``, in its order.

    Args:
        loader: batches of type ``Batch`` or ``EmbeddedBatch``.
        change: applied to each batch first, see ``common.conditions``.
    """
    logits, digits, speakers = [], [], []
    for batch in batches_for(classifier, loader):
        logits.append(classifier.predict_step(change(batch) if change else batch))  # [B, 10]
        digits.append(batch[1])
        speakers.append(batch[2])
    return Predictions(*(torch.cat(parts).cpu() for parts in (logits, digits, speakers)))


def linear_probe(
    name: str, train: Embeddings, val: Embeddings, test: Embeddings, names: Sequence[str] | None = None
) -> tuple[dict, np.ndarray]:
    """Logistic regression from frozen embeddings to digits: how linearly separable are the digits?

    The scaler is fitted on ``train`` alone, the regularisation is chosen on ``val``, and ``test`` is used once.

    Args:
        name: which embedding: "1d", "2d" or "concat".
        names: of the speakers.

    Returns:
        train, val and test accuracy with their intervals, and the chosen ``C``; the predicted digits of ``test``, [n].
    """
    sets = {"train": train, "val": val, "test": test}
    strength = None
    if len(np.unique(train.digit)) == 1:  # scikit-learn refuses to fit one class; its prediction is that class
        predicted = {key: np.full(len(part.digit), train.digit[0]) for key, part in sets.items()}
    else:
        probes = {c: _fit_probe(train.z[name], train.digit, c) for c in PROBE_STRENGTHS}
        # Of equal scores the first, which is the most regularised.
        strength = max(PROBE_STRENGTHS, key=lambda c: probes[c].score(val.z[name], val.digit))
        predicted = {key: probes[strength].predict(part.z[name]) for key, part in sets.items()}
    result: dict = {"C": strength}
    for key, part in sets.items():
        result |= accuracy_metrics(key, predicted[key] == part.digit, part.speaker, names)
    return result, predicted["test"]


def _fit_probe(x: np.ndarray, digit: np.ndarray, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression  # slow to import, see above
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    # The matrix products of the solver are small: sharing one among threads costs more than it saves, and many times
    # more on busy cores.
    with threadpool_limits(1, user_api="blas"):
        return probe.fit(x, digit)


def tsne(z: np.ndarray, seed: int, name: str) -> tuple[np.ndarray, float]:
    """Standardise embeddings and lay them out in the plane with t-SNE (van der Maaten and Hinton, JMLR 9, 2008).

    Args:
        z: [n, D] embeddings.
        name: of the embeddings in the progress message.

    Returns:
        the layout [n, 2], and the perplexity: 30, or less if there are too few clips for it.
    """
    from sklearn.manifold import TSNE  # slow to import, see above
    from sklearn.preprocessing import StandardScaler

    perplexity = max(1.0, min(30.0, (len(z) - 1) / 3))
    with progress_bar(f"t-SNE of {name}", len(z), "clips") as progress:
        if not np.ptp(z, axis=0).any():  # scikit-learn's t-SNE crashes if all points are equal
            layout = np.zeros((len(z), 2))
        else:
            model = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=-1)
            layout = model.fit_transform(StandardScaler().fit_transform(z))
        progress.update(len(z))
    return layout, perplexity

"""Evaluate trained networks: load them, embed and classify clips, probe embeddings, lay them out in the plane.

Nothing here trains an encoder, and nothing needs Lightning. Axes: n clips, B batch, N samples, D embedding.
"""

import copy
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from common.data import Batch, SpokenDigits
from common.encoders import DigitNetwork, Embedder
from common.intervals import accuracy_metrics
from common.run import UserError, printable
from common.run.output import read_checkpoint

TEMPERATURES = np.geomspace(0.1, 10, 400)


class Embeddings(NamedTuple):
    """Embeddings of some clips with their labels."""

    z: dict[str, np.ndarray]  # kind -> [n, D] float32; with several kinds also "concat", all side by side
    digit: np.ndarray  # [n]
    speaker: np.ndarray  # [n]


class Predictions(NamedTuple):
    """The output of a digit classifier for some clips."""

    logits: Tensor  # [n, 10]
    digit: Tensor  # [n] the truth
    speaker: Tensor  # [n]

    @property
    def predicted(self) -> np.ndarray:
        """The most probable digits, [n]."""
        return self.logits.argmax(dim=1).numpy()

    @property
    def correct(self) -> np.ndarray:
        """Which clips are predicted right, [n] bool."""
        return self.predicted == self.digit.numpy()

    def accuracy(self, prefix: str, names: Sequence[str] | None = None, interval: bool = True) -> dict:
        """Accuracy, see ``common.intervals.accuracy_metrics``."""
        return accuracy_metrics(prefix, self.correct, self.speaker.numpy(), names, interval)


def load_embedder(path: str | Path, data: SpokenDigits) -> Embedder:
    """Both encoders of task 2's ``best.ckpt``, on the CPU and in eval mode.

    Arguments and errors are those of ``load_classifier``.
    """
    return _load(path, data, "task2.py", "embedder.")


def load_classifier(path: str | Path, data: SpokenDigits | None = None) -> DigitNetwork:
    """The digit classifier in a ``best.ckpt`` of task 1 or 5, on the CPU and in eval mode.

    Args:
        data: what it will be tested on; without it, nothing is checked against its training.

    Raises:
        UserError: no such file, no such network in it, weights that are not finite, or a training that included a
            speaker whom ``data`` is going to test.
    """
    return _load(path, data, "task1.py", "network.")


def _load(path: str | Path, data: SpokenDigits | None, script: str, part: str) -> Any:
    remedy = f"make it with `python {script}` or name another"
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint; {remedy}")
    try:
        checkpoint = read_checkpoint(Path(path))
        weights = {key.removeprefix(part): x for key, x in checkpoint["state_dict"].items() if key.startswith(part)}
        if not weights:  # of another task
            raise LookupError(part)
        formats = [name for name in ("1d", "2d") if f"embedder.encoders.{name}.norm1.weight" in weights]
        network = DigitNetwork(formats) if part == "network." else Embedder()
        network.load_state_dict(weights)
        if isinstance(network, DigitNetwork):
            network.temperature = float(checkpoint.get("temperature", 1.0))
        training = checkpoint.get("run", {"corpus": "an unknown corpus", "train_speakers": []})
        corpus, speakers = printable(training["corpus"]), set(training["train_speakers"])
    except Exception as error:  # a file that is not a checkpoint fails in as many ways as there are files
        raise UserError(f"{path}: holds no such network of this version; {remedy}") from error
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise UserError(f"{path}: its weights are not finite; {remedy}")
    if data is not None and corpus != data.corpus.name:
        print(f"Note: {path} was trained on {corpus}, this run is on {data.corpus.name}.", file=sys.stderr)
    elif data is not None and (known := speakers & set(data.names("test"))):
        raise UserError(f"{path}: {len(known)} test speakers were in its training; use its --fold")
    return network.eval()


def embed(embedder: nn.Module, loader: Iterable[Batch]) -> Embeddings:
    """Embed every clip of ``loader``, in its order."""
    parts, digit, speaker = _outputs(embedder, loader)
    z = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
    if len(z) > 1:
        z["concat"] = np.hstack(list(z.values()))
    return Embeddings(z, digit.numpy(), speaker.numpy())


def with_statistics_of(embedder: Embedder, loader: Iterable) -> Embedder:
    """A copy of ``embedder`` whose BatchNorm statistics are those of the clips of ``loader``; no label is used.

    Untrained encoders need it: their layers were never told the scale of their inputs, which alone costs a linear probe
    several points.
    """
    twin = copy.deepcopy(embedder)
    update_bn(loader, twin, next(twin.parameters()).device)
    return twin.eval()


def predict_digits(
    classifier: nn.Module, loader: Iterable[Batch], change: Callable[[Batch], Batch] | None = None
) -> Predictions:
    """Classify every clip of ``loader``, in its order.

    Args:
        classifier: waveforms [B, N] -> logits [B, 10].
        change: applied to each batch first, see ``common.conditions``.
    """
    logits, digit, speaker = _outputs(classifier, map(change, loader) if change else loader)
    return Predictions(torch.cat(logits).cpu(), digit, speaker)


@torch.inference_mode()
def _outputs(module: nn.Module, loader: Iterable[Batch]) -> tuple[list[Any], Tensor, Tensor]:
    """What ``module`` returns in eval mode for each batch of waveforms; all digits and speakers, [n] on the CPU."""
    was_training = module.training
    module.eval()
    outputs, digits, speakers = [], [], []
    for waveform, digit, speaker in loader:
        outputs.append(module.to(waveform.device)(waveform))
        digits.append(digit)
        speakers.append(speaker)
    module.train(was_training)
    return outputs, torch.cat(digits).cpu(), torch.cat(speakers).cpu()


def classifier_metrics(val: Predictions, test: Predictions, names: Sequence[str]) -> dict:
    """Accuracy and cross-entropy (nats) of both sets, and how sure the classifier may be.

    The expected calibration error is the mean distance between confidence and accuracy over 15 bins of confidence, also
    with the ``temperature`` that was fitted on ``val`` (Guo et al., arXiv:1706.04599).
    """
    from torchmetrics.functional.classification import multiclass_calibration_error  # slow to import

    results = val.accuracy("val", names, interval=False) | test.accuracy("test", names)
    results |= {f"{key}_loss": float(F.cross_entropy(x.logits, x.digit)) for key, x in (("val", val), ("test", test))}
    temperature = fit_temperature(val.logits, val.digit)
    for key, divisor in (("test_ece", 1.0), ("test_ece_calibrated", temperature)):
        p = (test.logits / divisor).softmax(dim=1)
        results[key] = float(multiclass_calibration_error(p, test.digit, num_classes=10, n_bins=15))
    return results | {"temperature": temperature}


def fit_temperature(logits: Tensor, digit: Tensor) -> float:
    """The temperature T with which softmax(logits / T) has the lowest cross-entropy: [n, 10], [n] -> 0.1 to 10.

    The digits count as certain only as far as n clips can make them (Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999). Otherwise T would fall without end where every clip is right.
    """
    losses = [F.cross_entropy(logits.double() / t, digit, label_smoothing=1 / (len(digit) + 2)) for t in TEMPERATURES]
    return float(TEMPERATURES[torch.stack(losses).argmin()])


def linear_probe(
    name: str,
    train: Embeddings,
    val: Embeddings,
    test: Embeddings,
    candidates: Sequence[float],
    names: Sequence[str] | None = None,
) -> tuple[dict, np.ndarray]:
    """Logistic regression from frozen embeddings to digits: how linearly separable are the digits?

    The scaler is fitted on ``train`` alone, the regularisation is chosen on ``val``, and ``test`` is used once.

    Args:
        name: which embedding, such as "concat".
        candidates: values of scikit-learn's ``C``; a smaller one is more regularised.
        names: of the speakers.

    Returns:
        The chosen ``C``, train and val accuracy, and test accuracy with its interval; which test clips are right, [n].
    """
    sets = {"train": train, "val": val, "test": test}
    probes = {c: _fit_probe(train.z[name], train.digit, c) for c in candidates}
    # Of equal scores the first, which is the most regularised.
    best = max(sorted(probes), key=lambda c: probes[c].score(val.z[name], val.digit))
    correct = {key: probes[best].predict(part.z[name]) == part.digit for key, part in sets.items()}
    result: dict = {"C": best}
    for key, part in sets.items():
        result |= accuracy_metrics(key, correct[key], part.speaker, names, interval=key == "test")
    return result, correct["test"]


def _fit_probe(x: np.ndarray, digit: np.ndarray, strength: float) -> Any:
    from sklearn.dummy import DummyClassifier  # slow to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(np.unique(digit)) == 1:  # scikit-learn refuses to fit one class
        return DummyClassifier().fit(x, digit)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    # The matrix products of the solver are small: sharing one among threads costs more than it saves, and many times
    # more on busy cores.
    with threadpool_limits(1, user_api="blas"):
        return probe.fit(x, digit)


def tsne(z: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """Standardise embeddings and lay them out in the plane: [n, D] -> [n, 2].

    Args:
        perplexity: about how many neighbours a point has; at most (n - 1) / 3.

    Source:
        van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
    """
    from sklearn.manifold import TSNE  # slow to import
    from sklearn.preprocessing import StandardScaler

    if not np.ptp(z, axis=0).any():  # scikit-learn's t-SNE crashes if all points are equal
        return np.zeros((len(z), 2))
    model = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=-1)
    return model.fit_transform(StandardScaler().fit_transform(z))

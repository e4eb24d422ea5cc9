"""The space in which speakers are compared: embeddings without what the digit adds to them, partly whitened.

Fitted on training clips and their digits; no speaker label is used. Axes: n clips, D embedding.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from common.evaluate import Embeddings

LEARNED = ("weights_", "bias_", "digit_means_", "mean_", "covariance_")  # what a checkpoint stores
PARTS = ("1d", "2d", "logmel")  # the embeddings by which voices are compared, see ``common.networks.VoiceEmbedder``


class SpeakerSpace(TransformerMixin, BaseEstimator):
    """Removes the digits from embeddings, then equalises most of the remaining variances.

    What was said decides most of an embedding. A logistic regression predicts how probable each digit is, and the means
    of the training clips of the digits, weighted by these probabilities, are subtracted. Of the rest a few strong axes
    would dominate the many weak ones that carry the voice. Dividing by the standard deviation along each principal axis
    (full whitening) would amplify the axes that carry nothing just as much. The power between was chosen on the
    training speakers.

    Args:
        power: of the variance; 0 only rotates, 0.5 whitens fully.
        strength: C of the logistic regression; smaller is more regularised.

    Attributes:
        weights_, bias_: [D, digits], [digits] of the logistic regression.
        digit_means_: [digits, D].
        mean_, covariance_: [D], [D, D] of what remains without the digits.
    """

    def __init__(self, power: float = 0.3, strength: float = 0.1) -> None:
        self.power, self.strength = power, strength

    def fit(self, z: np.ndarray, digit: np.ndarray) -> "SpeakerSpace":
        """Learn from embeddings [n, D] of the digits [n]; n must be at least 2."""
        z, present = z.astype(np.float64), np.unique(digit)
        self.digit_means_ = np.stack([z[digit == each].mean(axis=0) for each in present])
        if len(present) > 1:
            scaler = StandardScaler().fit(z)
            with threadpool_limits(1, user_api="blas"):  # its products are small, see common.evaluate
                model = LogisticRegression(C=self.strength, max_iter=2000).fit(scaler.transform(z), digit)
            weights, bias = model.coef_, model.intercept_
            if len(present) == 2:  # scikit-learn keeps one row, for the second digit
                weights, bias = np.vstack([0 * weights, weights]), np.append(0, bias)
            self.weights_ = (weights / scaler.scale_).T
            self.bias_ = bias - scaler.mean_ @ self.weights_
        else:
            self.weights_, self.bias_ = np.zeros((z.shape[1], 1)), np.zeros(1)
        rest = self._without_digits(z)
        self.mean_, self.covariance_ = rest.mean(axis=0), np.cov(rest, rowvar=False)
        return self

    def _without_digits(self, z: np.ndarray) -> np.ndarray:
        logits = z @ self.weights_ + self.bias_  # [n, digits]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return z - p / p.sum(axis=1, keepdims=True) @ self.digit_means_

    def transform(self, z: np.ndarray) -> np.ndarray:
        """Embeddings [n, D] without the digits, centred and partly whitened along the principal axes: [n, D]."""
        variance, axes = np.linalg.eigh(self.covariance_)  # [D], [D, D]
        # An axis without variance leaves nothing to divide by. If all clips are the same, none has any.
        floor = 0.01 * variance.mean() or 1.0
        return (self._without_digits(z) - self.mean_) @ axes / (variance.clip(min=0) + floor) ** self.power


def fit_spaces(train: Embeddings) -> dict[str, SpeakerSpace]:
    """A space for each kind of embedding of training clips."""
    return {name: SpeakerSpace().fit(z, train.digit) for name, z in train.z.items() if name != "concat"}


def fuse(spaces: Mapping[str, SpeakerSpace], embeddings: Embeddings, names: Sequence[str] = PARTS) -> np.ndarray:
    """Several embeddings side by side, each in its own space and of length 1: [n, sum of D].

    Cosine similarities of the result are the means of theirs, in which the log-mel statistics weigh as much as the
    encoders together. One space of all embeddings would take many more clips to fit.
    """
    weights = [max(len(names) - 1, 1) ** 0.5 if name == "logmel" else 1.0 for name in names]
    parts = [unit_length(spaces[name].transform(embeddings.z[name])) for name in names]
    return np.hstack([weight * part for weight, part in zip(weights, parts, strict=True)])


def unit_length(z: np.ndarray) -> np.ndarray:
    """Vectors [n, D] scaled to length 1, so that their products are cosine similarities."""
    return z / np.linalg.norm(z, axis=1, keepdims=True).clip(min=1e-12)

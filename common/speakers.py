"""Speaker identification by nearest neighbours and verification by cosine similarity, on frozen embeddings.

All speakers here are test speakers: none of them was in the training of the encoders. Axes: n clips, D embedding.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from common.corpus.clips import systematic_sample
from common.evaluate import Embeddings
from common.intervals import accuracy_metrics, ci95, resampled_speakers
from common.run.console import UserError

NEIGHBOURS = (1, 3, 5, 7, 11, 15)
ENROLMENT_DIGITS = (0, 1, 2, 3, 4)  # of the text-independent variant; the other five are queried


class Verification(NamedTuple):
    """Detection error trade-off: error rates at every threshold, and where they are equal."""

    false_accepts: np.ndarray  # [thresholds] share of different-speaker pairs taken for one speaker
    false_rejects: np.ndarray  # [thresholds] share of same-speaker pairs taken for two
    eer: float
    threshold: float  # cosine similarity at the equal error rate
    eer_ci95: list[float] | None = None  # over speakers


def identify(
    enrolment: Embeddings,
    query: Embeddings,
    name: str,
    seed: int,
    prefix: str = "test",
    names: Sequence[str] | None = None,
) -> tuple[dict, np.ndarray]:
    """Identify the speaker of each query clip by its k nearest enrolled clips (cosine; closer neighbours weigh more).

    k is chosen by cross-validation inside the enrolment, and the queries are used once.

    Args:
        name: which embedding: "1d", "2d" or "concat".
        prefix: begins the keys of the results.
        names: of the speakers.

    Returns:
        accuracy with its number of clips and interval, and the chosen ``k``; the predicted speaker of each query, [n].

    Raises:
        UserError: a query speaker is not enrolled, so that no k could be right, or there are no queries.
    """
    strangers = set(query.speaker.tolist()) - set(enrolment.speaker.tolist())
    if strangers or len(query.speaker) == 0:
        raise UserError(
            f"{len(strangers) or 'all'} speaker(s) have too few clips to be both enrolled and queried; raise --ratio"
        )
    # scikit-learn warns about many speakers with few clips each, once per fold and k.
    warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
    z, speaker = enrolment.z[name], enrolment.speaker
    knn = KNeighborsClassifier(1, metric="cosine", weights=_closeness)
    folds = min(5, int(np.unique(speaker, return_counts=True)[1].min()))
    if folds > 1:  # with one clip of a speaker none can be held out
        smallest = len(speaker) - -(-len(speaker) // folds)  # number of clips that are left to be neighbours
        candidates = {"n_neighbors": [k for k in NEIGHBOURS if k <= smallest]}
        cross_validation = StratifiedKFold(folds, shuffle=True, random_state=seed)
        # Of equal scores the first, which is the smallest k.
        knn = GridSearchCV(knn, candidates, cv=cross_validation).fit(z, speaker).best_estimator_
    predicted = knn.fit(z, speaker).predict(query.z[name])
    result = accuracy_metrics(prefix, predicted == query.speaker, query.speaker, names)
    return result | {f"{prefix}_k": knn.n_neighbors}, predicted


def _closeness(distances: np.ndarray) -> np.ndarray:
    return 1 / (distances + 1e-6)


def halves(embeddings: Embeddings, seed: int) -> tuple[Embeddings, Embeddings]:
    """Enrolment and query: every second clip of each speaker and digit. Every query speaker is enrolled."""
    queried = systematic_sample(embeddings.speaker, embeddings.digit, 0.5, seed)
    # A speaker with a single clip can only be enrolled.
    queried &= np.isin(embeddings.speaker, embeddings.speaker[~queried])
    return embeddings.take(~queried), embeddings.take(queried)


def split_by_digit(embeddings: Embeddings) -> tuple[Embeddings, Embeddings] | None:
    """Enrolment (digits 0 to 4) and query (5 to 9) with different words, so that only the voice can be recognised.

    Speakers without clips on both sides are left out; ``None`` if no speaker remains.
    """
    enrolled = np.isin(embeddings.digit, ENROLMENT_DIGITS)
    on_both_sides = np.intersect1d(embeddings.speaker[enrolled], embeddings.speaker[~enrolled])
    kept = np.isin(embeddings.speaker, on_both_sides)
    if not kept.any():
        return None
    return embeddings.take(enrolled & kept), embeddings.take(~enrolled & kept)


def verify(query: Embeddings, name: str) -> Verification | None:
    """Are two query clips of one speaker? Over all pairs, by cosine similarity.

    ``None`` where the pairs are all of one kind.
    """
    z = unit_length(query.z[name])
    pairs = np.triu(np.ones((len(z), len(z)), dtype=bool), k=1)
    same = (query.speaker[:, None] == query.speaker)[pairs]
    if same.all() or not same.any():
        return None
    curve = equal_error_rate((z @ z.T)[pairs], same)
    return curve._replace(eer_ci95=eer_ci95(curve.eer, z, query.speaker))


def eer_ci95(eer: float, z: np.ndarray, speaker: np.ndarray) -> list[float]:
    """The 95% interval of the equal error rate of all pairs of clips over speakers, see ``common.intervals``.

    A resample draws the speakers for both sides of the pairs. The scores of each two speakers are counted in 1,000 bins
    once, so that a resample is a weighted sum of histograms.

    Args:
        z: [n, D] of length 1; the score of two clips is their product.
        speaker: [n].
    """
    clips = [z[speaker == one] for one in np.unique(speaker)]
    speakers, bins = len(clips), 1000
    a, b = np.triu_indices(speakers)  # each two speakers once, and each with itself
    histograms = np.zeros((len(a), bins), dtype=np.float32)
    for histogram, one, other in zip(histograms, a, b, strict=True):
        scores = (clips[one] @ clips[other].T)[np.triu_indices(len(clips[one]), k=1) if one == other else ...]
        places = ((scores + 1) * (bins / 2 - 1e-3)).astype(np.int64).clip(0, bins - 1)  # scores lie from -1 to 1
        histogram += np.bincount(places.ravel(), minlength=bins)
    weights = resampled_speakers(speakers).astype(np.float32)  # [R, S]
    same = a == b
    alike = weights @ histograms[same]  # [R, bins]
    different = (weights[:, a[~same]] * weights[:, b[~same]]) @ histograms[~same]
    # A resample of one speaker alone has no pairs of two; its rate is missing.
    with np.errstate(invalid="ignore"):
        rejects, accepts = (np.cumsum(kind, axis=1) / kind.sum(axis=1, keepdims=True) for kind in (alike, different))
    # Below a threshold lie the false rejects, above it the false accepts.
    crossing = np.abs(rejects + accepts - 1).argmin(axis=1)
    rows = np.arange(len(weights))
    return ci95(eer, (rejects[rows, crossing] + 1 - accepts[rows, crossing]) / 2, speakers)


def unit_length(z: np.ndarray) -> np.ndarray:
    """Vectors [n, D] scaled to length 1, so that their products are cosine similarities."""
    return z / np.linalg.norm(z, axis=1, keepdims=True).clip(min=1e-12)


def equal_error_rate(scores: np.ndarray, same: np.ndarray) -> Verification:
    """Error rates of accepting every pair that scores at least a threshold, for every threshold.

    Args:
        scores: [pairs] higher means more alike.
        same: [pairs] bool, the truth; both kinds must occur.

    Returns:
        The trade-off; the EER is interpolated where the two error rates cross.
    """
    alike, different = np.sort(scores[same]), np.sort(scores[~same])
    # The curve has corners only just above and at the score of a same-speaker pair: between two of these only the false
    # accepts grow. scikit-learn's det_curve, which sorts all pairs with their labels, takes ten times as long.
    corners = np.unique(alike)[::-1]
    rejects, accepts = (
        np.stack([np.searchsorted(kind, corners, side) for side in ("right", "left")], axis=1).ravel() / len(kind)
        for kind in (alike, different)
    )
    false_rejects = np.concatenate([[1.0], rejects, [0.0]])
    false_accepts = np.concatenate([[0.0], 1 - accepts, [1.0]])
    thresholds = np.concatenate([corners[:1], np.repeat(corners, 2), corners[-1:]])
    gap = false_rejects - false_accepts  # falls from 1 to -1
    after = int(np.argmax(gap <= 0))
    before = after - 1
    share = gap[before] / (gap[before] - gap[after])
    eer = false_accepts[before] + share * (false_accepts[after] - false_accepts[before])
    return Verification(false_accepts, false_rejects, float(eer), float(thresholds[after]))

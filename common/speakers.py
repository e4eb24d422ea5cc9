"""Who is speaking: identification by nearest neighbours and verification by cosine similarity, on frozen embeddings.

All speakers here are test speakers: nobody in the training of the encoders is among them. Axes: n clips, D embedding.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.extmath import weighted_mode

from common.corpus.clips import systematic_sample
from common.evaluate import Embeddings, accuracy_metrics
from common.run.console import UserError

NEIGHBOURS = (1, 3, 5, 7, 11, 15)
WHITENING_POWER = 0.35  # of the variance; 0 only rotates, 0.5 whitens
ENROLMENT_DIGITS = (0, 1, 2, 3, 4)  # of the text-independent variant; the other five are queried


class Verification(NamedTuple):
    """Detection error trade-off: error rates at every threshold, and where they are equal."""

    false_accepts: np.ndarray  # [thresholds] share of different-speaker pairs taken for one speaker
    false_rejects: np.ndarray  # [thresholds] share of same-speaker pairs taken for two
    eer: float
    threshold: float  # cosine similarity at the equal error rate


def identify(
    enrolment: Embeddings, query: Embeddings, name: str, seed: int, prefix: str = "test"
) -> tuple[dict, np.ndarray]:
    """Name the speaker of each query clip by its k nearest enrolled clips (cosine; closer neighbours count more).

    k is chosen by cross-validation inside the enrolment, and the queries are used once.

    Args:
        name: which embedding: "1d", "2d" or "concat".
        prefix: what the names of the results begin with.

    Returns:
        accuracy with its number of clips and interval, and the chosen ``k``; and the speaker named for each query, [n].

    Raises:
        UserError: a query speaker is not enrolled, so that no k could find them, or nobody is queried.
    """
    strangers = set(query.speaker.tolist()) - set(enrolment.speaker.tolist())
    if strangers or len(query.speaker) == 0:
        raise UserError(
            f"{len(strangers) or 'all'} speaker(s) have too few clips to be both enrolled and queried; raise --ratio"
        )
    # scikit-learn takes many speakers with few clips each for a mistake, once per fold and k.
    warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
    k = _choose_k(enrolment.z[name], enrolment.speaker, seed)
    predicted = _knn(k).fit(enrolment.z[name], enrolment.speaker).predict(query.z[name])
    correct = int((predicted == query.speaker).sum())
    return accuracy_metrics(prefix, correct, len(predicted)) | {f"{prefix}_k": k}, predicted


def _choose_k(z: np.ndarray, speaker: np.ndarray, seed: int) -> int:
    """The k that names the most held-out clips right; of equals the smallest."""
    folds = min(5, int(np.unique(speaker, return_counts=True)[1].min()))
    if folds < 2:  # one clip per speaker leaves nothing to choose on
        return 1
    smallest_part = len(speaker) - -(-len(speaker) // folds)
    candidates = [k for k in NEIGHBOURS if k <= smallest_part]
    scores = []
    for kept, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(z, speaker):
        # One search serves every k: the neighbours come nearest first.
        distances, neighbours = _knn(candidates[-1]).fit(z[kept], speaker[kept]).kneighbors(z[held_out])
        names, weights = speaker[kept][neighbours], _closeness(distances)
        votes = [weighted_mode(names[:, :k], weights[:, :k], axis=1)[0].ravel() for k in candidates]
        scores.append([np.mean(vote == speaker[held_out]) for vote in votes])
    return candidates[int(np.argmax(np.mean(scores, axis=0)))]


def _knn(k: int) -> KNeighborsClassifier:
    return KNeighborsClassifier(k, metric="cosine", weights=_closeness)


class Spread(NamedTuple):
    """How the embeddings of some clips lie: what whitening needs to know of them."""

    mean: np.ndarray  # [D]
    covariance: np.ndarray  # [D, D]


def spread_of(z: np.ndarray) -> Spread:
    """Mean and covariance of embeddings [n, D]; n must be at least 2."""
    return Spread(z.mean(axis=0), np.cov(z, rowvar=False))


def whiten(train: Embeddings, test: Embeddings) -> Embeddings:
    """Centre the test embeddings and even out most of their variances, by what varies in the training clips."""
    z = {name: whiten_by(spread_of(values), test.z[name]) for name, values in train.z.items()}
    return Embeddings(z, test.digit, test.speaker)


def whiten_by(spread: Spread, z: np.ndarray) -> np.ndarray:
    """Centre embeddings [n, D] and even out most of their variances, by how other clips spread.

    Few strong axes carry the digits, and drown the many weak ones that carry the voice. Dividing by the standard
    deviation along each principal axis (full whitening) would raise those that carry nothing just as much. The power
    between was chosen on the training speakers; no label is used.
    """
    variance, axes = np.linalg.eigh(spread.covariance)  # [D], [D, D]
    floor = 0.01 * variance.mean()  # along axes without variance there is nothing to divide by
    return (z - spread.mean) @ axes / (variance.clip(min=0) + floor) ** WHITENING_POWER


def halves(embeddings: Embeddings, seed: int) -> tuple[Embeddings, Embeddings]:
    """Enrolment and query: every second clip of each speaker and digit. Every query speaker is enrolled."""
    queried = systematic_sample(embeddings.speaker, embeddings.digit, 0.5, seed)
    # Somebody with a single clip can only be enrolled.
    queried &= np.isin(embeddings.speaker, embeddings.speaker[~queried])
    return embeddings.take(~queried), embeddings.take(queried)


def split_by_digit(embeddings: Embeddings) -> tuple[Embeddings, Embeddings] | None:
    """Enrolment and query with different words in them, so that only the voice can be recognised.

    Speakers without clips on both sides are left out; ``None`` if that leaves nobody.
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
    return equal_error_rate((z @ z.T)[pairs], same)


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
    # The curve has corners only just above and at the score of a same-speaker pair: between two of these false accepts
    # alone grow. A sort of all pairs with their labels would take ten times as long.
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


def _closeness(distances: np.ndarray) -> np.ndarray:
    return 1 / (distances + 1e-6)

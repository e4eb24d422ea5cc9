"""Speaker identification by nearest neighbours and verification by cosine similarity, on frozen embeddings.

All speakers here are test speakers: none of them was in the training of the encoders. Axes: n clips, S speakers,
D embedding.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import det_curve
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from common.corpus.clips import systematic_sample
from common.evaluate import Embeddings
from common.intervals import accuracy_metrics, ci95, compare, resampled_speakers
from common.run import UserError
from common.speaker_space import unit_length

NEIGHBOURS = (1, 3, 5, 7, 11, 15)
FOLDS = 5
GROUPS = (3, 5)  # clips a side, whose embeddings are averaged
GROUPINGS = 4
BINS = 1000  # of similarities
FEW_SPEAKERS = 4  # with fewer, resamples of pairs of them say nothing


class Verification(NamedTuple):
    """Detection error trade-off: error rates at every threshold, and where they are equal."""

    false_accepts: np.ndarray  # [thresholds] share of different-speaker pairs taken for one speaker
    false_rejects: np.ndarray  # [thresholds] share of same-speaker pairs taken for two
    eer: float
    eer_ci95: list[float]  # over speakers


class Recognition(NamedTuple):
    """What task 4 measures about one kind of embedding."""

    results: dict  # accuracies of identification, with the same digits and with others, and equal error rates
    predicted: np.ndarray  # [n] speakers of the queries of ``halves``
    curve: Verification | None  # of the same queries
    correct: dict[str, np.ndarray]  # {"" or "mismatch_": [m] bool} the queries with other digits than enrolled
    speaker: np.ndarray  # [m] who said them

    def compare(self, control: "Recognition", name: str) -> dict:
        """How much more accurate this is than a control with other digits, see ``common.intervals.compare``."""
        results: dict = {}
        for prefix, correct in self.correct.items():
            paired = compare(correct, control.correct[prefix], self.speaker, name)
            results |= {f"{prefix}{key}": value for key, value in paired.items()}
        return results


def recognise(
    clean: Embeddings, changed: Embeddings, name: str, seed: int, names: Sequence[str] | None = None
) -> Recognition:
    """Everything that task 4 measures about one kind of embedding.

    Args:
        clean: of all test clips. Half of them, or those of half of the digits, are enrolled.
        changed: of the same clips over other microphones; the keys of queries among them begin with ``mismatch``.
        name: which embedding.
        names: of the speakers.
    """
    enrolment, _ = halves(clean, seed)
    neighbours = fit_neighbours(enrolment, name, seed)
    other_digits = [(fit_neighbours(part, name, seed, across_digits=True), rows) for part, rows in digit_parts(clean)]
    speaker = np.concatenate([clean.speaker[:0], *(clean.speaker[rows] for _, rows in other_digits)])
    results: dict = {}
    predicted, curves, correct = {}, {}, {}
    for prefix, asked in (("", clean), ("mismatch_", changed)):
        query = halves(asked, seed)[1]
        predicted[prefix] = neighbours.predict(query.z[name])
        results |= accuracy_metrics(prefix[:-1] or "test", predicted[prefix] == query.speaker, query.speaker, names)
        if other_digits:  # both directions together: each clip is asked once
            found = [knn.predict(asked.z[name][rows]) for knn, rows in other_digits]
            correct[prefix] = np.concatenate(found) == speaker
            results |= accuracy_metrics(f"{prefix}text_independent", correct[prefix], speaker, names)
        curves[prefix] = verify_all(enrolment, query, name, seed)
        for measure, curve in curves[prefix].items():
            results[f"{prefix}{measure}"] = curve and curve.eer
            if curve:
                results[f"{prefix}{measure}_ci95"] = curve.eer_ci95
    results["text_independent_chance"] = 1 / len(np.unique(speaker)) if other_digits else None
    results["k"] = neighbours.n_neighbors
    return Recognition(results, predicted[""], curves[""]["eer"], correct, speaker)


def fit_neighbours(enrolment: Embeddings, name: str, seed: int, across_digits: bool = False) -> KNeighborsClassifier:
    """Nearest enrolled clips by cosine similarity; closer ones weigh more. ``predict`` maps [n, D] to speakers [n].

    The number k is chosen by cross-validation inside the enrolment.

    Args:
        across_digits: leave out digits, not clips, in the cross-validation, as for queries of other digits.
    """
    # scikit-learn warns about many speakers with few clips each, once per fold and k.
    warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
    warnings.filterwarnings("ignore", "The least populated class in y")
    z, speaker, digit = enrolment.z[name], enrolment.speaker, enrolment.digit
    knn = KNeighborsClassifier(1, metric="cosine", weights=_closeness)
    labels = digit if across_digits else speaker
    counts = np.unique(labels, return_counts=True)[1]
    folds = min(FOLDS, len(counts) if across_digits else int(counts.min()))
    if folds > 1:  # with one clip of a speaker, or one digit, none can be held out
        split = GroupKFold(folds) if across_digits else StratifiedKFold(folds, shuffle=True, random_state=seed)
        splits = list(split.split(z, speaker, digit if across_digits else None))
        smallest = min(len(train) for train, _ in splits)
        candidates = {"n_neighbors": [k for k in NEIGHBOURS if k <= smallest]}
        # Of equal scores the first, which is the smallest k.
        knn = GridSearchCV(knn, candidates, cv=splits).fit(z, speaker).best_estimator_
    return knn.fit(z, speaker)


def _closeness(distances: np.ndarray) -> np.ndarray:
    return 1 / (distances + 1e-6)


def halves(embeddings: Embeddings, seed: int) -> tuple[Embeddings, Embeddings]:
    """Enrolment and query: every second clip of each speaker and digit. Every query speaker is enrolled.

    Raises:
        UserError: no speaker has two clips.
    """
    queried = systematic_sample(embeddings.speaker, embeddings.digit, 0.5, seed)
    # A speaker with a single clip can only be enrolled.
    queried &= np.isin(embeddings.speaker, embeddings.speaker[~queried])
    if not queried.any():
        raise UserError("all test speakers have too few clips to be both enrolled and queried; raise --ratio")
    return embeddings.take(~queried), embeddings.take(queried)


def digit_parts(embeddings: Embeddings) -> list[tuple[Embeddings, np.ndarray]]:
    """Enrol digits 0 to 4 and query 5 to 9, then the other way round, so that only the voice can be recognised.

    Speakers without clips in both parts are left out.

    Returns:
        for both directions the enrolment, and the rows of the queries in ``embeddings``; empty if no speaker remains.
    """
    low = embeddings.digit < 5
    kept = np.isin(embeddings.speaker, np.intersect1d(embeddings.speaker[low], embeddings.speaker[~low]))
    parts = (low & kept, ~low & kept)
    return [(embeddings.take(a), np.flatnonzero(b)) for a, b in (parts, parts[::-1])] if kept.any() else []


def average_clips(embeddings: Embeddings, name: str, size: int, seed: int) -> Embeddings:
    """Average the embeddings, scaled to length 1, of ``size`` clips of one speaker each; four random groupings."""
    z, rng = unit_length(embeddings.z[name]), np.random.default_rng(seed)
    rows = [np.zeros((0, size), dtype=np.int64)]
    for one in np.repeat(np.unique(embeddings.speaker), GROUPINGS):
        own = rng.permutation(np.flatnonzero(embeddings.speaker == one))
        rows.append(own[: len(own) // size * size].reshape(-1, size))
    groups = np.concatenate(rows)  # [groups, size]
    return Embeddings({name: z[groups].mean(axis=1)}, np.full(len(groups), -1), embeddings.speaker[groups[:, 0]])


def count_similarities(enrolment: Embeddings, query: Embeddings, name: str) -> np.ndarray:
    """Compare each enrolled clip with each query: [2, S, S, bins] numbers of pairs by their cosine similarity.

    The first axis is 1 for pairs with the same digit, the others are the speakers of the two clips.
    """
    speakers = np.union1d(enrolment.speaker, query.speaker)
    shape = (2, len(speakers), BINS)
    counts = np.zeros((len(speakers), *shape), dtype=np.float32)
    other, z = np.searchsorted(speakers, query.speaker), unit_length(query.z[name])
    for own, one in zip(counts, speakers, strict=True):
        rows = enrolment.speaker == one
        similarity = unit_length(enrolment.z[name][rows]) @ z.T  # -1 to 1
        place = ((similarity + 1) * (BINS / 2 - 1e-3)).astype(np.int64).clip(0, BINS - 1)
        same_digit = (enrolment.digit[rows, None] == query.digit).astype(np.int64)
        index = np.ravel_multi_index((same_digit, np.broadcast_to(other, place.shape), place), shape)
        own[:] = np.bincount(index.ravel(), minlength=own.size).reshape(shape)
    return counts.swapaxes(0, 1)


def verify_all(enrolment: Embeddings, query: Embeddings, name: str, seed: int) -> dict[str, Verification | None]:
    """Verify single clips, averages of several, and pairs with and without a common digit apart, see ``verify``."""
    counts = count_similarities(enrolment, query, name)
    curves = {"eer": verify(counts.sum(axis=0))}
    for size in GROUPS:
        one, other = (average_clips(part, name, size, seed + i) for i, part in enumerate((enrolment, query)))
        curves[f"eer_{size}_clips"] = verify(count_similarities(one, other, name).sum(axis=0))
    return curves | {"other_digits_eer": verify(counts[0]), "same_digit_eer": verify(counts[1])}


def verify(counts: np.ndarray) -> Verification | None:
    """Are an enrolled clip and a query of one speaker? Every speaker, and every two speakers, count the same.

    The interval is over speakers, see ``common.intervals``: a resample draws them for both sides of the pairs. Two or
    three speakers tell nothing about others.

    Args:
        counts: [S, S, bins] pairs by their similarity, see ``count_similarities``.

    Returns:
        ``None`` where the pairs are all of one kind.
    """
    speakers, shares = len(counts), counts / counts.sum(axis=2, keepdims=True).clip(min=1)
    shares = shares + shares.swapaxes(0, 1)  # both ways to ask about two speakers
    present = shares.any(axis=2)
    a, b = np.nonzero(np.triu(present, k=1))
    own = np.flatnonzero(np.diag(present))
    if len(a) == 0 or len(own) == 0:
        return None
    alike = shares[own, own]  # [speakers, bins]
    different = shares[a, b] / shares[a, b].sum(axis=1, keepdims=True)  # [pairs of speakers, bins]
    accepts, rejects = _error_rates(alike.mean(axis=0), different.mean(axis=0))
    eer = float(_where_equal(accepts, rejects))
    if speakers < FEW_SPEAKERS:
        return Verification(accepts, rejects, eer, [0.0, 1.0])
    resampled = []
    for weights in np.array_split(resampled_speakers(speakers).astype(np.float32), 20):  # [resamples, S]; memory
        drawn = _error_rates(weights[:, own] @ alike, (weights[:, a] * weights[:, b]) @ different)
        resampled.append(_where_equal(*drawn))
    return Verification(accepts, rejects, eer, ci95(eer, np.concatenate(resampled), speakers))


def _error_rates(alike: np.ndarray, different: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False accepts and false rejects below and above every bin, from [..., bins] shares of pairs: [..., bins + 1]."""
    sums = [np.cumsum(kind, axis=-1, dtype=np.float64) for kind in (different, alike)]
    # A resample of one speaker alone has no pairs of two; its rates are missing.
    with np.errstate(invalid="ignore"):
        below = [np.concatenate([0 * each[..., :1], each / each[..., -1:]], axis=-1) for each in sums]
    return 1 - below[0], below[1]


def _where_equal(accepts: np.ndarray, rejects: np.ndarray) -> np.ndarray:
    """The rate where both are equal, interpolated between two bins: [..., bins + 1] -> [...]."""
    gap = rejects - accepts  # rises from -1 to 1
    after = np.maximum(np.argmax(gap >= 0, axis=-1), 1)[..., None]
    (gap0, gap1), (low, high) = (
        [np.take_along_axis(rates, place, axis=-1)[..., 0] for place in (after - 1, after)] for rates in (gap, rejects)
    )
    return low + (high - low) * gap0 / (gap0 - gap1)


def equal_error_rate(scores: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """The rate at which as many pairs of one speaker are rejected as pairs of two are accepted, and the threshold.

    Args:
        scores: [pairs] higher means more alike.
        same: [pairs] bool, the truth; both kinds must occur.
    """
    curve = zip(det_curve(same, scores), (0.0, 1.0, scores.max()), strict=True)
    accepts, rejects, thresholds = (np.append(rates, end) for rates, end in curve)  # at the end, all are rejected
    gap = rejects - accepts  # rises with the threshold
    threshold = min(thresholds[np.argmax(gap >= 0)], scores.max())
    return float(np.interp(0, gap, rejects)), float(threshold)

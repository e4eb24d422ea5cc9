"""Who is speaking? Identification and verification of test speakers, none of whom was in the encoders' training.

Some clips of each speaker are enrolled, others are queries. Axes: n clips, q queries, S speakers, D embedding.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from threadpoolctl import threadpool_limits

from common.corpus import systematic_sample
from common.intervals import accuracy_metrics, compare, jackknife_ci95
from common.run import UserError

Pass = tuple[np.ndarray, np.ndarray]  # rows of the clips that are enrolled, and of the queries


class DigitRemover(TransformerMixin, BaseEstimator):
    """Subtracts what the digits add to embeddings, then evens out the variances of what remains.

    A logistic regression says how probable each digit is, and the means of the digits, weighted by that, are
    subtracted. The voice is in many weak principal axes of the rest, which a few strong ones would drown; full
    whitening would amplify the empty ones just as much.

    Args:
        C: of the logistic regression; smaller is more regularised.
        power: of the variance that is divided by; 0 only rotates, 0.5 whitens.
    """

    def __init__(self, C: float, power: float) -> None:
        self.C, self.power = C, power

    def fit(self, z: np.ndarray, digit: np.ndarray) -> "DigitRemover":
        """Learn from embeddings [n, D] of the digits [n]."""
        self.means_ = np.stack([z[digit == each].mean(axis=0, dtype=float) for each in np.unique(digit)])  # [digits, D]
        regression = LogisticRegression(C=self.C, max_iter=2000) if len(self.means_) > 1 else DummyClassifier()
        with threadpool_limits(1, user_api="blas"):  # its products are small: threads would wait for each other
            self.classifier_ = make_pipeline(StandardScaler(), regression).fit(z.astype(float), digit)
        rest = self._without_digits(z)
        self.mean_, (variance, axes) = rest.mean(axis=0), np.linalg.eigh(np.cov(rest, rowvar=False))
        floor = 0.01 * variance.mean() or 1.0  # an axis without variance leaves nothing to divide by
        self.projection_ = axes / (variance.clip(min=0) + floor) ** self.power  # [D, D]
        return self

    def transform(self, z: np.ndarray) -> np.ndarray:
        """Embeddings without the digits, centred: [n, D] -> [n, D]."""
        return (self._without_digits(z) - self.mean_) @ self.projection_

    def _without_digits(self, z: np.ndarray) -> np.ndarray:
        return z - self.classifier_.predict_proba(z.astype(float)) @ self.means_


class Answers(NamedTuple):
    """What one kind of embedding answers in one condition."""

    speaker: np.ndarray  # [q] who said the queries
    predicted: np.ndarray  # [q] who the nearest neighbours say it was
    eer: float | None  # None with one speaker, for whom there are no non-target trials
    eer_ci95: list[float] | None  # over speakers

    @property
    def correct(self) -> np.ndarray:
        """Which queries are identified, [q] bool."""
        return self.predicted == self.speaker


def recognise(
    clean: np.ndarray, changed: np.ndarray, digit: np.ndarray, speaker: np.ndarray, k: int, seed: int
) -> dict[str, Answers]:
    """Identify and verify speakers in four conditions.

    They are "test", "text_independent" (other digits than enrolled), "mismatch" (queries over other microphones) and
    "mismatch_text_independent". Other digits are missing where no speaker said some of 0 to 4 and some of 5 to 9.

    Args:
        clean, changed: embeddings [n, D] of the test clips, and of the same clips over other microphones.
        digit, speaker: [n] labels.

    Raises:
        UserError: no speaker has two clips.
    """
    same, other = protocols(digit, speaker, seed)
    if not same:
        raise UserError("all test speakers have too few clips to be both enrolled and queried; raise --ratio")
    conditions = {"test": (clean, same), "text_independent": (clean, other)}
    conditions |= {"mismatch": (changed, same), "mismatch_text_independent": (changed, other)}
    return {name: ask(clean, query, speaker, passes, k) for name, (query, passes) in conditions.items() if passes}


def protocols(digit: np.ndarray, speaker: np.ndarray, seed: int) -> tuple[list[Pass], list[Pass]]:
    """Enrol every second clip of each speaker and digit and query the others; or query other digits than are enrolled.

    The second enrols digits 0 to 4 and queries 5 to 9, then the other way round. Speakers with clips on one side alone
    are left out; if none remains, there is no pass.
    """
    queried, low = systematic_sample(speaker, digit, 0.5, seed), digit < 5
    same: list[Pass] = []
    other: list[Pass] = []
    for passes, enrolled in ((same, ~queried), (other, low), (other, ~low)):
        kept = np.isin(speaker, np.intersect1d(speaker[enrolled], speaker[~enrolled]))
        if kept.any():
            passes.append((np.flatnonzero(enrolled & kept), np.flatnonzero(~enrolled & kept)))
    return same, other


def ask(enrolment: np.ndarray, query: np.ndarray, speaker: np.ndarray, passes: list[Pass], k: int) -> Answers:
    """Identify queries by their k nearest enrolled clips, of which closer ones weigh more, and verify them.

    A speaker's model is the mean of the enrolled embeddings, each of length 1.

    Args:
        enrolment, query: embeddings [n, D] of the same clips over both channels.
    """
    predicted, scores = [], []
    for enrolled, queried in passes:
        z, asked, names = normalize(enrolment[enrolled]), normalize(query[queried]), speaker[enrolled]
        neighbours = KNeighborsClassifier(min(k, len(z)), metric="cosine", weights="distance").fit(z, names)
        predicted.append(neighbours.predict(asked))
        models = np.stack([z[names == each].mean(axis=0) for each in np.unique(names)])  # [S, D]
        scores.append((asked @ normalize(models).T).astype(np.float32))  # [q, S]
    true = np.concatenate([speaker[queried] for _, queried in passes])
    return Answers(true, np.concatenate(predicted), *verify(np.concatenate(scores), true))


def verify(scores: np.ndarray, speaker: np.ndarray) -> tuple[float | None, list[float] | None]:
    """Was a query said by the speaker of a model? Trials compare each query with each model.

    Every speaker weighs the same in target trials, and every ordered pair of speakers in non-target trials.

    Args:
        scores: [q, S] similarity of each query and each speaker's model, in the order of the speakers.
        speaker: [q] who said the query; all S speakers said some.

    Returns:
        the equal error rate and its interval over speakers; ``None`` for one speaker.
    """
    names, speakers = np.unique(speaker), scores.shape[1]
    if speakers == 1:
        return None, None
    # These thresholds are enough: between two of them the false rejects change by no more than 0.001.
    thresholds = np.quantile(scores[speaker[:, None] == names], np.linspace(0, 1, 1001))
    thresholds = np.append(thresholds, np.nextafter(thresholds[-1], np.inf))  # the last one rejects all target trials
    pairs = np.zeros((speakers, speakers, len(thresholds)))  # share of trials accepted: who asks, model, threshold
    for i, name in enumerate(names):
        for j, column in enumerate(np.sort(scores[speaker == name], axis=0).T):
            pairs[i, j] = 1 - np.searchsorted(column, thresholds) / len(column)
    targets = pairs.diagonal().T.copy()  # [S, thresholds]
    pairs[np.diag_indices(speakers)] = 0  # the non-target trials remain
    others, false, true = pairs.sum(axis=0) + pairs.sum(axis=1), pairs.sum(axis=(0, 1)), targets.sum(axis=0)
    eer = equal_error_rate(false, true, speakers)
    if speakers == 2:  # without one of them, there are no non-target trials
        return eer, [0.0, 1.0]
    without = [equal_error_rate(false - others[i], true - targets[i], speakers - 1) for i in range(speakers)]
    return eer, jackknife_ci95(eer, np.array(without), (0, 1))


def equal_error_rate(false: np.ndarray, true: np.ndarray, speakers: int) -> float:
    """Where false accepts and false rejects are equally frequent, interpolated between two thresholds.

    Args:
        false, true: [thresholds] weight of the non-target and target trials that are accepted; 1 for each pair of
            speakers and for each speaker at most.
    """
    accepts, rejects = false / (speakers * (speakers - 1)), 1 - true / speakers
    return float(np.interp(0, rejects - accepts, rejects))


def metrics(answers: Mapping[str, Answers], names: Sequence[str]) -> dict:
    """Accuracies, equal error rates and chance of what ``recognise`` found; ``names`` are those of the speakers."""
    results: dict = {}
    for condition, answer in answers.items():
        prefix = "" if condition == "test" else f"{condition}_"
        results |= accuracy_metrics(condition, answer.correct, answer.speaker, names)
        results |= {f"{prefix}eer": answer.eer, f"{prefix}eer_ci95": answer.eer_ci95}
        if not condition.startswith("mismatch"):
            results[f"{prefix}chance"] = 1 / len(np.unique(answer.speaker))
    return results


def minus(answers: Mapping[str, Answers], control: Mapping[str, Answers], name: str) -> dict:
    """How much more accurately other digits are identified than by a control, see ``common.intervals.compare``."""
    results: dict = {}
    for condition, prefix in (("text_independent", "minus"), ("mismatch_text_independent", "mismatch_minus")):
        if condition in answers:
            one, other = answers[condition], control[condition]
            results |= compare(one.correct, other.correct, one.speaker, name, prefix)
    return results

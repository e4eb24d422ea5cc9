"""Identify who speaks in each recording: one of the people who are enrolled, or nobody.

Prints a line per query: person, similarity, file. To enrol people, make a folder for each with recordings (formats: see
`python -m common.voice.predict --help`): at least ten, better thirty, of the digits that will be queried. The encoders
were trained to distinguish clips, not people: another digit changes an embedding almost as much as another voice does.

The similarity to a person is a soft maximum of the cosine similarities to that person's recordings, in the whitened
embeddings of both formats. Below the threshold the answer is nobody. The default threshold is that of the equal error
rate among the enrolled recordings: they are rejected for their own person as often as accepted for another. Both are
printed on stderr; strangers are accepted more often. With one person enrolled, --threshold is required.

A file that cannot be used is reported on stderr; the others are still used, and the exit code is 1.

    $ ls people
    anna  ben
    $ python -m common.voice.identify --task2-checkpoint task2_contrastive/checkpoints/best.ckpt --enrol people who.wav
    anna     0.354  who.wav
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator

from common.checkpoints import load_contrastive, load_whitening
from common.evaluate import embed
from common.run.cli import Parser, run
from common.run.console import UserError, printable
from common.run.settings import Settings, a_folder, number
from common.speakers import Verification, equal_error_rate, unit_length
from common.voice.recordings import apply, as_batches

# The last five, which libsndfile cannot read, are listed so that such files are reported and not skipped.
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"),
    *(".m4a", ".aac", ".wma", ".amr", ".webm"),
)


class Enrolment(BaseEstimator):
    """Recordings of known people, with which others are compared. Axes: n recordings, q queries, D embedding.

    Args:
        softness: of the maximum. Towards 0 the closest of a person's recordings decides, which is best where there are
            many; towards infinity their mean, which is best where there are few. The default comes near both.

    Attributes:
        people_: [people] names, sorted.
        z_: [n, D] embeddings of length 1.
        membership_: [n, people] 1 where a recording is of a person, else 0.
    """

    def __init__(self, softness: float = 0.2) -> None:
        self.softness = softness

    def fit(self, z: np.ndarray, person: Sequence[str] | np.ndarray) -> "Enrolment":
        """Enrol embeddings [n, D] with the names [n] of their people."""
        self.people_, index = np.unique(person, return_inverse=True)
        self.z_, self.membership_ = unit_length(z), np.eye(len(self.people_))[index]
        return self

    def similarity(self, z: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Similarity of embeddings [q, D] to people: [q, people].

        Args:
            counted: [q, n] 1 for recordings that count, else 0; by default all do. Where none of a person's recordings
                counts, the similarity is -inf.
        """
        cosine = unit_length(z) @ self.z_.T  # [q, n]
        counted = np.ones_like(cosine) if counted is None else counted
        total = (counted * np.exp(cosine / self.softness)) @ self.membership_  # [q, people]
        with np.errstate(divide="ignore"):
            return self.softness * np.log(total / (counted @ self.membership_).clip(min=1))

    def equal_errors(self) -> Verification | None:
        """Verify each recording against the others of its person, and against the closest other person.

        ``None`` where one person is enrolled, or nobody with two recordings.
        """
        similarity = self.similarity(self.z_, 1 - np.eye(len(self.z_)))  # [n, people]
        own = self.membership_ == 1
        scores = np.concatenate([similarity[own], np.where(own, -np.inf, similarity).max(axis=1)])
        same = np.repeat([True, False], len(own))
        compared = np.isfinite(scores)  # a person's only recording has no others
        if len(np.unique(same[compared])) < 2:
            return None
        return equal_error_rate(scores[compared], same[compared])


def list_recordings(folder: Path) -> list[Path]:
    """The sound files ``folder/person/file``, sorted; hidden ones are skipped.

    Raises:
        UserError: the folder does not exist, cannot be listed, or holds no such file.
    """
    try:
        people = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
        files = sorted(file for person in people for file in person.iterdir())
    except OSError as error:
        raise UserError(f"--enrol {folder}: cannot list {error.filename} ({error.strerror})") from error
    files = [file for file in files if file.suffix.lower() in SUFFIXES and file.name[0] != "."]
    if not files:
        raise UserError(f"--enrol {folder}: no recordings in it; expected a folder per person, such as {folder}/anna/")
    return files


def main(
    task2_checkpoint: Path, enrol: Path, queries: list[Path], as_json: bool, threshold: float | None = None
) -> None:
    model, whitening = load_contrastive(task2_checkpoint), load_whitening(task2_checkpoint)

    def embeddings(waves: np.ndarray) -> np.ndarray:
        return whitening.transform(embed(model.embedder, as_batches(waves)).z["concat"])  # [n, D]

    files = list_recordings(enrol)
    usable = [(path.parent.name, z) for path, fault, z in apply(embeddings, files) if not fault]
    if not usable:
        raise UserError(f"--enrol {enrol}: none of its {len(files)} recordings can be used; see above")
    names = [name for name, _ in usable]
    for name in sorted({file.parent.name for file in files} - set(names)):
        print(f"{printable(name)}: not enrolled, because none of the recordings can be used", file=sys.stderr)
    enrolment = Enrolment().fit(np.array([z for _, z in usable]), names)

    enrolled = f"{len(names)} recordings of {len(enrolment.people_)} speaker(s) enrolled"
    if threshold is not None:
        print(f"{enrolled}; threshold {threshold:g}, as given", file=sys.stderr)
    elif errors := enrolment.equal_errors():
        threshold = errors.threshold
        print(f"{enrolled}; threshold {threshold:.3f}, their equal error rate {errors.eer:.0%}", file=sys.stderr)
    else:
        raise UserError(f"{enrolled}: too few to find a threshold; enrol two people or more, or give --threshold")

    results: list[dict] = []
    width = max(map(len, ("nobody", *map(printable, enrolment.people_))))
    for path, fault, z in apply(embeddings, queries):
        if fault:
            results.append({"file": str(path), "error": fault})
            continue
        (similarity,) = enrolment.similarity(z[None])  # [people]
        closest, highest = str(enrolment.people_[similarity.argmax()]), float(similarity.max())
        person = closest if highest >= threshold else None
        results.append({"file": str(path), "person": person, "closest": closest, "similarity": highest})
        if not as_json:
            print(f"{printable(person or 'nobody').ljust(width)}  {highest:6.3f}  {printable(str(path))}", flush=True)
    if as_json:
        print(json.dumps({"threshold": threshold, "answers": results}, indent=1))
    if len(usable) < len(files) or any("error" in result for result in results):
        sys.exit(1)


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_settings(Settings(), ("task2_checkpoint",))
    parser.add_argument("--enrol", type=a_folder, required=True, metavar="DIR", help="folder with a folder per person")
    threshold_help = "lowest similarity (-1 to 1) that names a person; default: see above"
    parser.add_argument("--threshold", type=number(float, -1, 1), metavar="FLOAT", help=threshold_help)
    json_help = "print an object instead, with the threshold and answers"
    parser.add_argument("--json", dest="as_json", action="store_true", help=json_help)
    parser.add_argument("queries", type=Path, nargs="+", metavar="QUERY", help="sound files of one spoken digit each")
    run(main, parser)

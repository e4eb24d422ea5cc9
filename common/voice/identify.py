"""Identify who speaks in each recording: one of the people who are enrolled, or nobody.

Prints a line per query: person, similarity, file. To enrol people, make a folder for each with recordings (formats: see
`python -m common.voice.predict --help`): at least ten, better thirty, of the digits that will be queried.

The similarity is a cosine, -1 to 1; below the threshold the answer is nobody. The default threshold is that of the
equal error rate among the enrolled recordings: they are rejected for their own person as often as accepted for another.
Both are printed on stderr; strangers are accepted more often. With one person enrolled, --threshold is required.

A file that cannot be used is reported on stderr; the others are still used, and the exit code is 1.

    $ python -m common.voice.identify --task2-checkpoint task2_contrastive/checkpoints/best.ckpt --enrol people who.wav
    anna   0.354  who.wav
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.batches import Batch
from common.checkpoints import load
from common.corpus.clips import visible_names
from common.evaluate import embed
from common.networks import ContrastiveNetwork, VoiceEmbedder
from common.run.cli import Parser, Settings, a_folder, number, run
from common.run.console import UserError, printable
from common.speaker_space import fuse, load_spaces, unit_length
from common.speakers import equal_error_rate
from common.voice.recordings import answer, report

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
# Towards 0 the closest of a person's recordings decides, which is best where there are many; towards infinity their
# mean, which is best where there are few. This comes near both.
SOFTNESS = 0.05


class Enrolment:
    """Recordings of known people, with which others are compared. Axes: n recordings, q queries, D embedding."""

    def fit(self, z: np.ndarray, person: Sequence[str] | np.ndarray) -> "Enrolment":
        """Enrol embeddings [n, D] with the names [n] of their people."""
        self.people_, index = np.unique(person, return_inverse=True)  # [people], sorted
        self.z_, self.membership_ = unit_length(z), np.eye(len(self.people_))[index]  # [n, D], [n, people]
        return self

    def similarity(self, z: np.ndarray, counted: np.ndarray | float = 1.0) -> np.ndarray:
        """Soft maximum of the cosine similarities of embeddings [q, D] to each person's recordings: [q, people].

        ``counted`` [q, n] is 0 for recordings to leave out, else 1; nan where all of a person's are left out.
        """
        weight = np.exp(unit_length(z) @ self.z_.T / SOFTNESS)  # [q, n]
        counted = np.broadcast_to(counted, weight.shape)
        with np.errstate(invalid="ignore"):
            return SOFTNESS * np.log((counted * weight) @ self.membership_ / (counted @ self.membership_))

    def equal_errors(self) -> tuple[float, float]:
        """Verify each recording against the others of its person, and against the closest other person.

        Returns:
            The equal error rate, and the similarity where it is.

        Raises:
            UserError: one person is enrolled, or nobody with two recordings.
        """
        similarity = self.similarity(self.z_, 1 - np.eye(len(self.z_)))  # [n, people]
        own = self.membership_ == 1
        genuine = similarity[own][np.isfinite(similarity[own])]  # a person's only recording has no others
        impostor = np.where(own, -np.inf, similarity).max(axis=1)
        if len(self.people_) < 2 or len(genuine) == 0:
            raise UserError("too few recordings for a threshold; enrol two people or more, or give --threshold")
        same = np.repeat([True, False], [len(genuine), len(impostor)])
        return equal_error_rate(np.concatenate([genuine, impostor]), same)


def main(task2_checkpoint: Path, enrol: Path, queries: list[Path], as_json: bool, threshold: float | None) -> None:
    embedder = VoiceEmbedder(load(task2_checkpoint, ContrastiveNetwork).embedder)
    spaces = load_spaces(task2_checkpoint)

    def embeddings(batches: list[Batch]) -> np.ndarray:
        return fuse(spaces, embed(embedder, batches))  # [n, D]

    if not enrol.is_dir():
        raise UserError(f"--enrol {enrol}: no such folder; it has to hold a folder per person, like {enrol}/anna/")
    people = [enrol / name for name in visible_names(enrol) if (enrol / name).is_dir()]
    files = [person / name for person in people for name in visible_names(person) if name.lower().endswith(SUFFIXES)]
    recordings = answer(lambda batches: [{"z": z} for z in embeddings(batches)], files)
    usable = [each for each in recordings if "z" in each]
    if not usable:
        raise UserError(f"--enrol {enrol}: no usable recordings; expected a folder per person, such as {enrol}/anna/")
    person = [Path(each["file"]).parent.name for each in usable]
    enrolment = Enrolment().fit(np.array([each["z"] for each in usable]), person)
    enrolled = f"{len(usable)} recordings of {len(enrolment.people_)} speaker(s) enrolled"
    if threshold is None:
        error_rate, threshold = enrolment.equal_errors()
        enrolled += f", their equal error rate {error_rate:.0%}"
    print(f"{enrolled}; threshold {threshold:.3f}", file=sys.stderr)

    def identify(batches: list[Batch]) -> list[dict]:
        similarity = enrolment.similarity(embeddings(batches))  # [q, people]
        closest, highest = enrolment.people_[similarity.argmax(axis=1)].tolist(), similarity.max(axis=1).tolist()
        return [
            {"person": name if value >= threshold else None, "closest": name, "similarity": value}
            for name, value in zip(closest, highest, strict=True)
        ]

    def columns(each: dict) -> list[str]:
        return [printable(each["person"] or "nobody"), f"{each['similarity']:6.3f}"]

    answers = answer(identify, queries)
    report(answers, columns, {"threshold": threshold, "answers": answers} if as_json else None)
    if len(usable) < len(files):
        sys.exit(1)


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_settings(Settings(), ("task2_checkpoint",))
    parser.add_argument("--enrol", type=a_folder, required=True, metavar="DIR", help="folder with a folder per person")
    parser.add_argument("--threshold", type=number(float, -1, 1), metavar="FLOAT", help="default: see above")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON, with the threshold")
    parser.add_argument("queries", type=Path, nargs="+", metavar="QUERY", help="sound files of one spoken digit each")
    run(main, parser)

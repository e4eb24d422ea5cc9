"""Who is speaking in each of these recordings, out of a few people who are enrolled, or is it nobody of them?

Enrols a folder per person with recordings of spoken digits, and prints a line per query: the person, the similarity and
the file. For recordings see `python -m common.voice.predict --help`. Ten of each person are few and thirty are better,
and they should hold the digits that will be asked: the encoders were trained to tell clips apart, never people, and
another digit is to them nearly another voice.

The similarity of a query to a person is a soft maximum of its cosine similarities to that person's recordings (both
embeddings together, whitened by the clips that the encoders were trained on). Where the highest is below the
threshold, the speaker is nobody who is enrolled. The threshold is found among the enrolled recordings, each of which is
asked twice: without itself, when it should be known, and without all of its person, when it should be nobody. It is
where both mistakes are equally frequent. That rate (equal error rate) is printed, and is hopeful: strangers are given a
name more often. --threshold sets another threshold, and is needed where one person is enrolled.

A file that cannot be used is named in a line on stderr, the others are answered, and the exit code is 1.

    python -m common.voice.identify --task2-checkpoint task2_contrastive/checkpoints/best.ckpt --enrol people who.wav

where the folder holds people/anna/*.wav and people/ben/*.mp3 prints, for example

    anna     0.354  who.wav
    nobody   0.087  else.wav
"""

import json
import sys
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.checkpoints import load_encoders
from common.evaluate import embed
from common.run.cli import TASK2_CHECKPOINT, Parser, a_folder, a_path, run
from common.run.console import UserError, printable
from common.speakers import Verification, equal_error_rate, unit_length, whiten_by
from common.voice.recordings import as_batches, read_recordings, report_faults

# 0 would take the best of a person's recordings, much the average of all: the one is best where there are many, the
# other where there are few, and this is near both.
SOFTNESS = 0.2
# Some of which libsndfile cannot read: that is then said, as of any recording.
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"),
    *(".m4a", ".aac", ".wma", ".amr", ".webm"),
)


class Enrolment(NamedTuple):
    """People's recordings as unit vectors."""

    people: list[str]
    z: np.ndarray  # [n, D] of length 1
    person: np.ndarray  # [n] index into people

    def similarity(self, cosine: np.ndarray, heard: np.ndarray | None = None) -> np.ndarray:
        """Similarity of queries to people.

        Args:
            cosine: [q, n] of each query to each recording.
            heard: [q, n] bool, the recordings that count; all, if not given.

        Returns:
            [q, people]; -inf where none of a person's recordings counts.
        """
        heard = np.ones(cosine.shape, dtype=bool) if heard is None else heard
        membership = np.eye(len(self.people))[self.person]  # [n, people]
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (heard * np.exp(cosine / SOFTNESS)) @ membership / (heard @ membership)
            return np.where(heard @ membership > 0, SOFTNESS * np.log(mean), -np.inf)

    def equal_errors(self) -> Verification | None:
        """How well the enrolled recordings are known without themselves, and turned away without their person.

        ``None`` where there is no such question: one person alone, or nobody with two recordings.
        """
        cosine = self.z @ self.z.T
        same = self.person[:, None] == self.person
        known = self.similarity(cosine, ~np.eye(len(cosine), dtype=bool))[np.arange(len(cosine)), self.person]
        strange = self.similarity(cosine, ~same).max(axis=1)
        scores = np.concatenate([known, strange])
        truth = np.repeat([True, False], len(cosine))
        usable = np.isfinite(scores)
        if len(set(truth[usable].tolist())) < 2:
            return None
        return equal_error_rate(scores[usable], truth[usable])


def list_people(folder: Path) -> dict[str, list[Path]]:
    """The sound files of each folder in ``folder``, both in order; hidden ones and other files are left alone.

    Raises:
        UserError: there is no such folder, it cannot be listed, or holds no folder with a sound file.
    """
    try:
        people = {
            place.name: [file for file in sorted(place.iterdir()) if _is_sound(file)]
            for place in sorted(folder.iterdir())
            if place.is_dir() and not place.name.startswith(".")
        }
    except OSError as error:
        raise UserError(f"--enrol {folder}: cannot list {error.filename} ({error.strerror})") from error
    people = {name: files for name, files in people.items() if files}
    if not people:
        raise UserError(f"--enrol {folder}: no recordings in it; expected a folder per person, such as {folder}/anna/")
    return people


def _is_sound(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def main(args: Namespace) -> None:
    model, spread = load_encoders(args.task2_checkpoint)

    def unit_vectors(waves: np.ndarray) -> np.ndarray:
        return unit_length(whiten_by(spread, embed(model.embedder, as_batches(waves)).z["concat"]))

    recordings = [(name, file) for name, files in list_people(args.enrol).items() for file in files]
    waves, faults = read_recordings(file for _, file in recordings)
    failed = report_faults([file for _, file in recordings], faults)
    owners = [name for (name, _), fault in zip(recordings, faults, strict=True) if not fault]
    if not owners:
        raise UserError(f"--enrol {args.enrol}: none of its {len(recordings)} recordings can be used")
    people = sorted(set(owners))
    for name in sorted({name for name, _ in recordings} - set(people)):
        print(f"{printable(name)}: not enrolled, for none of the recordings can be used", file=sys.stderr)
    enrolment = Enrolment(people, unit_vectors(waves), np.array([people.index(name) for name in owners]))
    threshold = choose_threshold(enrolment, args.threshold)

    waves, faults = read_recordings(args.queries)
    failed |= report_faults(args.queries, faults)
    rows = iter(enrolment.similarity(unit_vectors(waves) @ enrolment.z.T) if len(waves) else ())
    answers = []
    for file, fault in zip(args.queries, faults, strict=True):
        if fault:
            answers.append({"file": str(file), "error": fault})
            continue
        similarity = next(rows)
        closest, highest = people[int(similarity.argmax())], float(similarity.max())
        name = closest if highest >= threshold else None
        answers.append({"file": str(file), "person": name, "closest": closest, "similarity": highest})
    if args.json:
        print(json.dumps({"threshold": threshold, "answers": answers}, indent=1))
    else:
        width = max(map(len, ("nobody", *map(printable, people))))
        for answer in answers:
            if "error" not in answer:
                name = printable(answer["person"] or "nobody").ljust(width)
                print(f"{name}  {answer['similarity']:6.3f}  {printable(answer['file'])}")
    if failed:
        sys.exit(1)


def choose_threshold(enrolment: Enrolment, given: float | None) -> float:
    """``given``, or else that of the equal error rate among the enrolled recordings, which is told on stderr.

    Raises:
        UserError: none is given, and the enrolled recordings cannot tell.
    """
    errors = enrolment.equal_errors()
    who = f"{len(enrolment.z)} recordings of {len(enrolment.people)} speaker(s) enrolled"
    if given is not None:
        print(f"{who}; threshold {given:g}, as given", file=sys.stderr)
        return given
    if errors is None:
        raise UserError(f"{who}: too few to find a threshold; enrol two people or more, or give --threshold")
    print(f"{who}; threshold {errors.threshold:.3f}, their equal error rate {errors.eer:.0%}", file=sys.stderr)
    return errors.threshold


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -1 <= value <= 1:
        raise ArgumentTypeError(f"expected a number from -1 to 1, got {text[:60]!r}")
    return value


if __name__ == "__main__":
    parser = Parser(__doc__)
    checkpoint_help = "best.ckpt of task 2"
    parser.add_argument(
        "--task2-checkpoint", type=a_path, default=TASK2_CHECKPOINT, metavar="CKPT", help=checkpoint_help
    )
    parser.add_argument("--enrol", type=a_folder, required=True, metavar="DIR", help="folder with a folder per person")
    threshold_help = "lowest similarity, from -1 to 1, at which a query is somebody enrolled; default: see above"
    parser.add_argument("--threshold", type=_cosine, metavar="FLOAT", help=threshold_help)
    parser.add_argument("--json", action="store_true", help="print an object instead, with the threshold and answers")
    parser.add_argument("queries", type=Path, nargs="+", metavar="QUERY", help="sound files of one spoken digit each")
    run(main, parser)

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

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.checkpoints import load_contrastive, load_whitening
from common.data import Batch
from common.evaluate import embed
from common.run.cli import Parser, run
from common.run.console import UserError, align, printable
from common.run.settings import Settings, a_folder, number
from common.speakers import Verification, equal_error_rate, unit_length
from common.voice.recordings import answer

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
# Towards 0 the closest of a person's recordings decides, which is best where there are many; towards infinity their
# mean, which is best where there are few. This comes near both.
SOFTNESS = 0.2


class Enrolment:
    """Recordings of known people, with which others are compared. Axes: n recordings, q queries, D embedding."""

    def fit(self, z: np.ndarray, person: Sequence[str] | np.ndarray) -> "Enrolment":
        """Enrol embeddings [n, D] with the names [n] of their people."""
        self.people_, index = np.unique(person, return_inverse=True)  # [people], sorted
        self.z_, self.membership_ = unit_length(z), np.eye(len(self.people_))[index]  # [n, D], [n, people]
        return self

    def similarity(self, z: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Soft maximum of the cosine similarities of embeddings [q, D] to each person's recordings: [q, people].

        ``counted`` [q, n] is 0 for recordings to leave out, else 1; -inf where all of a person's are left out.
        """
        cosine = unit_length(z) @ self.z_.T  # [q, n]
        counted = np.ones_like(cosine) if counted is None else counted
        total = (counted * np.exp(cosine / SOFTNESS)) @ self.membership_  # [q, people]
        with np.errstate(divide="ignore"):
            return SOFTNESS * np.log(total / (counted @ self.membership_).clip(min=1))

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


def main(task2_checkpoint: Path, enrol: Path, queries: list[Path], as_json: bool, threshold: float | None) -> None:
    model, whitening = load_contrastive(task2_checkpoint), load_whitening(task2_checkpoint)

    def embeddings(batches: list[Batch]) -> list[dict]:
        return [{"z": z} for z in whitening.transform(embed(model.embedder, batches).z["concat"])]

    visible = [file for person in enrol.glob("[!.]*/") for file in person.iterdir() if file.name[0] != "."]
    files = sorted(file for file in visible if file.suffix.lower() in SUFFIXES)
    usable = {Path(each["file"]): each["z"] for each in answer(embeddings, files) if "z" in each}
    if not usable:
        raise UserError(f"--enrol {enrol}: no usable recordings; expected a folder per person, such as {enrol}/anna/")
    enrolment = Enrolment().fit(np.array(list(usable.values())), [file.parent.name for file in usable])
    enrolled = f"{len(usable)} recordings of {len(enrolment.people_)} speaker(s) enrolled"
    if threshold is None:
        errors = enrolment.equal_errors()
        if errors is None:
            raise UserError(f"{enrolled}: too few to find a threshold; enrol two people or more, or give --threshold")
        threshold = errors.threshold
        enrolled += f", their equal error rate {errors.eer:.0%}"
    print(f"{enrolled}; threshold {threshold:.3f}", file=sys.stderr)

    answers = answer(embeddings, queries)
    identified = [each for each in answers if "z" in each]
    for each in identified:
        (similarity,) = enrolment.similarity(each.pop("z")[None])  # [people]
        closest, highest = str(enrolment.people_[similarity.argmax()]), float(similarity.max())
        each |= {"person": closest if highest >= threshold else None, "closest": closest, "similarity": highest}
    if as_json:
        print(json.dumps({"threshold": threshold, "answers": answers}, indent=1))
    rows = [
        [printable(each["person"] or "nobody"), f"{each['similarity']:6.3f}", printable(each["file"])]
        for each in identified
    ]
    for line in align(rows) if not as_json else ():
        print(line)
    if len(usable) < len(files) or len(identified) < len(queries):
        sys.exit(1)


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_settings(Settings(), ("task2_checkpoint",))
    parser.add_argument("--enrol", type=a_folder, required=True, metavar="DIR", help="folder with a folder per person")
    parser.add_argument("--threshold", type=number(float, -1, 1), metavar="FLOAT", help="default: see above")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON, with the threshold")
    parser.add_argument("queries", type=Path, nargs="+", metavar="QUERY", help="sound files of one spoken digit each")
    run(main, parser)

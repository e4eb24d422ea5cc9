"""How often does `python -m common.voice.identify` name the enrolled rightly and turn strangers away?

    python tests/benchmarks/strangers.py --data-dir DIR --task2-checkpoint best.ckpt

Of the test speakers of DIR, some are enrolled with some of their clips. Their other clips, and all clips of the other
test speakers (the strangers), are the queries. One row for each number of people and clips: means over --draws random
choices. No speaker was heard by the encoders, and the threshold comes from the enrolled clips, as in the command.

named        share of the enrolled people's queries that got the right name
turned away  share of the strangers' queries that were nobody's
closest      share of the enrolled people's queries whose closest person was right, whatever the threshold
expected     the equal error rate that the command prints: share of errors of both kinds among the enrolled clips
"""

from argparse import Namespace

import numpy as np

from common.checkpoints import load_contrastive, load_encoders
from common.data import SpokenDigits
from common.evaluate import embed
from common.run.cli import run, task_parser
from common.run.console import align
from common.speakers import unit_length, whiten_by
from common.voice.identify import Enrolment


def measure(z: np.ndarray, speaker: np.ndarray, people: int, clips: int, rng: np.random.Generator) -> list[float]:
    """The four columns for one random choice of ``people`` and of ``clips`` of each."""
    enrolled = np.sort(rng.choice(np.unique(speaker), people, replace=False))
    rows = np.concatenate([rng.permutation(np.flatnonzero(speaker == name))[:clips] for name in enrolled])
    enrolment = Enrolment([str(name) for name in enrolled], z[rows], np.searchsorted(enrolled, speaker[rows]))
    errors = enrolment.equal_errors()
    asked = np.setdiff1d(np.arange(len(z)), rows)
    similarity = enrolment.similarity(z[asked] @ z[rows].T)
    accepted = similarity.max(axis=1) >= errors.threshold
    right = enrolled[similarity.argmax(axis=1)] == speaker[asked]
    known = np.isin(speaker[asked], enrolled)
    return [(right & accepted)[known].mean(), (~accepted)[~known].mean(), right[known].mean(), errors.eer]


def main(args: Namespace) -> None:
    data = SpokenDigits(args)
    load_contrastive(args, data)  # which refuses one that heard the test speakers
    model, spread = load_encoders(args.task2_checkpoint)
    test = embed(model.embedder, data.loader("test"))
    z = unit_length(whiten_by(spread, test.z["concat"]))
    rng = np.random.default_rng(args.seed)
    table = [["people", "clips each", "named", "turned away", "closest", "expected"]]
    for people in (2, 6):
        for clips in (5, 10, 30):
            means = np.mean([measure(z, test.speaker, people, clips, rng) for _ in range(args.draws)], axis=0)
            table.append([str(people), str(clips), *(f"{value:.3f}" for value in means)])
    print(f"{data.corpus.name}, {len(data.names('test'))} test speakers, {len(z)} clips, {args.draws} draws a row")
    print("\n".join(align(table)))


if __name__ == "__main__":
    parser = task_parser(__doc__, "output", reads=("task2",))
    parser.add_argument("--draws", type=int, default=50, metavar="INT", help="random choices of people and clips")
    run(main, parser)

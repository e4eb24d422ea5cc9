"""How often does `python -m common.voice.identify` identify the enrolled people and reject strangers?

    python tests/benchmarks/strangers.py --data-dir DIR --task2-checkpoint best.ckpt

Some of the test speakers of DIR are enrolled with some of their clips. Their other clips, and all clips of the other
test speakers (the strangers), are the queries. Each row is for a number of people and of clips: means over --draws
random choices. As in the command, the threshold comes from the enrolled clips, and the encoders were not trained on
any of these speakers.

identified  share of the enrolled people's queries that were accepted as the right person
rejected    share of the strangers' queries that were accepted as nobody
closest     share of the enrolled people's queries whose closest person was the right one, whatever the threshold
expected    the equal error rate that the command prints: the share of errors of both kinds among the enrolled clips
"""

from typing import Any

import numpy as np
from common.voice.identify import Enrolment
from timing import show

from common.checkpoints import load
from common.data import SpokenDigits
from common.evaluate import embed
from common.modules import ContrastiveModel
from common.networks import VoiceEmbedder
from common.run.cli import Settings, number, run, task_parser
from common.speaker_space import fuse, load_spaces


def measure(z: np.ndarray, speaker: np.ndarray, people: int, clips: int, rng: np.random.Generator) -> list[float]:
    """The four columns for one random choice of ``people`` and of ``clips`` of each."""
    enrolled = np.sort(rng.choice(np.unique(speaker), people, replace=False))
    rows = np.concatenate([rng.permutation(np.flatnonzero(speaker == person))[:clips] for person in enrolled])
    enrolment = Enrolment().fit(z[rows], speaker[rows])
    error_rate, threshold = enrolment.equal_errors()
    queries = np.setdiff1d(np.arange(len(z)), rows)
    similarity = enrolment.similarity(z[queries])  # [queries, people]
    accepted = similarity.max(axis=1) >= threshold
    right = enrolment.people_[similarity.argmax(axis=1)] == speaker[queries]
    known = np.isin(speaker[queries], enrolled)
    return [(right & accepted)[known].mean(), (~accepted)[~known].mean(), right[known].mean(), error_rate]


def main(draws: int, **flags: Any) -> None:
    settings = Settings(**flags)
    data = SpokenDigits(**settings.data)
    model = load(settings.task2_checkpoint, ContrastiveModel, data)
    test = embed(VoiceEmbedder(model.embedder), data.loader("test"))
    z = fuse(load_spaces(settings.task2_checkpoint), test)
    rng = np.random.default_rng(settings.seed)
    table = [["people", "clips each", "identified", "rejected", "closest", "expected"]]
    for people in (2, 6):
        for clips in (5, 10, 30):
            means = np.nanmean([measure(z, test.speaker, people, clips, rng) for _ in range(draws)], axis=0)
            table.append([str(people), str(clips), *(f"{value:.3f}" for value in means)])
    show(f"{data.corpus.name}, {len(data.names('test'))} test speakers, {len(z)} clips, {draws} draws a row", table)


if __name__ == "__main__":
    parser = task_parser(__doc__, Settings(), "task2_checkpoint")
    help_text = "random choices of people and clips"
    parser.add_argument("--draws", type=number(int, 1, 1_000_000), default=50, metavar="INT", help=help_text)
    run(main, parser)

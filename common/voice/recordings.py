"""Read recordings of one spoken digit each, from sound files of any kind, in the form that the models take."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from common.batches import Batch
from common.corpus.decode import read_clip, standardise
from common.run.console import align, printable


def read_recording(path: str | Path) -> np.ndarray:
    """One recording, in any format that libsndfile reads, as [16000] int16, see ``common.corpus.decode.standardise``.

    Raises:
        ValueError: it cannot be read, is silent, or has a rate or length that is not a spoken digit's.
    """
    return standardise(*read_clip(Path(path)))


def answer(function: Callable[[list[Batch]], Iterable[dict]], paths: Sequence[Path]) -> list[dict]:
    """Apply ``function``, which maps a loader of n recordings to n answers, to sound files.

    Returns an answer for each path, with its ``file``. If it cannot be used, its ``error`` is also printed on stderr.
    """
    answers, waves = [{"file": str(path)} for path in paths], []
    for each in answers:
        try:
            waves.append(read_recording(each["file"]))
        except ValueError as error:
            each["error"] = printable(str(error))
            print(f"{printable(each['file'])}: {each['error']}", file=sys.stderr)
    if waves:
        parts = torch.from_numpy(np.stack(waves)).split(256)
        batches = [Batch(part, *[torch.full((len(part),), -1)] * 2) for part in parts]  # digit and speaker are unknown
        usable = (each for each in answers if "error" not in each)
        for each, result in zip(usable, function(batches), strict=True):
            each.update(result)
    return answers


def report(answers: list[dict], columns: Callable[[dict], list[str]], as_json: object) -> None:
    """Print ``as_json``, or without it a line per usable recording; end with exit code 1 if one cannot be used."""
    if as_json:
        print(json.dumps(as_json, indent=1))
    else:
        usable = (each for each in answers if "error" not in each)
        for line in align([[*columns(each), printable(each["file"])] for each in usable]):
            print(line)
    if any("error" in each for each in answers):
        sys.exit(1)

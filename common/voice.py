"""Predict which digit is spoken in each recording.

Prints a line per file: digit, confidence, file. A recording holds one spoken digit, in WAV, FLAC, OGG, MP3 or another
format that libsndfile reads, 4 to 384 kHz, mono or stereo, at most 30 s. The second with the most energy is used.

The confidence is the largest softmax probability, calibrated on held-out clips of the training speakers. It is not the
probability of being right: unseen speakers are harder, and other words get a digit too.

A file that cannot be used is reported on stderr; the others are still predicted, and the exit code is 1.

    $ python -m common.voice task1_supervised/2d_checkpoints/best.ckpt my_seven.wav
    7  0.962  my_seven.wav
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from common.corpus.cache import read_clip, standardise
from common.data import Batch
from common.encoders import DigitNetwork
from common.evaluate import load_classifier, predict_digits
from common.run import align, printable
from common.run.cli import Parser, a_path, run


def read_recordings(files: list[Path]) -> tuple[dict[Path, np.ndarray], dict[Path, str]]:
    """The waveforms ([16000] int16 each) of the files that can be used, and what is wrong with the others."""
    waves, faults = {}, {}
    for file in files:
        try:
            waves[file] = standardise(*read_clip(file))
        except ValueError as error:
            faults[file] = printable(str(error))
            print(f"{printable(str(file))}: {faults[file]}", file=sys.stderr)
    return waves, faults


def predict(model: DigitNetwork, waves: list[np.ndarray]) -> list[dict]:
    """Digit, confidence and all ten probabilities of each waveform."""
    parts = torch.from_numpy(np.stack(waves)).split(256)
    batches = [Batch(part, *[torch.full((len(part),), -1)] * 2) for part in parts]  # digit and speaker are unknown
    logits = predict_digits(model, batches).logits / model.temperature
    rows = logits.softmax(dim=1).tolist()  # [n, 10]
    return [{"digit": row.index(max(row)), "confidence": max(row), "probabilities": row} for row in rows]


def main(checkpoint: Path, files: list[Path], as_json: bool) -> None:
    model = load_classifier(checkpoint)
    waves, faults = read_recordings(files)
    found = dict(zip(waves, predict(model, [*waves.values()]), strict=True)) if waves else {}
    answers = [{"file": str(file)} | (found.get(file) or {"error": faults[file]}) for file in files]
    if as_json:
        print(json.dumps(answers, indent=1))
    else:
        usable = [each for each in answers if "digit" in each]
        for line in align([[str(x["digit"]), f"{x['confidence']:.3f}", printable(x["file"])] for x in usable]):
            print(line)
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("checkpoint", type=a_path, metavar="CHECKPOINT", help="best.ckpt of task 1 or task 5")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound files of one spoken digit each")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON, with all ten probabilities")
    run(main, parser)

"""Predict which digit is spoken in each recording.

Prints a line per file: digit, confidence, file. A recording holds one spoken digit, in WAV, FLAC, OGG, MP3 or another
format that libsndfile reads, 4 to 384 kHz, mono or stereo, at most 30 s. The second with the most energy is used.

The confidence is the largest softmax probability, calibrated on held-out clips of the training speakers. It is not the
probability of being right: unseen speakers are harder, and other words get a digit too.

A file that cannot be used is reported on stderr; the others are still predicted, and the exit code is 1.

    $ python -m common.voice task1_supervised/2d_checkpoints/best.ckpt my_seven.wav
    7  0.962  my_seven.wav
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.corpus.cache import read_clip, standardise
from common.encoders import DigitNetwork
from common.evaluate import load_classifier
from common.run import printable
from common.run.cli import Parser, a_path, run


@torch.inference_mode()
def predict(model: DigitNetwork, waves: list[np.ndarray]) -> Tensor:
    """Calibrated probabilities [n, 10] of n waveforms, [16000] int16 each."""
    parts = torch.from_numpy(np.stack(waves)).split(256)  # at once they would not fit the memory
    return torch.cat([model(part) / model.temperature for part in parts]).softmax(dim=1)


def main(checkpoint: Path, files: list[Path]) -> None:
    model = load_classifier(checkpoint)
    waves = {}
    for file in files:
        try:
            waves[file] = standardise(*read_clip(file))
        except ValueError as error:
            print(printable(f"{file}: {error}"), file=sys.stderr)
    if waves:
        confidences, digits = predict(model, [*waves.values()]).max(dim=1)
        for file, confidence, digit in zip(waves, confidences, digits, strict=True):
            print(f"{digit}  {confidence:.3f}  {printable(str(file))}")
    if len(waves) < len({*files}):
        sys.exit(1)


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("checkpoint", type=a_path, metavar="CHECKPOINT", help="best.ckpt of task 1 or task 5")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound files of one spoken digit each")
    run(main, parser)

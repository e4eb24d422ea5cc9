"""Predict which digit is spoken in each recording.

Prints a line per file: digit, confidence, file. A recording holds one spoken digit, in WAV, FLAC, OGG, MP3 or another
format that libsndfile reads, 4 to 384 kHz, mono or stereo, at most 30 s. The second with the most energy is used.

The confidence is the largest softmax probability, which training with label smoothing (0.1) lowers. It is not the
probability of being right: for new speakers its median was 0.95 with fine-tuned encoders and 0.87 with frozen ones,
while more than 99% of the digits were right. Other words are given a digit too, sometimes with high confidence.

A file that cannot be used is reported on stderr; the others are still predicted, and the exit code is 1.

    $ python -m common.voice.predict task1_supervised/2d_checkpoints/best.ckpt my_seven.wav another.mp3
    7  0.962  my_seven.wav
    3  0.874  another.mp3
"""

import json
import sys
from pathlib import Path

import numpy as np

from common.checkpoints import load
from common.evaluate import predict_digits
from common.modules import DigitClassifier
from common.run.cli import Parser, run
from common.run.console import printable
from common.run.settings import a_path
from common.voice.recordings import apply, as_batches


def main(checkpoint: Path, files: list[Path], as_json: bool) -> None:
    model = load(checkpoint, DigitClassifier, flag="CHECKPOINT")

    def predict(waves: np.ndarray) -> list[list[float]]:
        return predict_digits(model, as_batches(waves)).logits.softmax(dim=1).tolist()  # [n, 10]

    results: list[dict] = []
    for path, fault, probabilities in apply(predict, files):
        if fault:
            results.append({"file": str(path), "error": fault})
            continue
        confidence = max(probabilities)
        digit = probabilities.index(confidence)
        results.append({"file": str(path), "digit": digit, "confidence": confidence, "probabilities": probabilities})
        if not as_json:
            print(f"{digit}  {confidence:.3f}  {printable(str(path))}", flush=True)
    if as_json:
        print(json.dumps(results, indent=1))
    if any("error" in result for result in results):
        sys.exit(1)


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("checkpoint", type=a_path, metavar="CHECKPOINT", help="best.ckpt of task 1 or task 5")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound files of one spoken digit each")
    json_help = "print a list of objects instead, with all ten probabilities"
    parser.add_argument("--json", dest="as_json", action="store_true", help=json_help)
    run(main, parser)

"""Which digit is said in each of these recordings?

Prints a line per file: the digit, the confidence and the file. A recording holds one spoken digit, at any sampling rate
from 4 to 384 kHz, mono or stereo, for up to 30 s, of which the second with the most energy is heard; WAV, FLAC, OGG,
MP3 and what else libsndfile reads.

The confidence is the largest probability of the model's softmax, held back by training with label smoothing (0.1). It
is not the probability of being right: people whom no model had heard got 0.95 with fine-tuned encoders and 0.87 with
frozen ones (medians) where more than 99% of the digits were right. It compares the ten digits with each other: another
word gets a digit too, and may get it with confidence.

A file that cannot be used (not there, no sound file, silent, too long) is named in a line on stderr, the others are
answered, and the exit code is 1.

    python -m common.voice.predict task1_supervised/2d_checkpoints/best.ckpt my_seven.wav another.mp3
    python -m common.voice.predict task5_finetune/concat_finetuned_checkpoints/best.ckpt --json recordings/*.wav

prints, for example

    7  0.962  my_seven.wav
    3  0.874  another.mp3
"""

import json
import sys
from argparse import Namespace
from pathlib import Path

from common.checkpoints import load_classifier
from common.evaluate import outputs
from common.run.cli import Parser, a_path, run
from common.run.console import printable
from common.voice.recordings import BATCH, as_batches, read_recordings, report_faults


def main(args: Namespace) -> None:
    model = load_classifier(args.checkpoint)
    answers, failed = [], False
    for first in range(0, len(args.files), BATCH):
        files = args.files[first : first + BATCH]
        waves, faults = read_recordings(files)
        failed |= report_faults(files, faults)
        rows = (row for logits, _, _ in outputs(model, as_batches(waves)) for row in logits.softmax(dim=1).tolist())
        for file, fault in zip(files, faults, strict=True):
            if fault:
                answers.append({"file": str(file), "error": fault})
                continue
            probabilities = next(rows)
            confidence = max(probabilities)
            digit = probabilities.index(confidence)
            answers.append(
                {"file": str(file), "digit": digit, "confidence": confidence, "probabilities": probabilities}
            )
            if not args.json:
                print(f"{digit}  {confidence:.3f}  {printable(str(file))}", flush=True)
    if args.json:
        print(json.dumps(answers, indent=1))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    parser = Parser(__doc__)
    checkpoint_help = "best.ckpt of task 1 or task 5"
    parser.add_argument("checkpoint", type=a_path, metavar="CHECKPOINT", help=checkpoint_help)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound files of one spoken digit each")
    json_help = "print a list of objects instead, with all ten probabilities"
    parser.add_argument("--json", action="store_true", help=json_help)
    run(main, parser)

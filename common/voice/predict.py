"""Predict which digit is spoken in each recording.

Prints a line per file: digit, confidence, file. A recording holds one spoken digit, in WAV, FLAC, OGG, MP3 or another
format that libsndfile reads, 4 to 384 kHz, mono or stereo, at most 30 s. The second with the most energy is used.

The confidence is the largest softmax probability, calibrated on held-out clips of the training speakers. It is not the
probability of being right: strangers are harder, and other words get a digit too.

A file that cannot be used is reported on stderr; the others are still predicted, and the exit code is 1.

    $ python -m common.voice.predict task1_supervised/2d_checkpoints/best.ckpt my_seven.wav
    7  0.962  my_seven.wav
"""

from pathlib import Path

from common.batches import Batch
from common.checkpoints import load
from common.evaluate import predict_digits
from common.networks import DigitNetwork
from common.run.cli import Parser, a_path, run
from common.voice.recordings import answer, report


def main(checkpoint: Path, files: list[Path], as_json: bool) -> None:
    model = load(checkpoint, DigitNetwork)

    def predict(batches: list[Batch]) -> list[dict]:
        logits = predict_digits(model, batches).logits / model.temperature
        rows = logits.softmax(dim=1).tolist()  # [n, 10]
        return [{"digit": row.index(max(row)), "confidence": max(row), "probabilities": row} for row in rows]

    answers = answer(predict, files)
    report(answers, lambda each: [str(each["digit"]), f"{each['confidence']:.3f}"], answers if as_json else None)


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("checkpoint", type=a_path, metavar="CHECKPOINT", help="best.ckpt of task 1 or task 5")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound files of one spoken digit each")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON, with all ten probabilities")
    run(main, parser)

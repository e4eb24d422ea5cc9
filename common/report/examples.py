"""A few test clips to listen to in the report, with what each model predicts for them."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import soundfile

from common.audio import SAMPLE_RATE
from common.data import SpokenDigits
from common.run.files import write_atomically
from common.run.process import rank_zero_only


@rank_zero_only
def write_examples(path: Path, data: SpokenDigits, predicted: dict[str, np.ndarray]) -> None:
    """Write some test clips as JSON: file, speaker, digit, each model's prediction, and the sound as a WAV in base64.

    Args:
        predicted: the digits that each model predicts for the test clips, {model: [n]}.

    Raises:
        UserError: the file cannot be written.
    """
    test, waves = data.examples["test"], data.cached.waves
    examples = []
    for i in choose_examples(test.digit.numpy(), np.stack(list(predicted.values()))):
        row, wav = test.rows[i], io.BytesIO()
        soundfile.write(wav, waves[row], SAMPLE_RATE, format="WAV")
        shown = {
            "predicted": {model: int(digits[i]) for model, digits in predicted.items()},
            "wav": base64.b64encode(wav.getvalue()).decode(),
        }
        examples.append(data.cached.clips[row]._asdict() | shown)
    write_atomically(path, json.dumps(examples, indent=1) + "\n")


def choose_examples(digit: np.ndarray, predicted: np.ndarray) -> list[int]:
    """Indices of up to 8 clips of varied digits: half that a model got wrong, then half that all models got right.

    Shapes: ``digit`` [n], ``predicted`` [models, n].
    """
    mistaken = (predicted != digit).any(axis=0)
    shuffled = np.random.default_rng(0).permutation(len(digit))  # the corpus is sorted by speaker
    wrong = list({digit[i]: i for i in shuffled if mistaken[i]}.values())  # one clip of each digit
    right = list({digit[i]: i for i in shuffled if not mistaken[i]}.values())
    wrong = wrong[: max(4, 8 - len(right))]
    return wrong + right[: 8 - len(wrong)]

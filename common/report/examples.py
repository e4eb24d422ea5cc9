"""A few test clips to listen to, with what the models heard in them."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import soundfile
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from common.audio import SAMPLE_RATE
from common.data import SpokenDigits
from common.run.files import write_atomically

EXAMPLES = 8


@rank_zero_only
def write_examples(path: Path, data: SpokenDigits, heard: dict[str, np.ndarray]) -> None:
    """Write some test clips as JSON: who says which digit, what each model heard, and the sound as a WAV in base64.

    Args:
        heard: the digits that each model predicts for the test clips, {model: [n]}.
    """
    test = data.examples["test"]
    examples = []
    for i in choose_examples(test.digit.numpy(), np.stack(list(heard.values())), EXAMPLES):
        clip, wav = data.cached.clips[test.rows[i]], io.BytesIO()
        soundfile.write(wav, data.cached.waves[test.rows[i]], SAMPLE_RATE, format="WAV")
        examples.append(
            {
                "clip": clip.path,
                "speaker": clip.speaker,
                "digit": clip.digit,
                "heard": {model: int(digits[i]) for model, digits in heard.items()},
                "wav": base64.b64encode(wav.getvalue()).decode(),
            }
        )
    write_atomically(path, json.dumps(examples, indent=1) + "\n")


def choose_examples(digit: np.ndarray, heard: np.ndarray, count: int) -> list[int]:
    """Up to ``count`` clips: those that most models got wrong and as many that all got right, of varied digits.

    Args:
        digit: [n] the truth.
        heard: [models, n].
    """
    mistakes = (heard != digit).sum(axis=0)
    wrong = _varied(np.flatnonzero(mistakes), digit, mistakes)
    right = _varied(np.flatnonzero(mistakes == 0), digit, mistakes)
    wrong = wrong[: max(count // 2, count - len(right))]
    return wrong + right[: count - len(wrong)]


def _varied(rows: np.ndarray, digit: np.ndarray, mistakes: np.ndarray) -> list[int]:
    """First one clip of each digit, then a second one of each ..., those with more mistakes before the others."""
    rows = np.random.default_rng(0).permutation(rows)  # else all would be of the first speaker
    turn = {int(row): int((digit[rows[:place]] == digit[row]).sum()) for place, row in enumerate(rows)}
    return sorted(turn, key=lambda row: (-mistakes[row], turn[row], digit[row]))

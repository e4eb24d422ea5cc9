"""A few test clips to listen to in the report, with what each model predicts for them."""

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
def write_examples(path: Path, data: SpokenDigits, predicted: dict[str, np.ndarray]) -> None:
    """Write some test clips as JSON: file, speaker, digit, each model's prediction, and the sound as a WAV in base64.

    Args:
        predicted: the digits that each model predicts for the test clips, {model: [n]}.

    Raises:
        UserError: the file cannot be written.
    """
    test = data.examples["test"]
    examples = []
    for i in choose_examples(test.digit.numpy(), np.stack(list(predicted.values())), EXAMPLES):
        clip, wav = data.cached.clips[test.rows[i]], io.BytesIO()
        soundfile.write(wav, data.cached.waves[test.rows[i]], SAMPLE_RATE, format="WAV")
        examples.append(
            {
                "clip": clip.path,
                "speaker": clip.speaker,
                "digit": clip.digit,
                "predicted": {model: int(digits[i]) for model, digits in predicted.items()},
                "wav": base64.b64encode(wav.getvalue()).decode(),
            }
        )
    write_atomically(path, json.dumps(examples, indent=1) + "\n")


def choose_examples(digit: np.ndarray, predicted: np.ndarray, count: int) -> list[int]:
    """Indices of up to ``count`` clips: half with mistakes, the worst first, and half that all models got right.

    Where there are too few of one kind, there are more of the other.

    Args:
        digit: [n] the true digits.
        predicted: [models, n].
    """
    mistakes = (predicted != digit).sum(axis=0)
    wrong = _varied(np.flatnonzero(mistakes), digit, mistakes)
    right = _varied(np.flatnonzero(mistakes == 0), digit, mistakes)
    wrong = wrong[: max(count // 2, count - len(right))]
    return wrong + right[: count - len(wrong)]


def _varied(indices: np.ndarray, digit: np.ndarray, mistakes: np.ndarray) -> list[int]:
    """Clips with more mistakes first; among equals, one clip of each digit, then a second one of each, and so on."""
    shuffled = np.random.default_rng(0).permutation(indices)  # the corpus is sorted by speaker
    repeats = {int(clip): (digit[shuffled[:i]] == digit[clip]).sum() for i, clip in enumerate(shuffled)}
    return sorted(repeats, key=lambda clip: (-mistakes[clip], repeats[clip], digit[clip]))

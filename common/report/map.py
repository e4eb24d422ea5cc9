"""The map of the report: the test clips as points of task 3's layouts, with their sounds, and recordings among them."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from common.corpus.clips import systematic_sample
from common.run.console import UserError, printable
from common.run.files import read_json, write_atomically
from common.run.process import rank_zero_only

if TYPE_CHECKING:  # the report does without PyTorch, which takes seconds to import, unless there are recordings
    from common.data import SpokenDigits

CLIPS = 1000  # about 4 MB of sounds
SIDE = 1000  # of the map, in its own units
NEIGHBOURS = 3


@rank_zero_only
def write_map(
    path: Path,
    data: "SpokenDigits",
    seed: int,
    embeddings: dict[str, np.ndarray],
    layouts: dict[str, np.ndarray],
    predicted: dict[str, np.ndarray],
) -> None:
    """Write up to 1,000 test clips of all speakers and digits as JSON, with their sounds as MP3 in base64.

    Args:
        embeddings, layouts: {model: [n, D]} and {model: [n, 2]} of all test clips.
        predicted: the digits that each classifier predicts for them, {model: [n]}.

    Raises:
        UserError: the file cannot be written.
    """
    from common.scatter import DIGIT_COLORS

    test = data.examples["test"]
    shown = systematic_sample(test.speaker.numpy(), test.digit.numpy(), min(1.0, CLIPS / len(test)), seed)
    places = {model: _to_map(layout)[shown] for model, layout in layouts.items()}
    clips = []
    for index, i in enumerate(np.flatnonzero(shown)):
        clip = data.cached.clips[test.rows[i]]
        clips.append(
            {"name": printable(clip.path), "speaker": printable(clip.speaker), "digit": clip.digit}
            | {"predicted": {model: int(digits[i]) for model, digits in predicted.items()}}
            | {"places": [place[index].tolist() for place in places.values()]}
            | {"sound": to_mp3(data.cached.waves[test.rows[i]])}
        )
    stored = {model: base64.b64encode(z[shown].astype("<f2").tobytes()).decode() for model, z in embeddings.items()}
    content = {"models": list(layouts), "colours": DIGIT_COLORS, "clips": clips, "embeddings": stored}
    write_atomically(path, json.dumps(content) + "\n")


def _to_map(layout: np.ndarray) -> np.ndarray:
    """Scale a layout to the square of the map: [n, 2] -> [n, 2] whole numbers, y downwards."""
    size = np.ptp(layout, axis=0).max() or 1.0
    centred = (layout - (layout.max(axis=0) + layout.min(axis=0)) / 2) * [1, -1] / size
    return np.round((centred + 0.5) * SIDE).astype(int)


def to_mp3(wave: np.ndarray) -> str:
    """A clip, [samples] int16 at 16 kHz, without the zeros around it, as MP3 of 24 kbit/s in base64: at most 4 kB."""
    from common.audio import SAMPLE_RATE

    sounding, content = np.flatnonzero(wave), io.BytesIO()
    part = wave[sounding[0] : sounding[-1] + 1] if len(sounding) else wave
    soundfile.write(content, part, SAMPLE_RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.9)
    return base64.b64encode(content.getvalue()).decode()


def read_map(path: Path) -> dict[str, Any]:
    """What ``write_map`` wrote; empty if it is missing or of another version."""
    stored = read_json(path, {})
    return stored if isinstance(stored, dict) and {"models", "clips", "embeddings"} <= set(stored) else {}


def place_recordings(stored: dict[str, Any], files: Sequence[Path]) -> list[dict[str, Any]]:
    """Recordings of one spoken digit each as further points of the map ``stored``, by the checkpoints of tasks 1 and 2.

    t-SNE cannot lay out new points. A recording is put between the clips whose embeddings are most like its own.

    Raises:
        UserError: there is no map, a checkpoint is missing, or none of the recordings can be used.
    """
    from common.checkpoints import load
    from common.evaluate import embed, predict_digits
    from common.networks import ContrastiveNetwork, DigitNetwork
    from common.voice.recordings import answer, read_recording

    if not stored:
        raise UserError("--recordings: there is no map to put them on; run task3.py first")
    classifiers = {name: load(f"task1_supervised/{name}_checkpoints/best.ckpt", DigitNetwork) for name in ("1d", "2d")}
    models: dict[str, Any] = {f"supervised_{name}": each.embedder for name, each in classifiers.items()}
    contrastive = load("task2_contrastive/checkpoints/best.ckpt", ContrastiveNetwork).embedder

    def describe(batches: list) -> list[dict]:
        z = {model: embed(each, batches).z[model[-2:]] for model, each in models.items()}
        z |= {f"contrastive_{name}": each for name, each in embed(contrastive, batches).z.items()}
        digits = {name: predict_digits(each, batches).predicted.tolist() for name, each in classifiers.items()}
        places = [_places(stored, index, model, z[model]) for index, model in enumerate(stored["models"])]
        return [
            {"predicted": {name: predicted[i] for name, predicted in digits.items()}}
            | {"places": [place[i].tolist() for place in places]}
            for i in range(len(places[0]))
        ]

    points = [each for each in answer(describe, files) if "places" in each]
    if not points:
        raise UserError("--recordings: none of them can be used")
    return [each | {"name": printable(each["file"]), "sound": to_mp3(read_recording(each["file"]))} for each in points]


def _places(stored: dict[str, Any], index: int, model: str, z: np.ndarray) -> np.ndarray:
    """Where embeddings of a model lie on the map: [n, D] -> [n, 2]."""
    known = np.frombuffer(base64.b64decode(stored["embeddings"][model]), "<f2").astype(np.float64)
    known = known.reshape(len(stored["clips"]), -1)  # [clips, D]
    scale = known.std(axis=0) + 1e-6
    distance = np.linalg.norm((z[:, None] - known) / scale, axis=2)  # [n, clips]
    nearest = distance.argsort(axis=1)[:, :NEIGHBOURS]
    weight = 1 / (np.take_along_axis(distance, nearest, axis=1) + 1e-6)
    places = np.array([clip["places"][index] for clip in stored["clips"]])  # [clips, 2]
    return ((places[nearest] * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)).round()

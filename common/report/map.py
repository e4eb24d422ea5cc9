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
MAP_PARTS = {"models": list, "colours": list, "clips": list, "embeddings": dict, "checkpoints": dict}


@rank_zero_only
def write_map(
    path: Path,
    data: "SpokenDigits",
    seed: int,
    embeddings: dict[str, np.ndarray],
    layouts: dict[str, np.ndarray],
    predicted: dict[str, np.ndarray],
    checkpoints: dict[str, tuple[Path, str]],
) -> None:
    """Write up to 1,000 test clips of all speakers and digits as JSON, with their sounds as MP3 in base64.

    Args:
        embeddings, layouts: {model: [n, D]} and {model: [n, 2]} of all test clips.
        predicted: the digits that each classifier predicts for them, {"1d" or "2d": [n]}.
        checkpoints: {"1d", "2d" or "contrastive": where its weights came from and what they are}, for recordings.

    Raises:
        UserError: the file cannot be written.
    """
    from common.plots.embeddings import DIGIT_COLORS

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
    weights = {name: [str(file.resolve()), digest] for name, (file, digest) in checkpoints.items()}
    content = {"models": list(layouts), "colours": DIGIT_COLORS, "clips": clips}
    write_atomically(path, json.dumps(content | {"embeddings": stored, "checkpoints": weights}) + "\n")


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
    stored, kinds = read_json(path, {}), MAP_PARTS.items()
    fits = isinstance(stored, dict) and all(isinstance(stored.get(key), kind) for key, kind in kinds)
    return stored if fits else {}


def place_recordings(stored: dict[str, Any], files: Sequence[Path]) -> list[dict[str, Any]]:
    """Recordings of one spoken digit each as further points of the map ``stored``, by the models that it was made with.

    t-SNE cannot lay out new points. A recording is put between the clips whose embeddings are most like its own.

    Returns:
        a point for each file; one that cannot be used, which is reported on stderr, has no "places".

    Raises:
        UserError: there is no map, or a model is missing or was trained again since.
    """
    from common.checkpoints import load
    from common.evaluate import embed, predict_digits
    from common.networks import ContrastiveNetwork, DigitNetwork
    from common.run.output import weights_digest
    from common.voice.recordings import answer, read_recording

    if not stored:
        raise UserError("--recordings: there is no map to put them on; run task3.py first")
    sources = stored["checkpoints"]  # {name: [path, digest]}
    classifiers = {name: load(sources[name][0], DigitNetwork, formats=(name,)) for name in ("1d", "2d")}
    contrastive = load(sources["contrastive"][0], ContrastiveNetwork)
    for name, module in (*classifiers.items(), ("contrastive", contrastive)):
        if weights_digest(module) != sources[name][1]:
            raise UserError(f"{sources[name][0]}: trained again since the map was made; run task3.py again")

    def describe(batches: list) -> list[dict]:
        z = {f"supervised_{name}": embed(each.embedder, batches).z[name] for name, each in classifiers.items()}
        z |= {f"contrastive_{name}": each for name, each in embed(contrastive.embedder, batches).z.items()}
        digits = {name: predict_digits(each, batches).predicted.tolist() for name, each in classifiers.items()}
        places = [_places(stored, index, z[model]) for index, model in enumerate(stored["models"])]
        return [
            {"predicted": {name: predicted[i] for name, predicted in digits.items()}}
            | {"places": [place[i].tolist() for place in places]}
            for i in range(len(places[0]))
        ]

    return [
        point | {"name": printable(point["file"]), "sound": to_mp3(read_recording(point["file"]))}
        if "places" in point
        else point
        for point in answer(describe, files)
    ]


def _places(stored: dict[str, Any], index: int, z: np.ndarray) -> np.ndarray:
    """Where embeddings of the model number ``index`` lie on the map: [n, D] -> [n, 2]."""
    content = base64.b64decode(stored["embeddings"][stored["models"][index]])
    known = np.frombuffer(content, "<f2").astype(np.float64)
    known = known.reshape(len(stored["clips"]), -1)  # [clips, D]
    scale = known.std(axis=0) + 1e-6
    distance = np.linalg.norm((z[:, None] - known) / scale, axis=2)  # [n, clips]
    nearest = distance.argsort(axis=1)[:, :NEIGHBOURS]
    weight = 1 / (np.take_along_axis(distance, nearest, axis=1) + 1e-6)
    places = np.array([clip["places"][index] for clip in stored["clips"]])  # [clips, 2]
    return ((places[nearest] * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)).round()

"""The points of the map of the report: test clips with their places and sounds."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile

from common.data import SpokenDigits
from common.plots import embeddings
from common.plots.embeddings import write_map


def test_a_map_holds_clips_of_every_speaker_and_digit_with_their_own_numbers(tmp_path, write_tones, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = SpokenDigits(write_tones(tmp_path / "tones", ["01", "02", "03", "04", "05", "06"]), accelerator="cpu")
    monkeypatch.setattr(embeddings, "MAP_CLIPS", 20)  # half of the test clips
    layouts = {model: np.random.default_rng(0).normal(size=(40, 2)) for model in ("supervised_1d", "contrastive_2d")}
    layouts["contrastive_2d"][:, 0] *= 9
    digit = data.examples["test"].digit.numpy()
    write_map(tmp_path / "map.json", data, 0, layouts, {"1d": digit, "2d": np.roll(digit, 1)})
    stored = json.loads((tmp_path / "map.json").read_text())
    clips = stored["clips"]
    assert set(stored) == {"models", "colours", "clips"} and stored["models"] == list(layouts)
    assert len(stored["colours"]) == 10 and len(clips) == 20 and {clip["speaker"] for clip in clips} == {"03", "06"}
    assert sorted(clip["digit"] for clip in clips) == sorted([*range(10)] * 2)
    row_of = {clip.path: row for row, clip in enumerate(data.cached.clips)}
    rows = [data.examples["test"].rows.tolist().index(row_of[clip["name"]]) for clip in clips]
    for clip, i in zip(clips, rows, strict=True):
        assert clip["digit"] == digit[i] == clip["predicted"]["1d"] and clip["predicted"]["2d"] == digit[i - 1]
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(clip["sound"])))
        # The tones have whole numbers of Hz, 11 apart.
        heard = np.abs(np.fft.rfft(sound, n=rate)).argmax()
        assert rate == 16_000 and 0.3 < len(sound) / rate < 0.5
        assert heard == pytest.approx(150 + 11 * row_of[clip["name"]], abs=5)
    for index, layout in enumerate(layouts.values()):
        places = np.array([clip["places"][index] for clip in clips])
        scale = 1000 / np.ptp(layout, axis=0).max()  # of the larger side, the same for both
        np.testing.assert_allclose(np.diff(places, axis=0), np.diff(layout[rows], axis=0) * [scale, -scale], atol=1)
        assert places.min() >= 0 and places.max() <= 1000

"""The map of the report: test clips with their places and sounds, and recordings among them."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from common.data import SpokenDigits
from common.evaluate import embed
from common.modules import ContrastiveModel, DigitClassifier
from common.report import map as clip_map
from common.report.map import place_recordings, read_map, write_map
from common.run.console import UserError
from common.run.output import weights_digest


@pytest.fixture
def data(tmp_path, write_tones, monkeypatch) -> SpokenDigits:
    monkeypatch.chdir(tmp_path)
    return SpokenDigits(write_tones(tmp_path / "tones", ["01", "02", "03", "04", "05", "06"]), accelerator="cpu")


FOLDERS = {name: f"task1_supervised/{name}_checkpoints" for name in ("1d", "2d")}
FOLDERS["contrastive"] = "task2_contrastive/checkpoints"


def stored_map(data: SpokenDigits, z: dict[str, np.ndarray], clips: int, monkeypatch, **weights: str) -> dict:
    monkeypatch.setattr(clip_map, "CLIPS", clips)
    digit = data.examples["test"].digit.numpy()
    layouts = {model: each[:, :2] for model, each in z.items()}
    paths = {name: (Path(folder, "best.ckpt"), weights.get(name, "")) for name, folder in FOLDERS.items()}
    write_map(Path("map.json"), data, 0, z, layouts, {"1d": digit, "2d": np.roll(digit, 1)}, paths)
    return read_map(Path("map.json"))


def test_a_map_holds_clips_of_every_speaker_and_digit_with_their_own_numbers(data, monkeypatch):
    rng = np.random.default_rng(0)
    z = {"supervised_1d": rng.normal(size=(40, 8)), "contrastive_2d": rng.normal(size=(40, 8))}
    stored = stored_map(data, z, 20, monkeypatch)
    clips = stored["clips"]
    assert len(clips) == 20 and {clip["speaker"] for clip in clips} == {"03", "06"}
    assert sorted(clip["digit"] for clip in clips) == sorted([*range(10)] * 2)
    paths = [clip.path for clip in data.cached.clips]
    embedded = np.frombuffer(base64.b64decode(stored["embeddings"]["contrastive_2d"]), "<f2").reshape(20, 8)
    for clip, own in zip(clips, embedded, strict=True):
        row = paths.index(clip["name"])
        i = data.examples["test"].rows.tolist().index(row)
        assert clip["digit"] == data.cached.clips[row].digit == clip["predicted"]["1d"]
        assert clip["predicted"]["2d"] == data.examples["test"].digit[i - 1]
        np.testing.assert_allclose(own, z["contrastive_2d"][i], rtol=2e-3, atol=1e-3)
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(clip["sound"])))
        assert rate == 16_000 and 0.3 < len(sound) / rate < 1.4 and np.abs(sound).max() > 0.1
        assert all(0 <= x <= 1000 for place in clip["places"] for x in place)
    x = [clip["places"][0][0] for clip in clips]
    rows = [data.examples["test"].rows.tolist().index(paths.index(clip["name"])) for clip in clips]
    assert np.corrcoef(x, z["supervised_1d"][rows, 0])[0, 1] > 0.999


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"clips": []}', '{"models": 1, "colours": 2, "clips": 3}'])
def test_a_map_that_is_missing_or_broken_is_none(tmp_path, content):
    (tmp_path / "map.json").write_text(content)
    assert read_map(tmp_path / "map.json") == read_map(tmp_path / "nothing.json") == {}


def test_a_recording_lies_where_its_own_clip_does(data, tmp_path, monkeypatch):
    torch.manual_seed(0)
    networks = {"1d": DigitClassifier(("1d",)), "2d": DigitClassifier(("2d",)), "contrastive": ContrastiveModel()}
    for name, module in networks.items():
        path = Path(FOLDERS[name], "best.ckpt")
        path.parent.mkdir(parents=True)
        parts = {"class": type(module).__name__, "hyper_parameters": dict(module.hparams)}
        torch.save(parts | {"state_dict": module.state_dict(), "run": {}}, path)
    with pytest.raises(UserError, match=r"run task3\.py first"):
        place_recordings({}, [Path("a.wav")])
    z = {f"supervised_{name}": embed(networks[name].embedder, data.loader("test")).z[name] for name in ("1d", "2d")}
    z |= {
        f"contrastive_{name}": embed(networks["contrastive"].embedder, data.loader("test")).z[name]
        for name in ("1d", "2d")
    }
    weights = {name: weights_digest(each) for name, each in networks.items()}
    stored = stored_map(data, z, 1000, monkeypatch, **weights)
    clip = stored["clips"][7]
    missing, broken = tmp_path / "missing.wav", tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    unusable, placed, damaged = place_recordings(stored, [missing, tmp_path / "tones" / clip["name"], broken])
    assert unusable["error"] and damaged["error"] and "places" not in unusable | damaged
    assert "digit" not in placed and placed["name"].endswith(clip["name"]) and placed["sound"] == clip["sound"]
    assert set(placed["predicted"]) == {"1d", "2d"}
    # Embeddings are stored with 11 bits, and close clips pull a little.
    np.testing.assert_allclose(placed["places"], clip["places"], atol=60)
    stored["checkpoints"]["2d"][1] = "of other weights"
    with pytest.raises(UserError, match=r"2d_checkpoints.best.ckpt: trained again since"):
        place_recordings(stored, [missing])

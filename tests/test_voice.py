"""python -m common.voice: which digit is said in any recording, and what is wrong with the others."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import tone

from common.corpus.cache import read_clip, standardise
from common.encoders import DigitNetwork


@pytest.fixture
def model(tmp_path, monkeypatch) -> DigitNetwork:
    """A classifier that differs from recording to recording, also in best.ckpt in the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    network = DigitNetwork(("1d", "2d")).eval()
    for value in network.head[0].buffers():  # an untrained model has other statistics
        value.add_(1)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "temperature": 0.5}, "best.ckpt")
    return network


def reference(model: DigitNetwork, file: str) -> str:
    """The answer for one file, by itself and step by step."""
    wave = torch.from_numpy(standardise(*read_clip(Path(file))))[None]
    with torch.no_grad():
        logits = model.head(torch.cat(list(model.embedder(wave).values()), dim=1))[0].double().numpy()
    odds = np.exp(logits / 0.5)
    return f"{odds.argmax()}  {odds.max() / odds.sum():.3f}  {file}\n"


def test_digit_and_confidence_are_those_of_the_model_for_any_sound_file(model, run_here, capsys):
    soundfile.write("a.wav", tone(300), 16_000)
    soundfile.write("b.flac", tone(500, 1.0, 44_100), 44_100)
    soundfile.write("c.ogg", np.stack([tone(700, 2.5, 48_000)] * 2, axis=1), 48_000)
    soundfile.write("d.mp3", tone(900, 0.8, 22_050), 22_050)
    files = ["a.wav", "b.flac", "c.ogg", "d.mp3"]
    expected = [reference(model, file) for file in files]
    assert len({line[:8] for line in expected}) > 2, "the files can be told apart"
    run_here("common/voice.py", "best.ckpt", *files)
    assert capsys.readouterr() == ("".join(expected), "")


def test_files_that_cannot_be_used_are_reported_and_the_others_predicted(model, run_here, capsys):
    soundfile.write("a.wav", tone(300), 16_000)
    soundfile.write("silent.wav", np.zeros(8000), 16_000)
    with pytest.raises(SystemExit) as caught:
        run_here("common/voice.py", "best.ckpt", "silent.wav", "a.wav", "nowhere.wav")
    out, err = capsys.readouterr()
    assert caught.value.code == 1 and out == reference(model, "a.wav")
    assert [line.split(":")[0] for line in err.splitlines()] == ["silent.wav", "nowhere.wav"] and "it is silent" in err

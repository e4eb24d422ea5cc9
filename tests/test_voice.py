"""python -m common.voice: which digit is said in any recording, and what is wrong with the others."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from common.modules import ContrastiveModel, DigitClassifier
from conftest import tone

from common.corpus.cache import read_clip, standardise


def save(model: torch.nn.Module) -> None:
    """Write best.ckpt as the training does."""
    parts = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}
    torch.save({"class": type(model).__name__, "run": {"corpus": "tones", "train_speakers": []}} | parts, "best.ckpt")


@pytest.fixture
def predict(run_here, capsys):
    """A function that runs the command: exit code or error, output, messages."""

    def run(*words: str) -> tuple[object, str, str]:
        code = 0
        try:
            run_here("common/voice.py", *words)
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def voices(tmp_path, monkeypatch) -> list[str]:
    """Recordings of every kind."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", tone(300), 16_000)
    soundfile.write("b.flac", tone(500, 1.0, 44_100), 44_100)
    soundfile.write("c.ogg", np.stack([tone(700, 2.5, 48_000)] * 2, axis=1), 48_000)
    soundfile.write("d.mp3", tone(900, 0.8, 22_050), 22_050)
    soundfile.write("e.WAV", tone(1100, 0.05, 8_000), 8_000, format="WAV")
    return ["a.wav", "b.flac", "c.ogg", "d.mp3", "e.WAV"]


def reference(model: DigitClassifier, file: str) -> np.ndarray:
    """Probabilities of one file, by itself and step by step."""
    wave = torch.from_numpy(standardise(*read_clip(Path(file))))[None]
    with torch.no_grad():
        logits = model.head(torch.cat(list(model.embedder(wave).values()), dim=1))[0].double().numpy()
    return np.exp(logits) / np.exp(logits).sum()


def test_digit_and_confidence_are_those_of_the_model_for_any_sound_file(voices, predict):
    torch.manual_seed(3)
    model = DigitClassifier(("1d", "2d")).eval()
    for value in model.head[0].buffers():  # an untrained model has other statistics
        value.add_(1)
    save(model)
    expected = [reference(model, file) for file in voices]
    assert len({f"{p.argmax()} {p.max():.3f}" for p in expected}) > 3, "the files can be told apart"
    lines = [f"{p.argmax()}  {p.max():.3f}  {file}\n" for p, file in zip(expected, voices, strict=True)]
    assert predict("best.ckpt", *voices) == (0, "".join(lines), "")


def test_files_that_cannot_be_used_are_reported_and_the_others_predicted(voices, predict):
    save(DigitClassifier(("2d",)))
    soundfile.write("silent.wav", np.zeros(8000), 16_000)
    os.mkfifo("pipe.wav")
    faults = {
        "silent.wav": "it is silent",
        "pipe.wav": "it is not a file",
        "nowhere.wav": "it cannot be opened (No such file or directory)",
    }
    files = ["a.wav", *faults, "b.flac"]
    code, out, err = predict("best.ckpt", *files)
    assert code == 1 and [line.split()[-1] for line in out.splitlines()] == ["a.wav", "b.flac"]
    assert err.splitlines() == [f"{file}: {fault}" for file, fault in faults.items()]
    code, out, _ = predict("best.ckpt", "--json", *files)
    first, *unusable, last = json.loads(out)
    assert code == 1 and unusable == [{"file": file, "error": fault} for file, fault in faults.items()]
    assert first["file"] == "a.wav" and last["confidence"] == max(last["probabilities"]) and last["digit"] in range(10)


def test_a_checkpoint_without_a_classifier_is_refused_in_one_line(voices, predict):
    save(ContrastiveModel())
    code, out, _ = predict("best.ckpt", *voices)
    assert out == "" and "error: best.ckpt: not a checkpoint of a DigitClassifier" in code and "\n" not in code

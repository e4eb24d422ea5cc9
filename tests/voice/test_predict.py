"""python -m common.voice.predict: which digit is said in any recording, and what is wrong with the others."""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import tone

from common import DigitClassifier
from common.corpus.decode import read_clip, standardise
from common.modules import ContrastiveModel


def save(model: torch.nn.Module) -> None:
    """Write best.ckpt as the training does."""
    parts = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}
    run = {"corpus": "tones", "train_speakers": []}
    torch.save({"class": type(model).__name__, "run": run} | parts, "best.ckpt")


def run_command(run_here, capsys, name: str, *words: str) -> tuple[object, str, str]:
    """The exit code or error, the output and the messages of ``python -m common.voice.name``."""
    code = 0
    try:
        run_here(f"common/voice/{name}.py", *words)
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def predict(run_here, capsys):
    return functools.partial(run_command, run_here, capsys, "predict")


def classifier(*formats: str, frozen: bool = False) -> DigitClassifier:
    torch.manual_seed(3)
    model = DigitClassifier(formats, frozen=frozen)
    for value in model.head[0].buffers():  # an untrained model has other statistics
        value.add_(1)
    return model.eval()


@pytest.fixture
def voices(tmp_path, monkeypatch) -> list[str]:
    """Recordings of every kind, and best.ckpt of a 2D classifier."""
    monkeypatch.chdir(tmp_path)
    save(classifier("2d"))
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


@pytest.mark.parametrize("formats, frozen", [(["1d"], False), (["2d"], True), (["1d", "2d"], False)])
def test_digit_and_confidence_are_those_of_the_model_for_any_sound_file(voices, predict, formats, frozen):
    model = classifier(*formats, frozen=frozen)
    save(model)
    expected = [reference(model, file) for file in voices]
    assert len({f"{p.argmax()} {p.max():.3f}" for p in expected}) > 3, "the files can be told apart"
    lines = [f"{p.argmax()}  {p.max():.3f}  {file}\n" for p, file in zip(expected, voices, strict=True)]
    assert predict("best.ckpt", *voices) == (0, "".join(lines), "")
    code, out, err = predict("best.ckpt", "--json", *voices)
    results = json.loads(out)
    assert (code, err) == (0, "") and [result["file"] for result in results] == voices
    for result, p in zip(results, expected, strict=True):
        assert result["digit"] == p.argmax() and result["confidence"] == max(result["probabilities"])
        assert np.allclose(result["probabilities"], p, atol=1e-5)


def test_files_that_cannot_be_used_are_reported_and_the_others_predicted(voices, predict):
    soundfile.write("silent.wav", np.zeros(8000), 16_000)
    soundfile.write("empty.wav", np.zeros(0), 16_000)
    soundfile.write("long.wav", tone(300, 31), 16_000)
    Path("text.wav").write_text("no sound")
    os.mkfifo("pipe.wav")
    faults = {
        "silent.wav": "it is silent",
        "empty.wav": "it holds no samples",
        "long.wav": "it is longer than 30 s, too long for one spoken digit",
        "text.wav": "it cannot be read as sound (Format not recognised.)",
        "pipe.wav": "it is not a file",
        "nowhere.wav": "it cannot be opened (No such file or directory)",
    }
    files = ["a.wav", *faults, "b.flac"]
    code, out, err = predict("best.ckpt", *files)
    assert code == 1 and [line.split()[-1] for line in out.splitlines()] == ["a.wav", "b.flac"]
    assert err.splitlines() == [f"{file}: {fault}" for file, fault in faults.items()]
    code, out, _ = predict("best.ckpt", "--json", *files)
    results = {result["file"]: result for result in json.loads(out)}
    assert code == 1 and list(results) == files
    assert {file: result["error"] for file, result in results.items() if "digit" not in result} == faults


def test_a_checkpoint_without_a_classifier_is_refused_in_one_line(voices, predict):
    save(ContrastiveModel())
    code, out, _ = predict("best.ckpt", *voices)
    assert out == "" and "error: best.ckpt: not a checkpoint of a DigitClassifier" in code and "\n" not in code


@pytest.mark.parametrize(
    "command, words",
    [
        ("predict", ["best.ckpt"]),
        ("identify", ["--enrol", "people"]),
        ("identify", ["--enrol", "people", "--threshold", "2", "a.wav"]),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(run_here, capsys, command, words):
    code, out, err = run_command(run_here, capsys, command, *words)
    assert code == 2 and out == "" and err.count("\n") == 1

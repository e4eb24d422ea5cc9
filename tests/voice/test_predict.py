"""python -m common.voice.predict: which digit is said in anybody's recordings, and what is wrong with the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import tone

from common.corpus.cache import read_clip, standardise
from common.modules import ContrastiveModel, DigitClassifier

NAMES = {
    "supervised 1d": ("1d",),
    "supervised 2d": ("2d",),
    "frozen 2d": ("2d",),
    "finetuned 1d": ("1d",),
    "frozen concat": ("1d", "2d"),
    "finetuned concat": ("1d", "2d"),
}


def stored(name: str, model: torch.nn.Module, **more: object) -> dict:
    """What common.training leaves of a model."""
    run = {"corpus": "tones", "train_speakers": ["01"]}
    parts = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}
    return {"model": name, "run": run} | parts | more


def classifier(name: str) -> DigitClassifier:
    torch.manual_seed(3)
    model = DigitClassifier(NAMES[name], frozen=name.startswith("frozen"))
    for value in model.head[0].buffers():  # statistics that no untrained model has
        value.add_(1)
    return model.eval()


@pytest.fixture
def voices(tmp_path, monkeypatch):
    """Recordings of every kind, all of the tone whose digit is known by the reference below."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", tone(300), 16_000)
    soundfile.write("b.flac", tone(500, 1.0, 44_100), 44_100)
    soundfile.write("c.ogg", np.stack([tone(700, 2.5, 48_000)] * 2, axis=1), 48_000)
    soundfile.write("d.mp3", tone(900, 0.8, 22_050), 22_050)
    soundfile.write("e.WAV", tone(1100, 0.05, 8_000), 8_000, format="WAV")
    return ["a.wav", "b.flac", "c.ogg", "d.mp3", "e.WAV"]


@pytest.fixture
def predict(run_here, capsys):
    """A function that runs the command and gives its exit code, output and errors."""

    def run_it(*words: str) -> tuple[object, str, str]:
        code = 0
        try:
            run_here("common/voice/predict.py", *words)
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


def reference(model: DigitClassifier, file: Path) -> np.ndarray:
    """Probabilities of one file, by itself and step by step."""
    wave = torch.from_numpy(standardise(*read_clip(file)))[None]
    with torch.no_grad():
        logits = model.head(torch.cat(list(model.embedder(wave).values()), dim=1))[0].double().numpy()
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


@pytest.mark.parametrize("name", NAMES)
def test_digit_and_confidence_are_the_models_for_any_sound_file(voices, predict, name, monkeypatch):
    monkeypatch.setattr("common.voice.recordings.BATCH", 2)  # so that batches are put together again
    model = classifier(name)
    torch.save(stored(name, model), "best.ckpt")
    expected = [reference(model, Path(file)) for file in voices]
    assert len({int(p.argmax()) for p in expected} | {round(float(p.max()), 3) for p in expected}) > 3
    code, out, err = predict("best.ckpt", *voices)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{p.argmax()}  {p.max():.3f}  {file}" for p, file in zip(expected, voices, strict=True)
    ]
    code, out, err = predict("best.ckpt", "--json", *voices)
    answers = json.loads(out)
    assert (code, err) == (0, "") and [answer["file"] for answer in answers] == voices
    for answer, p in zip(answers, expected, strict=True):
        assert answer["digit"] == p.argmax() and answer["confidence"] == max(answer["probabilities"])
        assert np.allclose(answer["probabilities"], p, atol=1e-5)


def test_files_that_cannot_be_used_are_named_and_the_others_answered(voices, predict):
    torch.save(stored("supervised 2d", classifier("supervised 2d")), "best.ckpt")
    soundfile.write("silent.wav", np.zeros(8000), 16_000)
    soundfile.write("empty.wav", np.zeros(0), 16_000)
    soundfile.write("long.wav", tone(300, 31), 16_000)
    Path("text.wav").write_text("no sound")
    os.mkfifo("pipe.wav")
    Path("folder.wav").mkdir()
    faults = {
        "silent.wav": "silent",
        "empty.wav": "no samples",
        "long.wav": "too long",
        "text.wav": "cannot be read as sound",
        "pipe.wav": "not a file",
        "folder.wav": "not a file",
        "nowhere.wav": "no such file",
        "a.wav/nowhere.wav": "cannot be opened",
        "": "not a file",
    }
    files = ["a.wav", *faults, "b.flac"]
    code, out, err = predict("best.ckpt", *files)
    assert code == 1 and [line.split()[-1] for line in out.splitlines()] == ["a.wav", "b.flac"]
    assert len(err.splitlines()) == len(faults)
    for (file, fault), line in zip(faults.items(), err.splitlines(), strict=True):
        assert line.startswith(f"{file or '.'}: ") and fault in line, line
    code, out, _ = predict("best.ckpt", "--json", *files)
    answers = json.loads(out)
    assert code == 1 and [("error" in a, "digit" in a) for a in answers] == [
        (f in faults, f not in faults) for f in files
    ]


def test_where_no_file_can_be_used_nothing_is_answered(voices, predict):
    torch.save(stored("supervised 2d", classifier("supervised 2d")), "best.ckpt")
    assert predict("best.ckpt", "nowhere.wav") == (1, "", "nowhere.wav: there is no such file\n")


def test_names_that_are_no_line_of_text_are_shown_as_one(voices, predict):
    torch.save(stored("supervised 2d", classifier("supervised 2d")), "best.ckpt")
    Path("a.wav").rename("a\n\x1b[31m\udcff.wav")
    code, out, _ = predict("best.ckpt", "a\n\x1b[31m\udcff.wav", "b.flac")
    assert code == 0 and out.count("\n") == 2 and "\x1b" not in out
    code, out, _ = predict("best.ckpt", "--json", "a\n\x1b[31m\udcff.wav")
    assert json.loads(out)[0]["file"] == "a\n\x1b[31m\udcff.wav"


@pytest.mark.parametrize("content", ["contrastive", "missing", "text", "not finite", "strange"])
def test_other_checkpoints_are_refused_in_one_line(voices, predict, content):
    model = classifier("supervised 2d")
    if content == "contrastive":
        torch.save(stored("contrastive", ContrastiveModel()), "best.ckpt")
    elif content == "text":
        Path("best.ckpt").write_text("no checkpoint")
    elif content == "not finite":
        model.head[1].weight.data[0, 0] = float("nan")
        torch.save(stored("supervised 2d", model), "best.ckpt")
    elif content == "strange":
        torch.save(stored("supervised 2d", model, hyper_parameters={"formats": ["3d"]}), "best.ckpt")
    code, out, _ = predict("best.ckpt", *voices)
    assert out == "" and isinstance(code, str) and "error: CHECKPOINT: " in code and "\n" not in code
    assert "task1.py" in code and "best.ckpt" in code


def test_wrong_arguments_end_with_code_2(predict, tmp_path):
    for words in ([], ["best.ckpt"], ["best.ckpt", "a.wav", "--fast"]):
        code, out, err = predict(*words)
        assert code == 2 and out == "" and err.count("\n") == 1


def test_help_has_an_example_and_says_what_confidence_is(predict):
    code, out, _ = predict("--help")
    assert code == 0 and "python -m common.voice.predict" in out and "label smoothing" in out and "softmax" in out


def test_it_runs_as_a_module(repository, voices, tmp_path):
    torch.save(stored("supervised 2d", classifier("supervised 2d")), "best.ckpt")
    command = [sys.executable, "-m", "common.voice.predict", "best.ckpt", "a.wav", "nowhere.wav"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(repository)}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout.endswith("  a.wav\n")
    assert done.stderr == "nowhere.wav: there is no such file\n"

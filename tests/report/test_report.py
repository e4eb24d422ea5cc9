"""The report of the five tasks: the table on the terminal, the page, and the clips to listen to."""

import base64
import html
import json
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common.corpus.clips import SYNTHETIC_NAME
from common.data import SpokenDigits
from common.report.examples import choose_examples, write_examples
from common.report.texts import TASKS
from common.run.files import PICTURE_MARK

FOLDERS = [Path(name) for name in TASKS]
PICTURE = b"\x89PNG" + PICTURE_MARK
SCORES = {"test_acc": 0.8, "test_acc_ci95": [0.67, 0.888], "test_clips": 1250, "new_key": 3, "eer": None}
RUN = {"corpus": "AudioMNIST", "clips": {"train": 80, "test": 50}, "speakers": 6, "seed": 42, "seconds": 6.4}
RUN |= {"arguments": {"lr": 1}, "parameters": {"1d": 9, "2d": 8}, "versions": {"x": 3}, "skipped": 7, "ignored": 0}
EXAMPLE = {"path": "07/7_07_0.wav", "speaker": "07", "digit": 7, "predicted": {"1d": 7, "2d": 1}, "wav": "UklGRg=="}


@pytest.fixture
def report(tmp_path, monkeypatch, capsys):
    """A function that runs ``python -m common.report`` on five finished tasks: table, page, and the page's text."""
    monkeypatch.chdir(tmp_path)
    for folder in FOLDERS:
        folder.mkdir()
        (folder / "overview.png").write_bytes(PICTURE)
        (folder / "metrics.txt").touch()
        write_metrics(folder, {"1d": SCORES, "untrained_2d": SCORES, "run": RUN})
    (FOLDERS[2] / "metrics.json").unlink()
    (FOLDERS[0] / "examples.json").write_text(json.dumps([EXAMPLE]))

    def run(*arguments: str) -> tuple[str, str, str]:
        monkeypatch.setattr(sys, "argv", ["common.report", *arguments])
        runpy.run_module("common.report", run_name="__main__")
        page = Path("report.html").read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"<style>.*</style>|<[^>]+>", " ", page, flags=re.DOTALL))
        return capsys.readouterr().out, page, " ".join(text.split())

    return run


def write_metrics(folder: Path, metrics: dict) -> None:
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_the_table_has_a_row_per_model_and_the_given_or_recorded_seconds(report):
    lines = report("11", "12", "13")[0].splitlines()
    assert lines[0] == "Measured on AudioMNIST" and lines[-1].endswith("report.html")
    rows, score = [line.split() for line in lines[3:-2]], ["0.8000", "[0.670,", "0.888]", "n=1250"]
    assert rows[:2] == [["task1", "1D", *score, "11"], ["untrained", "2D", *score]]
    assert rows[4] == ["task3", "pictures", "only", "13"] and rows[-2] == ["task5", "1D", *score, "6.4"]


def test_the_page_is_well_formed_and_holds_all_numbers_pictures_and_sounds(report):
    page, text = report()[1:]
    assert text.count("0.8000 [0.670, 0.888] n=1250") == 16 and "new_key 3 3" in text and "Skipped clips: 7." in text
    assert "Encoder parameters: 1D 9, 2D 8." in text and "Settings: lr 1. Versions: x 3." in text
    assert "1D predicts 7" in text and re.findall(r'class="wrong">([^<]*)<', page) == ["2D predicts 1"]
    picture = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    sources = Counter(re.findall(r'src="([^"]*)"', page))
    assert sources == {picture: 5, "data:audio/wav;base64,UklGRg==": 1} and "://" not in page
    opened, closed = Counter(re.findall(r"<(\w+)", page)), Counter(re.findall(r"</(\w+)", page))
    assert set(opened - closed) == {"meta", "img"} and not closed - opened
    assert len(re.findall(r'<img [^>]*alt="[^"]+"', page)) == 5 and "<audio controls aria-label=" in page
    assert opened["table"] == opened["caption"] == 5 and opened["th"] == page.count("<th scope=")


def test_names_are_shown_as_they_are_without_control_characters(report):
    name, shown = "<b>&\"'{{ 7 * 7 }}\x1b[31m\x07\n\u202e\udcff", "<b>&\"'{{ 7 * 7 }}?[31m? ??"
    write_metrics(FOLDERS[0], {"1d": SCORES, "run": RUN | {"corpus": name, "arguments": {"data_dir": name}}})
    (FOLDERS[0] / "examples.json").write_text(json.dumps([EXAMPLE | {"path": name, "speaker": name}]))
    table, page, text = report()
    assert shown in table and text.count(shown) == 5 and "<b>" not in page
    assert all(c.isprintable() or c == "\n" for c in table + page)


@pytest.mark.parametrize(
    "metrics, shown",
    [
        ([], "task1 pictures only"),
        ({"1d": 0.5}, "task1 pictures only"),
        ({"1d": {"test_acc": 0.5}}, "task1 1D 0.5000"),
        ({"1d": {"test_acc": 0.5, "test_acc_ci95": [0.4, 0.6]}, "run": {}}, "task1 1D 0.5000 [0.400, 0.600]"),
    ],
)
def test_metrics_of_another_version_are_shown_as_far_as_they_go(report, metrics, shown):
    write_metrics(FOLDERS[0], metrics)
    table, _, text = report()
    assert shown in " ".join(table.split()) and shown in text
    assert ("an unknown corpus" in table) == (" 0.5" in shown)


def test_synthetic_speech_and_different_corpora_are_announced(report):
    assert 'class="notice"' not in report()[1]
    write_metrics(FOLDERS[0], {"1d": SCORES, "run": RUN | {"corpus": SYNTHETIC_NAME}})
    table, _, text = report()
    assert SYNTHETIC_NAME in table and "not AudioMNIST numbers" in text and "different corpora" in text


def test_an_unfinished_task_is_named_with_its_command(report):
    for name in ("metrics.json", "metrics.txt", "examples.json"):
        (FOLDERS[0] / name).unlink()
    (FOLDERS[2] / "metrics.txt").unlink()
    table, page, text = report()
    assert table.count("no results") == text.count("No results") == 2 and page.count("<img") == 3
    assert "python task1.py --resume" in text and "python task3.py --resume" in text


def test_numbers_that_the_metrics_of_another_version_lack_are_left_out(report):
    write_metrics(FOLDERS[0], {"1d": {"val_acc": 0.3}, "run": {"corpus": "AudioMNIST"}})
    table, _, text = report()
    assert "task1  1D" in table and "No results" not in text and "val_acc 0.3000" in text


def test_a_folder_without_outputs_and_a_page_that_cannot_be_written(report, monkeypatch):
    Path("empty/report.html").mkdir(parents=True)
    monkeypatch.chdir("empty")
    with pytest.raises(SystemExit, match=r"error: report\.html: cannot be written"):
        report()
    Path("report.html").rmdir()
    table, _, text = report()
    assert table.startswith("Measured on nothing\n") and text.count("No results") == 5


def test_examples_hold_the_clips_and_the_predictions(tmp_path, write_tones, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = SpokenDigits(write_tones(tmp_path / "tones", ["01", "02", "03"]), accelerator="cpu")
    digit = data.examples["test"].digit.numpy()
    write_examples(tmp_path / "examples.json", data, {"1d": digit, "2d": np.roll(digit, 2)})
    examples = json.loads((tmp_path / "examples.json").read_text())
    for example in examples:
        row = [clip.path for clip in data.cached.clips].index(example["path"])
        assert example["digit"] == data.cached.clips[row].digit == example["predicted"]["1d"]
        assert example["speaker"] == "03" and example["predicted"]["2d"] == (example["digit"] - 1) % 10
        assert base64.b64decode(example["wav"])[44:] == data.cached.waves[row].tobytes()
    assert len(examples) == 8


@pytest.mark.parametrize("mistaken, expected", [(0, 0), (1, 1), (4, 4), (7, 5), (10, 8)])
def test_half_of_the_examples_are_mistakes_where_there_are_as_many(mistaken, expected):
    digit = np.repeat(np.arange(10), 3)
    wrong = digit < mistaken
    chosen = choose_examples(digit, np.stack([digit, np.where(wrong, -1, digit)]))
    assert wrong[chosen].tolist() == [True] * expected + [False] * (8 - expected)
    assert len(set(digit[chosen])) == 8, "no digit comes twice"

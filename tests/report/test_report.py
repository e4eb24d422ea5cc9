"""The report of the five tasks: the table on the terminal, the page, and the clips to listen to."""

import base64
import html
import json
import math
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest

from common.corpus.clips import SYNTHETIC_NAME
from common.report.texts import TASKS
from common.run.files import PICTURE_MARK

FOLDERS = [Path(name) for name in TASKS]
PICTURE = b"\x89PNG" + PICTURE_MARK
SCORES = {"test_acc": 0.8, "test_acc_ci95": [0.67, 0.888], "test_clips": 1250, "new_key": 3, "eer": None}
RUN = {"corpus": "AudioMNIST", "clips": {"train": 80, "test": 50}, "speakers": 6, "seed": 42, "seconds": 6.4}
RUN |= {"arguments": {"lr": 1}, "parameters": {"1d": 9, "2d": 8}, "versions": {"x": 3}, "skipped": 7, "ignored": 0}
CLIP = {"name": "07/7_07_0.wav", "speaker": "07", "digit": 7, "predicted": {"1d": 7, "2d": 1}, "places": [[0, 9]]}
MAP = {
    "models": ["contrastive_2d"],
    "colours": ["red"],
    "clips": [CLIP | {"sound": "//uQ"}],
    "embeddings": {"a": "secret"},
    "checkpoints": {},
}


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
    (FOLDERS[2] / "map.json").write_text(json.dumps(MAP))

    def run(*arguments: str) -> tuple[str, str, str]:
        monkeypatch.setattr(sys, "argv", ["common.report", *arguments])
        runpy.run_module("common.report", run_name="__main__")
        page = Path("report.html").read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"<(style|script)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))
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
    stored = json.loads(re.search(r'id="clips">(.*?)</script>', page)[1])
    assert stored["clips"] == MAP["clips"] and "secret" not in page
    picture = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    sources = Counter(re.findall(r'src="([^"]*)"', page))
    assert sources == {picture: 5} and not re.search("(src|href)=.?https?:", page)
    elements = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    opened, closed = Counter(re.findall(r"<(\w+)", elements)), Counter(re.findall(r"</(\w+)", elements))
    assert set(opened - closed) == {"meta", "img", "input"} and not closed - opened
    assert len(re.findall(r'<img [^>]*alt="[^"]+"', page)) == 5
    assert opened["table"] == opened["caption"] == 5 and opened["th"] == page.count("<th scope=")


def test_names_are_shown_as_they_are_without_control_characters(report):
    name, shown = "<b>&\"'{{ 7 * 7 }}\x1b[31m\x07\n\u202e\udcff", "<b>&\"'{{ 7 * 7 }}?[31m? ??"
    write_metrics(FOLDERS[0], {"1d": SCORES, "run": RUN | {"corpus": name, "arguments": {"data_dir": name}}})
    table, page, text = report()
    assert shown in table and text.count(shown) == 3 and "<b>" not in page
    assert all(c.isprintable() or c == "\n" for c in table + page)


@pytest.mark.parametrize(
    "metrics, shown",
    [
        ([], "task1 pictures only"),
        ({"1d": 0.5}, "task1 pictures only"),
        ({"1d": {"test_acc": 0.5, "test_acc_ci95": [math.nan, 1], "val_acc_ci95": [None, 1]}}, "task1 1D 0.5000"),
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
    for name in ("metrics.json", "metrics.txt"):
        (FOLDERS[0] / name).unlink()
    (FOLDERS[2] / "metrics.txt").unlink()
    table, page, text = report()
    assert table.count("no results") == text.count("No results") == 2 and page.count("<img") == 3
    assert "python task1.py --resume" in text and "python task3.py --resume" in text


def test_a_folder_without_outputs_and_a_page_that_cannot_be_written(report, monkeypatch):
    Path("report.html").mkdir()
    with pytest.raises(SystemExit, match=r"error: report\.html: cannot be written"):
        report()
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    with pytest.raises(SystemExit, match=r"no task has finished in .*empty; run run_all.sh there"):
        report()
    assert not Path("report.html").exists()


def test_the_picture_of_all_results_shows_controls_in_grey_beside_the_models(report):
    write_metrics(FOLDERS[0], {"1d": SCORES | {"test_acc_ci95": [0.55, 0.9]}, "supervised": SCORES, "run": RUN})
    page = report()[1]
    # The scale begins at 0.5, the lowest interval rounded down to a tenth.
    assert '<span class="interval trained" style="left: 10.0%; right: 20.0%">' in page
    assert '<span class="value control" style="left: 60.0%">' in page and "<span>0.75</span>" in page
    assert page.index("All results") < page.index("<details>") < page.index("<table>")

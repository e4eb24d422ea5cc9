"""The report of the five tasks: the table on the terminal, the page, and the clips to listen to."""

import base64
import html
import json
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

from common.corpus import SYNTHETIC_NAME
from common.report import TASKS

FOLDERS = [Path(name) for name in TASKS]
PICTURE = b"\x89PNG"
SCORES = {"test_acc": 0.8, "test_acc_ci95": [0.67, 0.888], "test_clips": 1250, "new_key": 3, "eer": None}
RUN = {"corpus": "AudioMNIST", "clips": {"train": 80, "test": 50}, "speakers": 6, "seed": 42, "seconds": 6.4}
RUN |= {"arguments": {"lr": 1}, "parameters": {"1d": 9, "2d": 8}, "versions": {"x": 3}, "skipped": 7, "ignored": 0}
CLIP = {"name": "07/7_07_0.wav", "speaker": "07", "digit": 7, "predicted": {"1d": 7, "2d": 1}, "places": [[0, 9]]}
MAP = {"models": ["contrastive_2d"], "colours": ["red"], "clips": [CLIP | {"sound": "//uQ"}]}


@pytest.fixture
def report(tmp_path, monkeypatch, capsys):
    """A function that runs ``python -m common.report`` on five finished tasks: table, page, and the page's text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["common.report"])
    for folder in FOLDERS:
        folder.mkdir()
        (folder / "overview.png").write_bytes(PICTURE)
        (folder / "metrics.txt").touch()
        write_metrics(folder, {"1d": SCORES, "untrained_2d": SCORES, "run": RUN})
    (FOLDERS[2] / "metrics.json").unlink()
    (FOLDERS[2] / "map.json").write_text(json.dumps(MAP))

    def run() -> tuple[str, str, str]:
        runpy.run_module("common.report", run_name="__main__")
        page = Path("report.html").read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"<(style|script)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))
        return capsys.readouterr().out, page, " ".join(text.split())

    return run


def write_metrics(folder: Path, metrics: dict) -> None:
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_the_table_has_a_row_per_model_and_the_seconds(report):
    lines = report()[0].splitlines()
    assert lines[0] == "Measured on AudioMNIST" and lines[-1].endswith("report.html")
    rows, score = [line.split() for line in lines[3:-2]], ["0.8000", "[0.670,", "0.888]", "n=1250"]
    assert rows[:2] == [["task1", "1D", *score, "6.4"], ["untrained", "2D", *score]]
    assert rows[4] == ["task3", "pictures", "only"] and len(rows) == 9


def test_the_page_is_well_formed_and_holds_all_numbers_pictures_and_sounds(report):
    page, text = report()[1:]
    assert text.count("0.8000 [0.670, 0.888] n=1250") == 8 and "new_key 3 3" in text and "Skipped clips: 7." in text
    assert "Encoder parameters: 1D 9, 2D 8." in text and "Settings: lr 1. Versions: x 3." in text
    assert json.loads(re.search(r'id="clips">(.*?)</script>', page)[1]) == MAP
    picture = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    assert Counter(re.findall(r'src="([^"]*)"', page)) == {picture: 5} and not re.search("(src|href)=.?https?:", page)
    elements = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    opened, closed = Counter(re.findall(r"<(\w+)", elements)), Counter(re.findall(r"</(\w+)", elements))
    assert set(opened - closed) == {"meta", "img", "input"} and not closed - opened


def test_names_are_shown_as_they_are_without_control_characters(report):
    name, shown = "<b>&\"'{{ 7 * 7 }}\x1b[31m\x07\n\u202e\udcff", "<b>&\"'{{ 7 * 7 }}?[31m? ??"
    write_metrics(FOLDERS[0], {"1d": SCORES, "run": RUN | {"corpus": name, "arguments": {"data_dir": name}}})
    table, page, text = report()
    assert shown in table and text.count(shown) == 3 and "<b>" not in page
    assert all(c.isprintable() or c == "\n" for c in table + page)


def test_the_picture_of_all_results_shows_controls_in_grey_beside_the_models(report):
    write_metrics(FOLDERS[0], {"1d": SCORES | {"test_acc_ci95": [0.55, 0.9]}, "supervised": SCORES, "run": RUN})
    page = report()[1]
    # The scale begins at 0.5, the lowest interval rounded down to a tenth.
    assert '<span class="interval trained" style="left: 10.0%; right: 20.0%">' in page
    assert '<span class="value control" style="left: 60.0%">' in page and "<span>0.75</span>" in page


def test_synthetic_speech_and_different_corpora_are_announced(report):
    assert 'class="notice"' not in report()[1]
    write_metrics(FOLDERS[0], {"1d": SCORES, "run": RUN | {"corpus": SYNTHETIC_NAME}})
    table, _, text = report()
    assert SYNTHETIC_NAME in table and "not AudioMNIST numbers" in text and "different corpora" in text


def test_an_unfinished_task_is_named_with_its_command(report):
    for name in ("metrics.json", "metrics.txt"):
        (FOLDERS[0] / name).unlink()
    table, page, text = report()
    assert table.count("no results") == text.count("No results") == 1 and page.count("<img") == 4
    assert "python task1.py --resume" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"models": 1, "colours": 2, "clips": [3]}', '{"clips": [{}]}'])
def test_a_map_or_metrics_that_are_damaged_or_of_another_version_are_left_out(report, content):
    for path in (FOLDERS[2] / "map.json", FOLDERS[0] / "metrics.json"):
        path.write_text(content)
    table, page, _ = report()
    assert "Test clips to listen to" not in page and "task1  pictures only" in table


def test_a_folder_without_outputs_is_one_line(report, monkeypatch):
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    with pytest.raises(SystemExit, match=r"no task has finished in .*empty; run run_all.sh there"):
        report()
    assert not Path("report.html").exists()

"""The report of the five tasks: the table on the terminal, the page, and the clips to listen to."""

import base64
import html
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from common.corpus import SYNTHETIC_NAME
from common.report import TASKS

FIRST, _, THIRD, *_ = FOLDERS = [Path(name) for name in TASKS]
PICTURE = b"\x89PNG"
SCORES = {"test_acc": 0.8, "test_acc_ci95": [0.67, 0.888], "test_clips": 1250, "eer": None}
CLIP = {"name": "07/7_07_0.wav", "speaker": "07", "digit": 7, "predicted": {"1d": 7, "2d": 1}, "places": [[0, 9]]}
MAP = {"models": ["contrastive_2d"], "colours": ["red"], "clips": [CLIP | {"sound": "//uQ"}]}


@pytest.fixture
def report(tmp_path, monkeypatch, run_here, capsys):
    """A function that runs ``python -m common.report`` on five finished tasks: table, page, and the page's text."""
    monkeypatch.chdir(tmp_path)
    for folder in FOLDERS:
        folder.mkdir()
        (folder / "overview.png").write_bytes(PICTURE)
        (folder / "metrics.txt").write_text(f"{folder}  {folder}  < 0.8000\n")
        write_metrics(folder, "AudioMNIST")
    (THIRD / "metrics.json").unlink()
    (THIRD / "map.json").write_text(json.dumps(MAP))

    def run() -> tuple[str, str, str]:
        run_here("common/report/__main__.py")
        page = Path("report.html").read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"<(style|script)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))
        return capsys.readouterr().out, page, text

    return run


def write_metrics(folder: Path, corpus: str) -> None:
    metrics = {"1d": SCORES, "untrained_2d": SCORES, "run": {"corpus": corpus}}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_the_table_has_a_row_per_model(report):
    lines = report()[0].splitlines()
    assert lines[0] == "Measured on AudioMNIST" and lines[-1].endswith("report.html")
    rows, score = [line.split() for line in lines[3:-2]], ["0.8000", "[0.670,", "0.888]", "n=1250"]
    assert rows[:2] == [[str(FIRST), "1D", *score], [str(FIRST), "untrained", "2D", *score]] and len(rows) == 8


def test_the_page_is_well_formed_and_holds_all_metrics_pictures_and_sounds(report):
    page, text = report()[1:]
    assert all(f"{folder}  {folder}  < 0.8000" in text for folder in FOLDERS)
    assert json.loads(re.search(r'id="clips">(.*?)</script>', page)[1]) == MAP
    picture = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    assert Counter(re.findall(r'src="([^"]*)"', page)) == {picture: 5} and not re.search("(src|href)=.?https?:", page)
    elements = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    opened, closed = Counter(re.findall(r"<(\w+)", elements)), Counter(re.findall(r"</(\w+)", elements))
    assert set(opened - closed) == {"meta", "img", "input"} and not closed - opened


def test_names_are_shown_as_they_are_without_control_characters(report):
    write_metrics(FIRST, "<b>&\"'{{ 7 * 7 }}\x1b[31m\x07\n\u202e\udcff")
    table, page, text = report()
    shown = "<b>&\"'{{ 7 * 7 }}?[31m? ??"
    assert shown in table and shown in text and "<b>" not in page
    assert all(c.isprintable() or c == "\n" for c in table + page)


def test_synthetic_speech_and_different_corpora_are_announced(report):
    assert 'class="notice"' not in report()[1]
    write_metrics(FIRST, SYNTHETIC_NAME)
    table, _, text = report()
    assert SYNTHETIC_NAME in table and "not AudioMNIST numbers" in text and "different corpora" in text


def test_an_unfinished_task_is_named_with_its_command_and_no_task_at_all_is_one_line(report):
    for folder in FOLDERS[1:]:
        for path in folder.iterdir():
            path.unlink()
    table, page, text = report()
    assert table.count("0.8000") == 2 and page.count("<img") == 1 and "Test clips to listen to" not in page
    assert text.count("No results") == 4 and "python task2.py --resume" in text
    (FIRST / "metrics.txt").unlink()
    with pytest.raises(SystemExit, match=r"no task has finished in .*; run run_all.sh there"):
        report()

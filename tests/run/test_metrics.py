"""What a finished run leaves: both metrics files whole or not at all, and readable."""

import errno
import json
from pathlib import Path

import pytest

from common.evaluate import accuracy_metrics
from common.plots.figure import new_figure, save
from common.report.__main__ import results_table
from common.run.console import UserError, align
from common.run.output import format_metrics, start_output, write_listing, write_metrics

RUN = {"corpus": "tones", "clips": {"train": 80, "val": 20, "test": 50}, "speakers": 6, "seed": 42, "versions": {}}
RESULTS = {
    "1d": accuracy_metrics("val", 18, 20) | accuracy_metrics("test", 40, 50) | {"test_loss": 0.5},
    "2d": accuracy_metrics("val", 20, 20) | accuracy_metrics("test", 45, 50) | {"test_loss": 0.25, "k": 3},
}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_json_has_the_models_and_the_run_at_the_top(tmp_path, capsys):
    write_metrics(tmp_path, "Title", RESULTS, RUN)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert set(written) == {"1d", "2d", "run"}
    assert written["1d"]["test_acc"] == 0.8 and written["1d"]["test_clips"] == 50 and written["2d"]["test_loss"] == 0.25
    assert written["run"]["corpus"] == "tones" and written["run"]["seconds"] > 0
    assert files(tmp_path) == {"metrics.json", "metrics.txt"}
    assert (tmp_path / "metrics.txt").read_text() in capsys.readouterr().out


def test_table_shows_each_accuracy_with_its_interval_and_number_of_clips():
    lines = format_metrics("Title", RESULTS, RUN | {"seconds": 1.5}).splitlines()
    assert lines[0] == "Title"
    assert "Corpus: tones" in lines[1] and "80 train, 20 val, 50 test" in lines[1] and "seed 42" in lines[1]
    header, one, two = (line.split("  ") for line in lines[3:6])
    assert [cell.strip() for cell in header if cell] == ["val_acc", "test_acc", "test_loss", "k"]
    assert [cell.strip() for cell in one if cell] == [
        "1d",
        "0.9000 [0.699, 0.972] n=20",
        "0.8000 [0.670, 0.888] n=50",
        "0.5000",
    ]
    assert [cell.strip() for cell in two if cell][-2:] == ["0.2500", "3"]


def test_columns_stand_below_each_other():
    assert align([["a", "bbb", "c"], ["aaaa", "b", ""]]) == ["a     bbb  c", "aaaa  b"]


@pytest.fixture
def earlier(tmp_path) -> Path:
    for name in ("metrics.json", "metrics.txt"):
        (tmp_path / name).write_text("earlier")
    return tmp_path


@pytest.mark.parametrize("name", ["metrics.json", "metrics.txt"])
@pytest.mark.parametrize("fault", ["replace", "half"])
def test_a_failing_write_leaves_the_earlier_file_and_no_other(earlier, monkeypatch, name, fault):
    real_replace, real_write = Path.replace, Path.write_text

    def replace(self, target):
        if Path(target).name == name:
            raise OSError(errno.EIO, "replace failed")
        return real_replace(self, target)

    def write_half(self, text, *args, **kwargs):
        real_write(self, text[: len(text) // 2], *args, **kwargs)
        if name in self.name:
            raise OSError(errno.ENOSPC, "disk full")
        return real_write(self, text, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, *(("replace", replace) if fault == "replace" else ("write_text", write_half)))
        with pytest.raises(UserError, match=rf"{name}: cannot be written \((replace failed|disk full)\)"):
            write_metrics(earlier, "Title", RESULTS, RUN)
    assert (earlier / name).read_text() == "earlier"
    assert files(earlier) == {"metrics.json", "metrics.txt"}


@pytest.mark.parametrize("name, size", [("metrics.txt", 100), ("metrics.json", 500)])
def test_on_a_full_disk_the_earlier_file_stays_and_no_other(earlier, full_disk, name, size):
    with full_disk(size), pytest.raises(UserError) as caught:
        write_metrics(earlier, "Title", RESULTS, RUN)
    assert f"{name}: cannot be written" in str(caught.value) and "\n" not in str(caught.value)
    assert (earlier / name).read_text() == "earlier"
    assert files(earlier) == {"metrics.json", "metrics.txt"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": 1}', '{"run": {"arguments": 3}}', '{"1d": {}}'])
def test_metrics_that_are_none_cannot_be_resumed(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=r"--resume: .*metrics\.json cannot be read"):
        start_output(tmp_path, RUN, resume=True)
    assert (tmp_path / "metrics.json").read_text() == content


def test_results_that_json_cannot_hold_leave_no_half_file(earlier):
    with pytest.raises(TypeError):
        write_metrics(earlier, "Title", {"1d": {"C": {1, 2}}}, RUN)
    assert (earlier / "metrics.json").read_text() == "earlier"
    assert files(earlier) == {"metrics.json", "metrics.txt"}


def test_starting_a_run_removes_the_earlier_results_and_nothing_else(earlier):
    (earlier / "checkpoints").mkdir()
    (earlier / "notes.txt").write_text("mine")
    (earlier / "photo.png").write_bytes(b"mine")
    (earlier / "examples.json").write_text("earlier")
    save(new_figure(1, 1, "title", "caption"), earlier / "curves.png")
    start_output(earlier, RUN)
    assert files(earlier) == {"checkpoints", "notes.txt", "photo.png"}


def test_starting_a_run_makes_the_folder(tmp_path):
    start_output(tmp_path / "a" / "b", RUN)
    assert files(tmp_path / "a" / "b") == set()


def test_an_output_folder_that_is_a_file_names_the_flag_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output-dir") as caught:
        start_output(tmp_path / "file", RUN)
    assert "\n" not in str(caught.value)


def test_a_listing_names_every_file(tmp_path):
    write_listing(tmp_path, "Plots", ["a.png", "b.png"], RUN)
    text = (tmp_path / "metrics.txt").read_text()
    assert "a.png" in text and "b.png" in text and "tones" in text
    assert files(tmp_path) == {"metrics.txt"}


def test_report_has_a_row_for_each_model_and_a_remark_for_each_missing_task(tmp_path):
    (tmp_path / "task1_supervised").mkdir()
    write_metrics(tmp_path / "task1_supervised", "Title", RESULTS, RUN)
    (tmp_path / "task3_visualization").mkdir()
    for name in ("x", "y"):
        (tmp_path / f"task3_visualization/{name}.png").touch()
    lines = results_table(tmp_path, ["11", "12", "13"]).splitlines()
    assert lines[0] == "Measured on tones"
    rows = [line.split() for line in lines[2:]]
    assert rows[1] == ["task1", "1d", "0.8000", "0.670", "to", "0.888", "50", "11"]
    assert rows[2] == ["2d", "0.9000", "0.786", "to", "0.957", "50"]
    assert rows[3] == ["task2", "no", "results", "12"]
    assert rows[4] == ["task3", "2", "plots", "13"]
    assert [row[0] for row in rows[5:]] == ["task4", "task5"]


def test_report_names_every_corpus_that_was_measured_on(tmp_path):
    for directory, corpus in (("task1_supervised", "b"), ("task5_finetune", "a")):
        (tmp_path / directory).mkdir()
        write_metrics(tmp_path / directory, "Title", RESULTS, RUN | {"corpus": corpus})
    assert results_table(tmp_path, []).startswith("Measured on a, b\n")

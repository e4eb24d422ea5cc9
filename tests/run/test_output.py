"""The folder of a run: stale results go when it starts, and its metrics are complete or absent."""

import json
from pathlib import Path

import pytest
from torch import nn

from common.run import PICTURE_MARK, UserError
from common.run.cli import Settings
from common.run.output import Run

FACTS = {"corpus": "tones", "fingerprint": "abc", "split": "s", "clips": {"train": 80, "test": 50}, "speakers": 6}
RESULTS = {
    "1d": {"val_acc": 0.9, "val_acc_ci95": [0.8, 0.95], "test_acc": 0.8, "test_clips": 50},
    "2d": {"test_loss": 0.25, "val_acc": 1.0, "test_acc": 0.9, "test_acc_ci95": [0.786, 0.957], "test_clips": 50},
}


@pytest.fixture
def make_run(tmp_path):
    """A function that gives a run in a folder, by default an empty one."""
    return lambda folder=tmp_path, **flags: Run(Settings(output_dir=folder, **flags), FACTS, {"1d": 35136})


@pytest.fixture
def earlier(tmp_path) -> Path:
    """A folder with the metrics of an earlier run."""
    (tmp_path / "metrics.json").write_text("earlier")
    (tmp_path / "metrics.txt").write_text("earlier")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_table_begins_with_the_numbers_of_the_contract(make_run, tmp_path):
    make_run().write_table("Title", RESULTS)
    *lines, seconds = (tmp_path / "metrics.txt").read_text().splitlines()
    assert lines == [
        "Title",
        "Corpus: tones (80 train, 50 test clips, 6 speakers), seed 42",
        "",
        "    val_acc                test_acc                    test_loss",
        "1d  0.9000 [0.800, 0.950]  0.8000 n=50",
        "2d  1.0000                 0.9000 [0.786, 0.957] n=50  0.2500",
        "",
    ]
    assert seconds.endswith(" s")
    make_run().write_table("Plots", {"a.png": {}, "b.png": {}})
    assert "\n\na.png\nb.png\n\n" in (tmp_path / "metrics.txt").read_text()


@pytest.mark.parametrize("models, measures, length", [(2, 1, 4), (2, 30, 16), (10, 30, 4), (10, 30, 31)])
def test_a_table_fits_a_terminal_of_100_columns_and_shows_at_most_twelve_measures(tmp_path, models, measures, length):
    numbers = {"test_loss": 1.0, **{f"condition_{i}_acc": 0.5 for i in range(measures)}, "test_acc": 0.1, "val_acc": 1}
    numbers |= {f"{key}_ci95": [0.4, 0.6] for key in numbers if key.endswith("acc")}
    numbers |= {"test_clips": 10_000, "worst_speaker_acc": 0.2, "worst_speaker": "a long name \n" * 9}
    results = {f"{i}".rjust(length, "m"): numbers for i in range(models)}
    Run(Settings(output_dir=tmp_path), FACTS | {"corpus": "a long name " * 12}, {}).write_metrics("Title", results)
    text = (tmp_path / "metrics.txt").read_text()
    assert max(map(len, text.splitlines())) <= 100 and all(name in text for name in results)
    assert text.count("0.5000 [0.400, 0.600]") == models * min(measures, 10) and text.count("0.1000") == models
    assert json.loads((tmp_path / "metrics.json").read_text()).items() > results.items()


def test_on_a_full_disk_the_earlier_file_stays(earlier, make_run, full_disk):
    with full_disk(600), pytest.raises(UserError, match=r"metrics\.json: cannot be written"):
        make_run().write_metrics("Title", RESULTS)
    assert (earlier / "metrics.json").read_text() == "earlier" and names(earlier) == {"metrics.json", "metrics.txt"}


def test_a_new_run_deletes_stale_results_and_nothing_else(earlier, make_run):
    (earlier / "checkpoints").mkdir()
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "notes.txt", "photo.png", "map.json"):
        (earlier / name).write_text("earlier")
    (earlier / "curves.png").write_bytes(b"\x89PNG" + PICTURE_MARK)
    with make_run():
        assert names(earlier) == {"checkpoints", "notes.txt", "photo.png", ".lock"}
        assert names(earlier / "checkpoints") == {"best.ckpt"}


def test_a_folder_that_cannot_be_made_is_named_with_its_flag(make_run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output-dir .*: cannot write there"):
        make_run(tmp_path / "file" / "below").__enter__()


def test_a_folder_in_which_another_run_writes_is_refused_until_that_one_ends_or_fails(earlier, make_run):
    with pytest.raises(ZeroDivisionError), make_run():
        (earlier / "metrics.txt").write_text("new")
        with pytest.raises(UserError, match=f"--output-dir {earlier}: another run is writing there"):
            make_run().__enter__()
        assert (earlier / "metrics.txt").read_text() == "new"
        raise ZeroDivisionError
    with make_run():
        assert names(earlier) == {".lock"}


def test_of_several_processes_the_main_one_prepares_the_folder_and_writes(earlier, make_run, monkeypatch):
    monkeypatch.setattr("common.run._rank", 1)
    with make_run() as run:
        run.write_metrics("Title", RESULTS)
    assert (earlier / "metrics.json").read_text() == "earlier" and names(earlier) == {"metrics.json", "metrics.txt"}


def test_a_finished_run_is_not_repeated(make_run, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    with make_run(epochs=3, resume=True) as run:
        assert not run.finished and names(tmp_path / "checkpoints") == {"last.ckpt"}
        run.write_metrics("Title", RESULTS)
        assert names(tmp_path / "checkpoints") == set(), "nothing is left to resume"
    with make_run(epochs=3, resume=True, num_workers=7) as run:
        assert run.finished and "this run has finished" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"metrics\.json is of a run with --epochs 3 \(now 4\); start anew"):
        make_run(epochs=4, resume=True).__enter__()


def test_results_on_another_corpus_or_of_other_encoders_are_refused(make_run, tmp_path):
    first, same, _ = encoders = [nn.Linear(2, 2) for _ in range(3)]
    same.load_state_dict(first.state_dict())
    run, again, another = (Run(Settings(output_dir=tmp_path), FACTS, {}, each) for each in encoders)
    assert run.record == again.record
    records = {"task 2's encoders": another.record}
    records |= {name: run.record | {key: "other"} for key, name in (("fingerprint", "corpus"), ("split", "split"))}
    for name, record in records.items():
        with pytest.raises(UserError, match=rf"metrics.json is of a run with {name} \w+ \(now \w+\); start anew"):
            run.refuse_other_run(Path("metrics.json"), record)


@pytest.mark.parametrize("content", ["{", '{"run": {"arguments": 3}}'])
def test_a_file_that_does_not_hold_metrics_cannot_be_resumed(make_run, tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=r"--resume: .*metrics\.json cannot be read"):
        make_run(resume=True).__enter__()

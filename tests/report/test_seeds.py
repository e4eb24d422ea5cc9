"""Metrics of several seeds become means with their standard deviations, and nothing else does."""

import json
from pathlib import Path

import pytest

from common.report import seeds
from common.run import UserError


def write(folder: Path, seed: int, accuracy: float, corpus: str = "tones", **more: object) -> Path:
    (folder / "task1_supervised").mkdir(parents=True)
    model = {"test_acc": accuracy, "test_acc_ci95": [accuracy - 0.2, accuracy + 0.1], "test_clips": 50} | more
    metrics = {"1d": model, "2d": model | {"k": 3}, "run": {"seed": seed, "corpus": corpus}}
    (folder / "task1_supervised/metrics.json").write_text(json.dumps(metrics))
    return folder


def test_each_number_is_a_mean_with_its_standard_deviation_and_interval(tmp_path, capsys):
    folders = [write(tmp_path / f"seed{s}", s, value, C=None, loss=0.25) for s, value in ((1, 0.5), (2, 0.6), (3, 0.7))]
    seeds.main(folders)
    head, _, *rows, _, note = capsys.readouterr().out.splitlines()
    assert head == "Task 1: digits from labels alone (tones; seeds 1, 2, 3)" and "ddof 1" in note and "3 seed" in note
    cell = "0.600 ± 0.100 [0.400, 0.700]"  # of 0.5, 0.6 and 0.7 with ddof 1; with 0 it would be 0.082
    assert [[part.strip() for part in row.split("|")] for row in rows] == [
        ["", "", "1D", "2D", ""],
        ["", "---", "---", "---", ""],
        ["", "test_acc", cell, cell, ""],
        ["", "loss", "0.250 ± 0.000", "0.250 ± 0.000", ""],
        ["", "k", "", "3.000 ± 0.000", ""],
    ]
    seeds.main(folders[:1], only=["test_acc"])
    assert "0.500 [0.300, 0.600]" in (out := capsys.readouterr().out) and "loss" not in out


def test_runs_that_cannot_be_averaged_are_named(tmp_path):
    first, again, other = (write(tmp_path / name, seed, 0.5, name) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    for folders, message in (([first, again], "same seed"), ([first, other], "different corpora")):
        with pytest.raises(UserError, match=message):
            seeds.main(folders)
    with pytest.raises(UserError, match=r"no task has metrics in all of .*nothing; run them first"):
        seeds.main([first, tmp_path / "nothing"])

"""Metrics of several seeds become means with their standard deviations, and nothing else does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.report import seeds
from common.run.console import UserError


def write(folder: Path, seed: int, accuracy: float, task: str = "task1_supervised", **more: object) -> Path:
    (folder / task).mkdir(parents=True, exist_ok=True)
    model = {"test_acc": accuracy, "test_acc_ci95": [accuracy - 0.2, accuracy + 0.1], "test_clips": 50} | more
    model |= {"worst_speaker": "03", "worst_speaker_acc": 0.1}
    run = {"seed": seed, "corpus": "tones", "clips": {"test": 50}}
    (folder / task / "metrics.json").write_text(json.dumps({"1d": model, "2d": model, "run": run}))
    return folder


def test_each_number_is_a_mean_with_its_standard_deviation_and_interval(tmp_path, capsys):
    folders = [write(tmp_path / f"seed{s}", s, value, C=None, loss=0.25) for s, value in ((1, 0.5), (2, 0.6), (3, 0.7))]
    seeds.main(folders)
    head, _, models, rule, row, *_, note = capsys.readouterr().out.splitlines()
    assert head == "Task 1: digits from labels alone (tones, 50 test clips; seeds 1, 2, 3)"
    assert [cell.strip() for cell in models.split("|")] == ["", "", "1D", "2D", ""] and set(rule) <= set("|- ")
    cell = "0.600 ± 0.100 [0.400, 0.700]"  # of 0.5, 0.6 and 0.7 with ddof 1; with 0 it would be 0.082
    assert [part.strip() for part in row.split("|")] == ["", "test_acc", cell, cell, ""]
    assert "ddof 1" in note and "n = 3 seeds" in note


def test_one_seed_has_no_deviation_and_a_task_that_one_seed_lacks_is_left_out(tmp_path, capsys):
    folder = write(tmp_path / "a", 1, 0.5)
    write(folder, 1, 0.5, task="task4_biometrics")
    seeds.main([folder])
    assert "0.500 [0.300, 0.600]" in capsys.readouterr().out
    seeds.main([folder, write(tmp_path / "b", 2, 0.5)])
    assert "Task 4" not in capsys.readouterr().out


def test_folders_without_results_are_named_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no task has metrics in all of .*nothing; run them first") as caught:
        seeds.main([tmp_path / "nothing"])
    assert "\n" not in str(caught.value)


def test_only_the_measures_that_were_asked_for_are_shown(tmp_path, capsys):
    seeds.main([write(tmp_path / "a", 1, 0.5, loss=0.25, k=3)], only=["loss"])
    assert "0.250" in (out := capsys.readouterr().out) and "test_acc" not in out and "3.000" not in out


def test_runs_that_cannot_be_averaged_are_named_in_one_line(tmp_path):
    first, again, other = (write(tmp_path / name, seed, 0.5) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    with pytest.raises(UserError, match="two of the runs have the same seed"):
        seeds.main([first, again])
    path = other / "task1_supervised/metrics.json"
    path.write_text(path.read_text().replace("tones", "other tones"))
    with pytest.raises(UserError, match="different corpora"):
        seeds.main([first, other])
    for broken in ('{"run": null}', '{"run": {}}', '{"1d": null, "run": {"seed": 3}}', "[]"):
        path.write_text(broken)
        with pytest.raises(UserError, match="no task has metrics"):
            seeds.main([other])


def test_the_command_names_itself_and_ends_quietly_when_nobody_reads_on(tmp_path, repository):
    write(tmp_path / "a", 1, 0.5)

    def stderr(command: str) -> str:
        line = command.replace("seeds", f"{sys.executable} -m common.report.seeds")
        environment = os.environ | {"PYTHONPATH": str(repository)}
        ended = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        return ended.stderr

    assert stderr("seeds a | true") == ""
    assert stderr("seeds b").startswith("python -m common.report.seeds: error: no task has metrics")

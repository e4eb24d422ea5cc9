"""run_all.sh: its arguments, the order of the tasks, and how it ends when one of them fails."""

import os
import shutil
import subprocess
import sys

import pytest

from common.corpus import SYNTHETIC_NAME

# In place of each task: notes its flags, writes the metrics of task 1, and ends with the code that the test wants.
STAND_IN = """
import json, os, sys
from pathlib import Path

name = Path(__file__).stem
with open("log", "a") as log:
    print(name, *sys.argv[1:], file=log)
if name == "task1":
    Path("task1_supervised").mkdir(exist_ok=True)
    text = json.dumps({"run": {"corpus": os.environ["CORPUS"]}}, indent=2)
    Path("task1_supervised/metrics.json").write_text(text)
sys.exit(int(os.environ.get(name, 0)))
"""


@pytest.fixture
def run_all(repository, tmp_path, offline):
    """A function that runs a copy of run_all.sh by a link and sh, beside stand-ins: code, stdout, stderr, their log."""
    project, commands, work = (tmp_path / name for name in ("project", "commands", "place"))
    for folder in (project / "common/report", commands, work / "common"):
        folder.mkdir(parents=True)
    shutil.copy(repository / "run_all.sh", project)
    (commands / "run_all.sh").symlink_to(project / "run_all.sh")
    (work / "common/__init__.py").write_text("raise ValueError('a package of the user')")
    (project / "common/__init__.py").touch()
    (project / "common/report/__main__.py").write_text("print('the report')\n")
    (project / "common/report/seeds.py").write_text("import sys; print('means of', *sys.argv[1:])\n")
    for task in range(1, 6):
        (project / f"task{task}.py").write_text(STAND_IN)
    (commands / "python").write_text(f'#!/bin/sh\n[ $2 != -c ] || exit $LACKING\nexec "{sys.executable}" "$@"\n')
    (commands / "uv").write_text('#!/bin/sh\necho uv >> log; shift 3; exec "$@"\n')
    for command in ("python", "uv"):
        (commands / command).chmod(0o755)
    variables = offline | {"PATH": f"{commands}:{os.environ['PATH']}", "CORPUS": "AudioMNIST", "LACKING": "0"}

    def run(*flags: str, **environment: str) -> tuple[int, str, str, list[str]]:
        command = ["sh", str(commands / "run_all.sh"), *flags]
        done = subprocess.run(command, cwd=work, env=variables | environment, capture_output=True, text=True)
        log = work / "log"
        return done.returncode, done.stdout, done.stderr, log.read_text().splitlines() if log.exists() else []

    return run


@pytest.mark.parametrize(
    "flags, named",
    [
        (["0.01", "--epochs"], "RATIO EPOCHS"),
        (["1.0", "1", "--output-dir", "x"], "--output-dir"),
        (["1.0", "1", "--label-ratio=0.5"], "--label-ratio"),
        (["1.0", "1", "--seeds", "3,03"], "--seeds"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(run_all, flags, named):
    code, output, errors, log = run_all(*flags)
    assert code == 2 and output == "" and errors.count("\n") == 1 and named in errors and log == []


def test_the_five_tasks_run_in_order_with_all_flags_and_then_the_report(run_all):
    code, output, errors, log = run_all("0.5", "3", "--seed", "7")
    assert code == 0 and errors == "" and output.endswith("\nthe report\n")
    assert log == [f"task{task} --ratio 0.5 --epochs 3 --seed 7" for task in range(1, 6)]
    # An environment without the libraries is left for the project's own.
    assert run_all("0.5", "3", LACKING="1")[-1][5:8] == ["uv", "task1 --ratio 0.5 --epochs 3", "uv"]


def test_a_failing_task_ends_it_with_its_code_and_without_an_old_report(run_all, tmp_path):
    (tmp_path / "place/report.html").touch()
    code, output, errors, log = run_all("0.5", "3", task4="7")
    assert code == 7 and "task4.py failed with exit code 7" in errors and "the report" not in output
    assert len(log) == 4 and not (tmp_path / "place/report.html").exists()


def test_the_tasks_keep_to_the_synthetic_speech_that_the_first_one_used(run_all):
    log = run_all("0.5", "3", CORPUS=SYNTHETIC_NAME)[-1]
    assert ["--dataset synthetic" in line for line in log] == [False, True, True, True, True]


def test_several_seeds_run_in_folders_of_their_own_and_share_data_until_one_fails(run_all, tmp_path):
    code, out, _, _ = run_all("1.0", "2", "--data-dir", "recordings", "--seeds=4,11", "--quiet")
    assert code == 0 and out.splitlines()[-1] == "means of seed4 seed11"
    for seed in ("4", "11"):
        folder = tmp_path / "place" / f"seed{seed}"
        flags = f"--ratio 1.0 --epochs 2 --data-dir {tmp_path}/place/recordings --quiet --seed {seed}"
        assert (folder / "log").read_text().splitlines() == [f"task{task} {flags}" for task in range(1, 6)]
        assert (folder / "data").resolve() == tmp_path / "place/data"
    code, out, *_ = run_all("1.0", "1", "--seeds", "1,2", task2="1")
    assert code == 1 and "seed 1" in out and "seed 2" not in out

"""The command line: the defaults of the contract, and mistakes answered in one line."""

import errno
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import fuzz_arguments
from benchmarks.fuzz_arguments import parser_of

from common.run.cli import Settings, run, run_task, task_parser
from common.run.console import UserError
from common.run.output import Run, seconds

TASKS = range(1, 6)
EPOCHS = {1: 50, 2: 100, 5: 50}
FOLDERS = {
    1: "task1_supervised",
    2: "task2_contrastive",
    3: "task3_visualization",
    4: "task4_biometrics",
    5: "task5_finetune",
}


@pytest.fixture
def parser():
    more = ("label_ratio", "augment", "task1_checkpoint", "task2_checkpoint")
    return task_parser("About the task.", Settings(epochs=5, lr=1e-3), *more)


def settings_of(task: int, flags: str = "") -> Settings:
    """The settings of a task's script; a flag that is no field of ``Settings`` fails here."""
    return Settings(**vars(parser_of(f"task{task}.py").parse_args(flags.split())))


@pytest.mark.parametrize("task", TASKS)
def test_defaults_are_those_of_the_contract(task):
    settings = settings_of(task)
    assert (settings.ratio, settings.batch_size, settings.num_workers, settings.seed) == (1.0, 64, None, 42)
    assert settings.epochs == EPOCHS.get(task, 0) and settings.output_dir == Path(FOLDERS[task])
    assert (settings.lr > 0) == (task in EPOCHS)
    assert (settings.data_dir, settings.dataset, settings.fold) == (None, "auto", None)
    assert (settings.label_ratio, settings.augment) == (1.0, "both")
    assert settings.task2_checkpoint == Path("task2_contrastive/checkpoints/best.ckpt")
    assert settings.task1_checkpoint == Path("task1_supervised")


@pytest.mark.parametrize("task", TASKS)
def test_one_set_of_flags_drives_every_task(task):
    flags = "--ratio 0.5 --epochs 3 --batch-size 16 --lr 0.01 --num-workers 0 --seed 7 --fold 2 --dataset synthetic"
    settings = settings_of(task, f"{flags} --precision bf16-mixed --strategy ddp --devices 2")
    assert (settings.ratio, settings.epochs, settings.batch_size, settings.lr) == (0.5, 3, 16, 0.01)
    assert (settings.num_workers, settings.seed, settings.fold, settings.dataset) == (0, 7, 2, "synthetic")
    expected = {"accelerator": "auto", "devices": 2, "num_nodes": 1, "strategy": "ddp", "precision": "bf16-mixed"}
    assert settings.hardware == expected


def test_flags_of_some_tasks_are_accepted_by_these_alone():
    tasks = {"label_ratio": (1, 5), "augment": (2,), "task1_checkpoint": (3, 4), "task2_checkpoint": (3, 4, 5)}
    for name, expected in tasks.items():
        assert tuple(t for t in TASKS if name in vars(parser_of(f"task{t}.py").parse_args([]))) == expected


@pytest.mark.parametrize("task", TASKS)
def test_help_has_the_docstring_the_defaults_and_where_nothing_is_trained(task):
    text = " ".join(parser_of(f"task{task}.py").format_help().split())
    assert f"Task {task}:" in text and f"python task{task}.py" in text
    assert "(default: 64)" in text and "tasks 3 and 4 train nothing" in text


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no such backend"])
def test_a_backend_of_a_notebook_does_not_matter(run_script, tmp_path, backend):
    result = run_script("task1.py", "--help", folder=tmp_path, MPLBACKEND=backend)
    assert result.returncode == 0 and "--ratio" in result.stdout, result.stderr


def test_half_precision_on_a_macs_gpu_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["task1.py", "--accelerator", "mps", "--precision", "16-mixed"])
    with pytest.raises(SystemExit) as stopped:
        run_task(lambda settings: pytest.fail("it ran"), parser_of("task1.py"))
    assert stopped.value.code == 2 and "16-mixed" in capsys.readouterr().err


def test_two_runs_in_one_process_have_their_own_seconds_and_leave_their_folders_free(tmp_path, monkeypatch):
    """As with %run in a notebook."""
    monkeypatch.setattr(sys, "argv", ["task.py", "--output-dir", str(tmp_path)])
    facts = {"corpus": "tones", "fingerprint": "f", "split": "s", "clips": {}, "speakers": 3}
    took = []

    def main(settings: Settings) -> None:
        run_of_folder = Run(settings, facts, {})
        run_of_folder.open()
        time.sleep(0.3)
        took.append(seconds())
        raise UserError("nothing measured")

    for _ in range(2):
        with pytest.raises(SystemExit, match="nothing measured"):
            run_task(main, task_parser("A test.", Settings()))
    assert all(0.3 <= each < 0.6 for each in took)


# --- mistakes


@pytest.fixture
def refused(monkeypatch, capsys):
    """A function that gives a script wrong flags and returns the one line with which they are refused."""

    def refuse(parser, flags: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["task.py", *flags])
        with pytest.raises(SystemExit) as caught:
            run(lambda **_: pytest.fail("the flags were accepted"), parser)
        output, line = capsys.readouterr()
        assert caught.value.code == 2 and output == ""
        assert line.count("\n") == 1 and "error" in line and len(line) < 600 and line[:-1].isprintable()
        return line

    return refuse


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--ratio"], "--ratio"),
        (["--fast"], "unrecognized arguments: --fast"),
        (["--rat", "0.5"], "--rat"),  # no abbreviations: a later flag could change their meaning
        (["a\nb"], "unrecognized arguments: a b"),
        (["--fast\x1b[31m=1", "\udcff"], "unrecognized arguments"),
        (["--data-dir", "x", "--dataset", "synthetic"], "--data-dir"),
    ],
)
def test_a_mistake_is_named(parser, refused, flags, named):
    assert named in refused(parser, flags)


@pytest.mark.parametrize("flag", fuzz_arguments.FOLDERS)
def test_a_file_in_place_of_a_folder_is_named(parser, refused, tmp_path, flag):
    (tmp_path / "file").touch()
    assert flag in refused(parser, [flag, str(tmp_path / "file")])


@pytest.mark.slow
def test_every_right_value_of_every_flag_is_accepted_and_every_other_one_is_named():
    counts, wrong = fuzz_arguments.sweep(count=20, seed=0)
    assert wrong == []
    assert set(counts) == set(fuzz_arguments.FLAGS)
    assert all(0 < count["accepted"] < count["values"] for count in counts.values())
    for script in fuzz_arguments.SCRIPTS:
        flags = {flag for flag in parser_of(script)._option_string_actions if flag.startswith("--")}
        assert flags <= {"--help", "--resume", "--quiet", *fuzz_arguments.FLAGS}, "a flag that was not tried"


# --- run


@pytest.fixture
def no_flags(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["task.py"])


def raising(error: BaseException):
    def main(settings):
        raise error

    return main


@pytest.mark.parametrize(
    "error, message",
    [
        (UserError("--data-dir x: no such folder"), "--data-dir x: no such folder"),
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), "[Errno 28] No space left on device: 'a.png'"),
    ],
)
def test_an_error_that_the_user_can_correct_is_one_line_and_exit_code_1(parser, no_flags, capsys, error, message):
    with pytest.raises(SystemExit) as caught:
        run_task(raising(error), parser)
    # Python prints the text that a process exits with, and makes it exit code 1.
    assert caught.value.code == f"{parser.prog}: error: {message}"
    assert capsys.readouterr() == ("", "")


def test_a_bug_keeps_its_traceback(parser, no_flags):
    with pytest.raises(ZeroDivisionError):
        run_task(raising(ZeroDivisionError()), parser)


def test_an_interrupted_run_is_one_line_and_exit_code_130(parser, no_flags, capsys):
    with pytest.raises(SystemExit) as caught:
        run_task(raising(KeyboardInterrupt()), parser)
    assert caught.value.code == 130
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "interrupted" in line and "--resume" in line


def test_the_seed_fixes_every_source_of_random_numbers(parser, monkeypatch):
    drawn = []
    for seed in (1, 1, 2):
        monkeypatch.setattr(sys, "argv", ["task.py", "--seed", str(seed)])
        run(lambda **_: drawn.append((random.random(), np.random.rand(), torch.rand(1).item())), parser)
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))

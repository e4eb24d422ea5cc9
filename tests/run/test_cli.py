"""The command line: the defaults of the contract, and mistakes answered in one line."""

import random
import runpy
import signal
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from common.run import UserError
from common.run.cli import Parser, Settings, find_rank, run, run_task, task_parser

TASKS = range(1, 6)
EPOCHS = {1: 50, 2: 100, 3: 0, 4: 0, 5: 50}
FOLDERS = ["task1_supervised", "task2_contrastive", "task3_visualization", "task4_biometrics", "task5_finetune"]


@pytest.fixture(scope="module")
def parsers(repository) -> dict[int, Parser]:
    """The parser of each task's script."""
    with mock.patch("common.run.cli.run_task") as run:
        for task in TASKS:
            runpy.run_path(str(repository / f"task{task}.py"), run_name="__main__")
    return {task: call.args[1] for task, call in zip(TASKS, run.call_args_list, strict=True)}


@pytest.mark.parametrize("task", TASKS)
def test_defaults_are_those_of_the_contract(parsers, task):
    settings = Settings(**vars(parsers[task].parse_args([])))
    assert (settings.ratio, settings.batch_size, settings.num_workers, settings.seed) == (1.0, 64, 4, 42)
    assert settings.epochs == EPOCHS[task] and (settings.lr > 0) == (settings.epochs > 0)
    assert (settings.data_dir, settings.dataset, settings.fold) == (None, "auto", None)
    assert (settings.label_ratio, settings.augment) == (1.0, "both")
    assert settings.output_dir == Path(FOLDERS[task - 1])
    assert settings.task2_checkpoint == Path("task2_contrastive/checkpoints/best.ckpt")
    assert settings.task1_checkpoint == Path("task1_supervised")


@pytest.mark.parametrize("task", TASKS)
def test_one_set_of_flags_drives_every_task(parsers, task):
    flags = "--ratio 0.5 --epochs 3 --batch-size 16 --lr 0.01 --num-workers 0 --seed 7 --fold 2 --dataset synthetic"
    more = "--precision bf16-mixed --strategy ddp --devices 2 --resume --logger tensorboard --quiet"
    settings = Settings(**vars(parsers[task].parse_args(f"{flags} {more}".split())))
    assert (settings.ratio, settings.epochs, settings.batch_size, settings.lr) == (0.5, 3, 16, 0.01)
    assert (settings.num_workers, settings.seed, settings.fold, settings.dataset) == (0, 7, 2, "synthetic")
    expected = {"accelerator": "auto", "devices": 2, "num_nodes": 1, "strategy": "ddp", "precision": "bf16-mixed"}
    assert settings.hardware == expected and settings.data["processes"] == 2


def test_flags_of_some_tasks_are_accepted_by_these_alone(parsers):
    tasks = {"label_ratio": (1, 5), "augment": (2,), "task1_checkpoint": (3, 4), "task2_checkpoint": (3, 4, 5)}
    for name, expected in tasks.items():
        assert tuple(task for task in TASKS if name in vars(parsers[task].parse_args([]))) == expected


@pytest.fixture
def start(monkeypatch):
    """A function that runs ``main`` as a task with these flags, and returns the exit code or text."""

    def run_it(main, *flags: str) -> object:
        monkeypatch.setattr(sys, "argv", ["task.py", *flags])
        with pytest.raises(SystemExit) as caught:
            run_task(main, task_parser("About the task.", Settings(epochs=5, lr=1e-3)))
        return caught.value.code

    return run_it


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--fast\x1b[31m=1", "a\nb\udcff"], "unrecognized arguments: --fast?[31m=1 a b?"),
        (["--rat", "0.5"], "--rat"),  # no abbreviations: a later flag could change their meaning
        (["--ratio", "nan"], "--ratio: expected a number from 1e-06 to 1, got 'nan'"),
        (["--epochs", "1.5"], "--epochs: expected a whole number"),
        (["--output-dir", ""], "--output-dir"),
        (["--data-dir", "x", "--dataset", "synthetic"], "--data-dir"),
        (["--accelerator", "mps", "--precision", "16-mixed"], "--precision"),
    ],
)
def test_a_mistake_is_named_in_one_line_with_exit_code_2(start, capsys, flags, named):
    assert start(lambda _: pytest.fail("the flags were accepted"), *flags) == 2
    output, line = capsys.readouterr()
    assert output == "" and line.count("\n") == 1 and named in line and line[:-1].isprintable()


def raising(error: BaseException):
    def main(settings):
        raise error

    return main


def test_an_error_that_the_user_can_correct_is_one_line_and_exit_code_1(start):
    # Python prints the text that a process exits with, and makes it exit code 1.
    assert start(raising(UserError("--fold: no"))).endswith(": error: --fold: no")
    assert start(raising(OSError(28, "Disk full", "a\n.png"))).endswith(": error: [Errno 28] Disk full: 'a\\n.png'")
    assert start(raising(SystemExit(3))) == 3
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        start(raising(ZeroDivisionError()))


class Interrupted(pl.LightningModule):
    """A module in whose training Ctrl-C is pressed."""

    def training_step(self, batch, index):
        signal.raise_signal(signal.SIGINT)

    def configure_optimizers(self):
        return None


def train_until_interrupted(settings: Settings) -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(Interrupted(), DataLoader([0]))


@pytest.mark.filterwarnings("ignore")  # what Lightning advises its users
@pytest.mark.parametrize("main", [raising(KeyboardInterrupt()), train_until_interrupted])
def test_an_interrupted_run_is_one_line_and_exit_code_130(start, capsys, main):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
    try:
        assert start(main) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert capsys.readouterr().err.splitlines()[-1].endswith(": interrupted; to continue, add --resume")


def test_the_seed_fixes_every_source_of_random_numbers(monkeypatch):
    drawn = []
    for seed in (1, 1, 2):
        monkeypatch.setattr(sys, "argv", ["task.py", "--seed", str(seed)])
        run(
            lambda **_: drawn.append((random.random(), np.random.rand(), torch.rand(1).item())),
            task_parser("", Settings()),
        )
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    "found, devices, num_nodes, rank",
    [
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "1", "NODE_RANK": "1"}, 1, 1, 0),
        ({}, 2, 1, 0),
        ({"NODE_RANK": "1"}, 2, 2, 2),
        ({"LOCAL_RANK": "1", "NODE_RANK": "1"}, 2, 2, 3),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, 2, 1, 1),  # started by Lightning in a job of Slurm
        ({"SLURM_PROCID": "1"}, 2, 1, 1),
        (TORCHRUN, 1, 2, 1),
    ],
)
def test_the_rank_is_that_of_the_launcher_and_zero_in_a_run_of_one_process(found, devices, num_nodes, rank):
    with mock.patch.dict("os.environ", found, clear=True):
        assert find_rank(devices, num_nodes) == rank


def test_torchrun_with_another_number_of_processes_is_refused(monkeypatch):
    with mock.patch.dict("os.environ", TORCHRUN), pytest.raises(UserError, match=r"started 2 .* --devices 1 .* 1;"):
        find_rank(1, 1)

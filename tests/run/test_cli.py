"""The command line: the defaults of the contract, and mistakes answered in one line."""

import signal
import sys
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from parsers import parser_of
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.demos.boring_classes import BoringModel

from common.run import UserError
from common.run.cli import Parser, Settings, find_rank, run, run_task, task_parser

TASKS = {  # epochs, folder
    1: (50, "task1_supervised"),
    2: (100, "task2_contrastive"),
    3: (0, "task3_visualization"),
    4: (0, "task4_biometrics"),
    5: (50, "task5_finetune"),
}


@pytest.fixture(scope="module")
def parsers() -> dict[int, Parser]:
    return {task: parser_of(f"task{task}.py") for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_the_contract_s_defaults_and_flags_are_those_of_every_task(parsers, task):
    settings = Settings(**vars(parsers[task].parse_args([])))
    assert (settings.epochs, str(settings.output_dir)) == TASKS[task]
    assert (settings.ratio, settings.batch_size, settings.seed, bool(settings.lr)) == (1.0, 64, 42, task not in (3, 4))
    assert str(settings.task2_checkpoint) == "task2_contrastive/checkpoints/best.ckpt"
    assert str(settings.task1_checkpoint) == "task1_supervised"

    flags = "--ratio 0.5 --epochs 3 --batch-size 16 --lr 0.01 --num-workers 0 --fold 2 --precision bf16-mixed"
    more = "--dataset synthetic --strategy ddp --devices 2 --resume --logger tensorboard --quiet"
    settings = Settings(**vars(parsers[task].parse_args(f"{flags} {more}".split())))
    assert (settings.ratio, settings.epochs, settings.batch_size, settings.lr) == (0.5, 3, 16, 0.01)
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


def test_an_error_that_the_user_can_correct_is_one_line_and_exit_code_1(start):
    # Python prints the text that a process exits with, and makes it exit code 1.
    assert start(mock.Mock(side_effect=UserError("--fold: no"))) == "task.py: error: --fold: no"
    full = OSError(28, "Disk full", "a\n.png")
    assert start(mock.Mock(side_effect=full)) == "task.py: error: [Errno 28] Disk full: 'a\\n.png'"
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        start(mock.Mock(side_effect=ZeroDivisionError))


def train_until_interrupted(settings: Settings) -> None:
    press = LambdaCallback(on_train_start=lambda *_: signal.raise_signal(signal.SIGINT))
    pl.Trainer(accelerator="cpu", logger=False, callbacks=press, enable_checkpointing=False).fit(BoringModel())


@pytest.mark.filterwarnings("ignore")  # what Lightning advises its users
@pytest.mark.parametrize("main", [mock.Mock(side_effect=KeyboardInterrupt), train_until_interrupted])
def test_an_interrupted_run_is_one_line_and_exit_code_130(start, capsys, main):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
    try:
        assert start(main) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert capsys.readouterr().err.splitlines()[-1].endswith(": interrupted; to continue, add --resume")


def test_the_seed_fixes_the_weights_and_the_augmentation(monkeypatch):
    drawn = []
    for seed in ("1", "1", "2"):
        monkeypatch.setattr(sys, "argv", ["task.py", "--seed", seed])
        run(lambda **_: drawn.append(torch.rand(1).item()), task_parser("", Settings()))
    assert drawn[0] == drawn[1] != drawn[2]


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    "found, devices, num_nodes, rank",
    [
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1"}, 1, 1, 0),  # left by an earlier job
        ({}, 2, 1, 0),
        ({"LOCAL_RANK": "1", "NODE_RANK": "1"}, 2, 2, 3),
        (TORCHRUN, 1, 2, 1),
    ],
)
def test_the_rank_is_that_of_the_launcher_and_zero_in_a_run_of_one_process(found, devices, num_nodes, rank):
    with mock.patch.dict("os.environ", found, clear=True):
        assert find_rank(devices, num_nodes) == rank


def test_torchrun_with_other_numbers_than_the_flags_is_refused():
    with mock.patch.dict("os.environ", TORCHRUN), pytest.raises(UserError, match=r"started 2 .* --devices 1 .* 1;"):
        find_rank(1, 1)

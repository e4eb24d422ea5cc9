"""The command line: the defaults of the contract, and mistakes answered in one line."""

import errno
import importlib.util
import signal
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import fuzz_arguments
from torch import nn
from torch.utils.data import DataLoader

import common.run.cli
from common.run.cli import run, task_parser
from common.run.console import UserError

TASKS = range(1, 6)
EPOCHS = {1: 50, 2: 100, 3: None, 4: None, 5: 50}
DIRECTORIES = {
    1: "task1_supervised",
    2: "task2_contrastive",
    3: "task3_visualization",
    4: "task4_biometrics",
    5: "task5_finetune",
}


@pytest.fixture
def parser():
    return task_parser(
        "About the task.", "output", epochs=5, lr=1e-3, reads=("task1", "task2"), learns_from_labels=True
    )


@pytest.fixture
def parser_of(monkeypatch, run_here):
    """A function that gives the parser which a task's script builds."""

    def parser_of(task: int):
        caught = []
        monkeypatch.setattr(common.run.cli, "run", lambda main, parser: caught.append(parser))
        run_here(f"task{task}.py")
        return caught[0]

    return parser_of


@pytest.mark.parametrize("task", TASKS)
def test_defaults_are_those_of_the_contract(parser_of, task):
    args = parser_of(task).parse_args([])
    assert (args.ratio, args.batch_size, args.num_workers, args.seed) == (1.0, 64, 4, 42)
    assert args.epochs == EPOCHS[task] and args.output_dir == Path(DIRECTORIES[task])
    assert (args.lr is None) == (task in (3, 4))
    assert (args.data_dir, args.dataset, args.fold) == (None, "auto", None)
    assert getattr(args, "label_ratio", None) == (1.0 if task in (1, 5) else None)
    if task >= 3:
        assert args.task2_checkpoint == Path("task2_contrastive/checkpoints/best.ckpt")
    if task == 3:
        assert args.task1_checkpoint == Path("task1_supervised")


@pytest.mark.parametrize("task", TASKS)
def test_one_set_of_flags_drives_every_task(parser_of, task):
    flags = "--ratio 0.5 --epochs 3 --batch-size 16 --lr 0.01 --num-workers 0 --seed 7 --fold 2 --dataset synthetic"
    args = parser_of(task).parse_args(flags.split())
    assert (args.ratio, args.epochs, args.batch_size, args.lr) == (0.5, 3, 16, 0.01)
    assert (args.num_workers, args.seed, args.fold, args.dataset) == (0, 7, 2, "synthetic")


@pytest.mark.parametrize("task", TASKS)
def test_help_has_the_docstring_and_says_where_nothing_is_trained(parser_of, task):
    text = " ".join(parser_of(task).format_help().split())
    assert f"Task {task}:" in text and f"python task{task}.py" in text
    assert ("nothing is trained" in text) == (task in (3, 4))
    assert "(default: 64)" in text


BAD_VALUES = [
    ("--ratio", ["0", "1.01", "-0.1", "nan", "inf", "x", ""]),
    ("--epochs", ["0", "-1", "1.5", "x"]),
    ("--batch-size", ["0", "1", "-64", "6.4", "x"]),
    ("--lr", ["0", "-1", "nan", "inf", "x"]),
    ("--num-workers", ["-1", "0.5", "x"]),
    ("--seed", ["-1", "4294967296", "1.5", "x"]),
    ("--fold", ["0", "6", "x"]),
    ("--dataset", ["AudioMNIST", "mnist", ""]),
    ("--label-ratio", ["0", "1.01", "nan", "x"]),
]


def one_line_of_error(capsys, code: object) -> str:
    assert code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "error" in captured.err
    return captured.err


@pytest.mark.parametrize("flag, value", [(flag, value) for flag, values in BAD_VALUES for value in values])
def test_a_wrong_value_is_named_in_one_line(parser, capsys, flag, value):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([f"{flag}={value}"])
    line = one_line_of_error(capsys, caught.value.code)
    assert flag in line and repr(value) in line


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--ratio"], "--ratio"),
        (["--fast"], "--fast"),
        (["--rat", "0.5"], "--rat"),  # no abbreviations: a later flag could change what they mean
        (["extra"], "extra"),
        (["--data-dir", "x", "--dataset", "synthetic"], "--data-dir"),
        (["--data-dir", "x", "--dataset", "audiomnist"], "--dataset"),
    ],
)
def test_other_mistakes_are_named_in_one_line(parser, capsys, flags, named):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(flags)
    assert named in one_line_of_error(capsys, caught.value.code)


@pytest.mark.parametrize(
    "flag, value",
    [("--ratio", "1"), ("--ratio", "1e-3"), ("--seed", "0"), ("--seed", "4294967295"), ("--fold", "5"), ("--lr", "9")],
)
def test_values_at_the_edge_are_taken(parser, flag, value):
    assert vars(parser.parse_args([flag, value]))[flag[2:]] == float(value)


# --- run


@pytest.fixture
def no_flags(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["task.py"])


def raising(error: BaseException):
    def main(args):
        raise error

    return main


def test_a_mistake_of_the_user_is_one_line_and_exit_code_1(parser, no_flags, capsys):
    with pytest.raises(SystemExit) as caught:
        run(raising(UserError("--data-dir x: no such folder")), parser)
    # Python itself prints a text that it is to exit with, and exits with 1.
    assert caught.value.code == f"{parser.prog}: error: --data-dir x: no such folder"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("file", [None, "plots/a\nb.png"])
def test_a_full_disk_is_one_line_and_exit_code_1(parser, no_flags, file):
    with pytest.raises(SystemExit) as caught:
        run(raising(OSError(errno.ENOSPC, "No space left on device", file)), parser)
    place = "plots/a b.png: " if file else ""
    assert caught.value.code == f"{parser.prog}: error: {place}No space left on device"


def test_a_bug_keeps_its_traceback(parser, no_flags):
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()), parser)


def test_an_interrupted_run_is_one_line_and_exit_code_130(parser, no_flags, capsys):
    with pytest.raises(SystemExit) as caught:
        run(raising(KeyboardInterrupt()), parser)
    assert caught.value.code == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_training_that_is_interrupted_also_exits_with_130(parser, no_flags, tmp_path, capsys):
    """Lightning catches Ctrl-C itself, and would exit with 1 and without a word."""
    import pytorch_lightning as pl

    from common.training import fit

    class Interrupted(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch, _):
            raise KeyboardInterrupt

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters())

    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as caught:
            loader = DataLoader(torch.zeros(4, 1))
            run(lambda args: fit(Interrupted(), loader, args, tmp_path, "test", {}), parser)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert caught.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_seed_fixes_every_source_of_random_numbers(parser, monkeypatch):
    import random

    import numpy as np

    drawn = []
    for seed in (1, 1, 2):
        monkeypatch.setattr(sys, "argv", ["task.py", "--seed", str(seed)])
        run(lambda args: drawn.append((random.random(), np.random.rand(), torch.rand(1).item())), parser)
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))


# --- every flag of every script


def test_values_that_are_right_are_taken_and_all_others_are_named_in_one_line():
    counts, wrong = fuzz_arguments.sweep(count=20, seed=0)
    assert wrong == []
    assert set(counts) == set(fuzz_arguments.FLAGS)
    assert all(0 < count["taken"] < count["values"] for count in counts.values())


def test_no_flag_is_left_out_of_that():
    for script in fuzz_arguments.SCRIPTS:
        flags = {flag for flag in fuzz_arguments.parser_of(script)._option_string_actions if flag.startswith("--")}
        assert flags <= {"--help", "--resume", "--quiet", *fuzz_arguments.FLAGS}


@pytest.mark.parametrize("flag", fuzz_arguments.FOLDERS)
def test_a_file_where_a_folder_belongs_is_named(parser, capsys, tmp_path, flag):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit) as caught:
            parser.parse_args([flag, str(path)])
        assert flag in one_line_of_error(capsys, caught.value.code)


@pytest.mark.parametrize(
    "words", [["fetch", "a\0b"], ["fetch", ""], ["show", "x" * 5000], ["delete"], ["fetch", "a", ""]]
)
def test_wrong_words_after_common_data_are_named_in_one_line(capsys, words):
    with pytest.raises(SystemExit) as caught:
        fuzz_arguments.parser_of("common/data.py").parse_args(words)
    line = one_line_of_error(capsys, caught.value.code)
    assert any(name in line for name in ("DIR", "command", "''"))


@pytest.mark.parametrize("words", [["a\nb"], [""], ["x" * 100_000], ["--fast\x1b[31m=1"], ["--ratio=1", "\udcff"]])
def test_an_unknown_argument_is_one_short_line(parser, capsys, words):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words)
    line = one_line_of_error(capsys, caught.value.code)
    assert "unrecognized" in line and len(line) < 600 and line[:-1].isprintable()


def test_tensorboard_that_is_not_installed_is_said_so(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        task_parser("test", "output", epochs=1).parse_args(["--logger", "tensorboard"])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "--logger" in told and "not installed" in told

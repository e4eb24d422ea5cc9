"""Trainings that are interrupted, killed or resumed end as an undisturbed one does."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from common.modules import ContrastiveModel, DigitClassifier

from common.data import SpokenDigits
from common.run import UserError
from common.training import fit

EPOCHS = 3


class Killed(BaseException):
    """Stands for the end of the process: nobody handles it."""


@pytest.fixture(scope="module")
def data(tone_data) -> dict[int, SpokenDigits]:
    """The clips, loaded by no worker process and by one."""
    corpus = tone_data.corpus.root
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(corpus.parent)
        return {0: tone_data, 1: SpokenDigits(corpus, batch_size=8, num_workers=1)}


@pytest.fixture(scope="module")
def train(data, make_run) -> Callable[..., dict[str, torch.Tensor]]:
    """A function that trains in a folder and returns the weights; it may be killed in an epoch."""

    def classifier() -> DigitClassifier:
        return DigitClassifier(("2d",), lr=1e-2)

    def train_in(folder: Path, make=classifier, kill_in_epoch: int | None = None, workers: int = 0, **flags) -> dict:
        run = make_run(folder, epochs=EPOCHS, **flags)
        torch.manual_seed(run.settings.seed)
        module = make()
        step = module.training_step

        def step_or_die(batch, batch_idx):
            if module.current_epoch == kill_in_epoch and batch_idx == 1:
                raise Killed
            return step(batch)

        module.training_step = step_or_die
        with run:
            history = fit(module, data[workers], run, "model", "model")
        assert [epoch["train_loss"] for epoch in history] == [float(row["train_loss"]) for row in measures(folder)]
        return module.state_dict()

    return train_in


def measures(folder: Path) -> list[dict[str, str]]:
    """The rows of history.csv, without the times."""
    with (folder / "model/history.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights after an undisturbed training."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def killed(train, tmp_path_factory) -> Path:
    """The folder of a training that was killed in its second epoch."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        train(folder, kill_in_epoch=1)
    return folder


@pytest.fixture
def stopped(killed, tmp_path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(killed, tmp_path / "stopped")


@pytest.mark.parametrize("make", [lambda: DigitClassifier(("1d", "2d"), lr=1e-2), lambda: ContrastiveModel(1e-2)])
def test_a_resumed_training_ends_with_the_same_weights(train, tmp_path, make, capsys):
    undisturbed, folder = train(tmp_path / "whole", make), tmp_path / "stopped"
    for epoch in (1, 2):
        with pytest.raises(Killed):
            train(folder, make, kill_in_epoch=epoch, resume=epoch > 1)
        torch.rand(epoch)  # a new process may have drawn any number of random numbers before
    capsys.readouterr()
    assert_same(undisturbed, train(folder, make, resume=True))
    printed = capsys.readouterr().out
    assert measures(tmp_path / "whole") == measures(folder) and len(measures(folder)) == EPOCHS
    assert "resumed after epoch 2" in printed and printed.count("epoch 3/3") == 1 and "epoch 2/3" not in printed


@pytest.mark.slow  # starts worker processes, which read ahead
def test_a_training_resumed_with_worker_processes_ends_with_the_same_weights(train, stopped, whole):
    assert_same(whole, train(stopped, workers=1, resume=True))


def test_resume_with_nothing_to_resume_says_so_and_starts(train, tmp_path, whole, capsys):
    capsys.readouterr()
    assert_same(whole, train(tmp_path / "model", resume=True))
    printed = capsys.readouterr().out
    assert f"nothing to resume in {tmp_path / 'model'}" in printed and "epoch 1/3" in printed


def test_a_full_disk_leaves_the_last_epoch_to_resume_from(train, stopped, whole, full_disk):
    before = {path: path.read_bytes() for path in (stopped / "model").glob("*.ckpt")}
    with full_disk(50_000), pytest.raises(UserError) as caught:
        train(stopped, resume=True)
    assert ".ckpt: cannot be written" in str(caught.value) and "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in (stopped / "model").iterdir() if path.suffix != ".csv"} == before
    assert_same(whole, train(stopped, resume=True))


# --- what is not resumed


@pytest.mark.parametrize("flag, value", [("lr", 0.5), ("batch_size", 4), ("seed", 7)])
def test_resuming_with_another_value_of_a_flag_is_refused_and_names_it(train, stopped, flag, value):
    before = (stopped / "model/last.ckpt").read_bytes()
    with pytest.raises(UserError, match=r"^--resume: ") as caught:
        train(stopped, resume=True, **{flag: value})
    message = str(caught.value)
    assert f"--{flag.replace('_', '-')}" in message and f"now {value}" in message and "\n" not in message
    assert (stopped / "model/last.ckpt").read_bytes() == before


DAMAGED = {
    "of another corpus": lambda state: state["run"].update(fingerprint="other"),
    "of another model": lambda state: state.update(state_dict={"a": torch.ones(2)}),
    "no checkpoint": None,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_strange_last_checkpoint_is_one_line_and_stays(train, stopped, damage):
    last = stopped / "model/last.ckpt"
    if DAMAGED[damage] is None:
        last.write_bytes(b"PK")
    else:
        state = torch.load(last, weights_only=True)
        DAMAGED[damage](state)
        torch.save(state, last)
    before = last.read_bytes()
    reason = r"is of a run with corpus other \(now tones\)" if "corpus" in damage else "cannot be (read|continued)"
    with pytest.raises(UserError, match=rf"^--resume: .*last\.ckpt {reason}; start anew without --resume$"):
        train(stopped, resume=True)
    assert last.read_bytes() == before


# --- the whole of task 1

KILLED = """
import runpy, sys
from common.modules import DigitClassifier

def pause(module):
    if module.formats == ("2d",) and module.current_epoch == 1:
        print("paused", flush=True)
        sys.stdin.read()

DigitClassifier.on_train_epoch_start = pause
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_run_that_is_killed_and_then_interrupted_ends_like_an_undisturbed_one(
    repository, offline, tone_data, tmp_path, make_run, run_here, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    flags = ["--data-dir", str(tone_data.corpus.root), "--batch-size", "8", "--epochs", str(EPOCHS)]
    folder, script = Path("task1_supervised"), repository / "task1.py"

    command = [sys.executable, "-c", KILLED, str(script), *flags, "--num-workers", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with Path("errors").open("w") as errors:
        process = subprocess.Popen(command, env=offline | {"PYTHONPATH": str(repository)}, stderr=errors, **pipes)
    try:
        assert any(line == "paused\n" for line in process.stdout), Path("errors").read_text()
        with pytest.raises(UserError, match="another run is writing there"):
            make_run(folder).__enter__()
    finally:
        process.kill()
        process.wait()
    assert not (folder / "metrics.json").exists()

    # A worker process may outlive the killed one by seconds; the folder is free all the same.
    def press_ctrl_c(module: DigitClassifier) -> None:
        if module.current_epoch == 2:
            signal.raise_signal(signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
    try:
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as caught:
            patch.setattr(DigitClassifier, "on_train_epoch_start", press_ctrl_c)
            run_here("task1.py", *flags, "--resume")
    finally:
        signal.signal(signal.SIGINT, handler)
    printed, errors = capsys.readouterr()
    assert "supervised 1d: trained already" in printed and "supervised 2d: resumed after epoch 1" in printed
    assert caught.value.code == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1] == "task1.py: interrupted; to continue, add --resume"
    assert {path.suffix for path in folder.rglob("*.*")} == {".ckpt", ".csv", ".png"}, "pictures of the 1D model"

    run_here("task1.py", *flags, "--resume")
    assert "supervised 2d: resumed after epoch 2" in capsys.readouterr().out
    run_here("task1.py", *flags, "--output-dir", "undisturbed")
    metrics, expected = (json.loads(Path(path, "metrics.json").read_text()) for path in (folder, "undisturbed"))
    for result in (metrics, expected):
        del result["run"]["seconds"], result["run"]["arguments"]["output_dir"]
    assert metrics == expected

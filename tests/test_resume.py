"""Trainings that are interrupted or resumed end as an undisturbed one does."""

import copy
import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.augmentation import Augmentation
from common.data import SpokenDigits
from common.models import ContrastiveModel, DigitClassifier
from common.run import UserError
from common.training import fit

EPOCHS = 3
MAKE = {
    "digits": lambda: DigitClassifier(("1d", "2d"), Augmentation(rooms=True), lr=1e-2),
    "contrastive": lambda: ContrastiveModel(Augmentation(), lr=1e-2),
}


class Killed(BaseException):
    """Stands for the end of the process: nobody handles it."""


@pytest.fixture(scope="module")
def data(tone_data) -> dict[int, SpokenDigits]:
    """The clips, loaded by no worker process and by one."""
    twin = copy.copy(tone_data)
    twin.num_workers = 1
    return {0: tone_data, 1: twin}


@pytest.fixture(scope="module")
def train(data, make_run) -> Callable[..., dict[str, torch.Tensor]]:
    """A function that trains in a folder and returns the weights; it may be killed in an epoch."""

    def train_in(
        folder: Path, model: str = "contrastive", kill_in_epoch: int | None = None, workers: int = 0, **flags
    ) -> dict[str, torch.Tensor]:
        with make_run(folder, epochs=EPOCHS, **flags) as run:
            torch.manual_seed(run.settings.seed)
            module = MAKE[model]()
            step = module.training_step

            def step_or_die(batch, batch_idx):
                if module.current_epoch == kill_in_epoch and batch_idx == 1:
                    raise Killed
                return step(batch)

            module.training_step = step_or_die
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
def whole(train, tmp_path_factory) -> Path:
    """The folder of an undisturbed training, with its weights."""
    folder = tmp_path_factory.mktemp("whole")
    torch.save(train(folder), folder / "weights")
    return folder


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


@pytest.mark.parametrize("model", MAKE)
def test_a_resumed_training_ends_with_the_same_weights_and_history(train, tmp_path, model, capsys):
    undisturbed, folder = train(tmp_path / "whole", model), tmp_path / "stopped"
    for epoch in (1, 2):
        with pytest.raises(Killed):
            train(folder, model, kill_in_epoch=epoch, resume=epoch > 1)
        torch.rand(epoch)  # a new process may have drawn any number of random numbers before
    capsys.readouterr()
    assert_same(undisturbed, train(folder, model, resume=True))
    printed = capsys.readouterr().out
    assert measures(tmp_path / "whole") == measures(folder) and len(measures(folder)) == EPOCHS
    assert "resumed after epoch 2" in printed and printed.count("epoch 3/3") == 1 and "epoch 2/3" not in printed


@pytest.mark.slow  # starts a worker process, which reads ahead
def test_a_training_resumed_with_a_worker_process_ends_with_the_same_weights(train, stopped, whole):
    assert_same(torch.load(whole / "weights"), train(stopped, workers=1, resume=True))


def test_a_full_disk_leaves_the_last_epoch_to_resume_from(train, stopped, whole, full_disk):
    before = {path: path.read_bytes() for path in (stopped / "model").glob("*.ckpt")}
    with full_disk(50_000), pytest.raises(UserError) as caught:
        train(stopped, resume=True)
    assert ".ckpt: cannot be written" in str(caught.value) and "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in (stopped / "model").iterdir() if path.suffix != ".csv"} == before
    assert_same(torch.load(whole / "weights"), train(stopped, resume=True))
    assert measures(whole) == measures(stopped)


# --- what is not resumed


def test_resuming_with_another_value_of_a_flag_is_refused_and_names_it(train, stopped):
    before = (stopped / "model/last.ckpt").read_bytes()
    with pytest.raises(UserError, match=r"^--resume: .*last\.ckpt is of a run with --batch-size 8 \(now 4\); start"):
        train(stopped, resume=True, batch_size=4)
    assert (stopped / "model/last.ckpt").read_bytes() == before


@pytest.mark.parametrize("damage", ["of another corpus", "no checkpoint"])
def test_a_strange_last_checkpoint_is_one_line_and_stays(train, stopped, damage):
    last = stopped / "model/last.ckpt"
    if damage == "no checkpoint":
        last.write_bytes(b"PK")
    else:
        state = torch.load(last, weights_only=True)
        state["run"]["fingerprint"] = "other"
        torch.save(state, last)
    before = last.read_bytes()
    reason = r"is of a run with corpus other \(now tones\)" if "corpus" in damage else "cannot be read"
    with pytest.raises(UserError, match=rf"^--resume: .*last\.ckpt {reason}; start anew without --resume$"):
        train(stopped, resume=True)
    assert last.read_bytes() == before


# --- the whole of task 1


@pytest.mark.slow
def test_a_task_that_is_interrupted_ends_like_an_undisturbed_one(tone_data, tmp_path, run_here, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.data.MIN_STEPS", 6)
    flags = ["--data-dir", str(tone_data.corpus.root), "--batch-size", "8", "--epochs", "2", "--num-workers", "0"]
    folder = Path("task1_supervised")

    def press_ctrl_c(module: DigitClassifier) -> None:
        if "2d" in module.network.embedder.encoders and module.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
    try:
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as caught:
            patch.setattr(DigitClassifier, "on_train_epoch_start", press_ctrl_c)
            run_here("task1.py", *flags)
    finally:
        signal.signal(signal.SIGINT, handler)
    errors = capsys.readouterr().err
    assert caught.value.code == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1] == "task1.py: interrupted; to continue, add --resume"
    assert {path.suffix for path in folder.rglob("*.*")} == {".ckpt", ".csv"}

    run_here("task1.py", *flags, "--resume")
    printed = capsys.readouterr().out
    assert "supervised 1d: trained already" in printed and "supervised 2d: resumed after epoch 1" in printed
    run_here("task1.py", *flags, "--output-dir", "undisturbed")
    metrics, expected = (json.loads(Path(path, "metrics.json").read_text()) for path in (folder, "undisturbed"))
    for result in (metrics, expected):
        del result["run"]["seconds"], result["run"]["arguments"]["output_dir"]
    assert metrics == expected

"""Trainings that are interrupted or resumed end as an undisturbed one does."""

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.augmentation import Augmentation
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
def train(tone_data, make_run) -> Callable[..., dict[str, torch.Tensor]]:
    """A function that trains in a folder and returns the weights; it may be killed in an epoch."""

    def train_in(
        folder: Path, model: str = "contrastive", kill_in_epoch: int | None = None, workers: int = 0, **flags
    ) -> dict[str, torch.Tensor]:
        data = copy.copy(tone_data)
        data.num_workers = workers
        with make_run(folder, epochs=EPOCHS, **flags) as run:
            torch.manual_seed(run.settings.seed)
            module = MAKE[model]()
            step = module.training_step

            def step_or_die(batch, batch_idx):
                if module.current_epoch == kill_in_epoch and batch_idx == 1:
                    raise Killed
                return step(batch)

            module.training_step = step_or_die
            history = fit(module, data, run, "model", "model")
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


@pytest.fixture
def stopped(train, tmp_path) -> Path:
    """The folder of a training that was killed in its second epoch."""
    with pytest.raises(Killed):
        train(tmp_path / "stopped", kill_in_epoch=1)
    return tmp_path / "stopped"


@pytest.mark.parametrize("model, workers", [("digits", 0), ("contrastive", 0), ("contrastive", 1)])
def test_a_resumed_training_ends_with_the_same_weights_and_history(train, tmp_path, model, workers, capsys):
    """A worker process reads ahead, and the undisturbed training has none."""
    undisturbed, folder = train(tmp_path / "whole", model), tmp_path / "stopped"
    for epoch in (1, 2):
        with pytest.raises(Killed):
            train(folder, model, kill_in_epoch=epoch, workers=workers, resume=epoch > 1)
        torch.rand(epoch)  # a new process may have drawn any number of random numbers before
    capsys.readouterr()
    assert_same(undisturbed, train(folder, model, workers=workers, resume=True))
    printed = capsys.readouterr().out
    assert measures(tmp_path / "whole") == measures(folder) and len(measures(folder)) == EPOCHS
    assert "resumed after epoch 2" in printed and printed.count("epoch 3/3") == 1 and "epoch 2/3" not in printed


def test_a_full_disk_leaves_the_last_epoch_to_resume_from(train, stopped, tmp_path, full_disk):
    before = {path: path.read_bytes() for path in (stopped / "model").glob("*.ckpt")}
    with full_disk(50_000), pytest.raises(UserError) as caught:
        train(stopped, resume=True)
    assert ".ckpt: cannot be written" in str(caught.value) and "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in (stopped / "model").iterdir() if path.suffix != ".csv"} == before
    assert_same(train(tmp_path / "whole"), train(stopped, resume=True))


def test_a_last_checkpoint_of_another_run_or_none_is_one_line_and_stays(train, stopped):
    last = stopped / "model/last.ckpt"
    before = last.read_bytes()
    with pytest.raises(UserError, match=r"^--resume: .*last\.ckpt is of a run with --batch-size 8 \(now 4\); start"):
        train(stopped, resume=True, batch_size=4)
    assert last.read_bytes() == before
    last.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"^--resume: .*last\.ckpt cannot be read; start anew without --resume$"):
        train(stopped, resume=True)
    assert last.read_bytes() == b"PK"


@pytest.mark.slow
def test_a_task_that_is_interrupted_ends_like_an_undisturbed_one(tone_data, tmp_path, run_here, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.data.MIN_STEPS", 6)
    monkeypatch.setattr("common.conditions.conditions", lambda _: {})
    for after in ("plots.draw_classifier", "plots.draw_conditions", "plots.learned.draw_learned", "saliency.explain"):
        monkeypatch.setattr(f"common.{after}", lambda *_: None)  # takes longer than the training
    flags = ["--data-dir", str(tone_data.corpus.root), "--batch-size", "8", "--epochs", "2", "--num-workers", "0"]
    folder = Path("task1_supervised")

    def interrupt(module: DigitClassifier) -> None:
        if "2d" in module.network.embedder.encoders and module.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(DigitClassifier, "on_train_epoch_start", interrupt)
        run_here("task1.py", *flags)
    assert capsys.readouterr().err.endswith("\ntask1.py: interrupted; to continue, add --resume\n")
    assert {path.suffix for path in folder.rglob("*.*")} == {".ckpt", ".csv"}

    run_here("task1.py", *flags, "--resume")
    printed = capsys.readouterr().out
    assert "supervised 1d: trained already" in printed and "supervised 2d: resumed after epoch 1" in printed
    run_here("task1.py", *flags, "--output-dir", "undisturbed")
    metrics, expected = (json.loads(Path(path, "metrics.json").read_text()) for path in (folder, "undisturbed"))
    for result in (metrics, expected):
        del result["run"]["seconds"], result["run"]["arguments"]["output_dir"]
    assert metrics == expected

"""``fit`` trains as many epochs as it is asked for, keeps the best of them, and repeats them by their seed."""

from collections.abc import Callable

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from common.run import UserError
from common.training import PATIENCE, fit


class Scripted(pl.LightningModule):
    """Its weight is the number of the epoch, and its validation losses are given."""

    def __init__(self, losses: list[float], train_loss: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.losses, self.train_loss, self.epochs = losses, train_loss, 0

    def training_step(self, batch, _):
        with torch.no_grad():
            self.weight.fill_(self.current_epoch)
        self.epochs = self.current_epoch + 1
        loss = (self.weight * 0).sum() + self.train_loss
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=2)
        return loss

    def validation_step(self, batch, _):
        self.log("val_loss", self.losses[min(self.current_epoch, len(self.losses) - 1)], batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-9)


class Points:
    device = torch.device("cpu")

    def train_dataloader(self, epoch):
        return DataLoader(torch.zeros(2, 1))

    def val_dataloader(self):
        return DataLoader(torch.zeros(1, 1))


@pytest.fixture
def train(make_run) -> Callable[..., Scripted]:
    """A function that trains on given validation losses."""

    def run(losses, epochs, folder, train_loss=0.0, **flags) -> Scripted:
        module = Scripted(losses, train_loss)
        module.history = fit(module, Points(), make_run(folder, epochs=epochs, **flags), "checkpoints", "scripted")
        return module

    return run


def test_the_epoch_with_the_lowest_validation_loss_is_kept_and_each_is_recorded_and_printed(train, tmp_path, capsys):
    module = train([3.0, 2.0, 0.5, 1.0, 0.6], 5, tmp_path)
    assert module.epochs == 5 and module.weight.item() == 2
    checkpoint = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["weight"].item() == 2 and checkpoint["run"]["fingerprint"] == "tones"
    assert [(epoch["epoch"], epoch["val_loss"]) for epoch in module.history[1:3]] == [(2, 2.0), (3, 0.5)]
    lines = (tmp_path / "checkpoints/history.csv").read_text().splitlines()
    assert lines[0] == "epoch,train_loss,val_loss,lr,seconds" and lines[2].startswith("2,0.0,2.0,") and len(lines) == 6
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5 and printed[1].startswith("scripted  epoch 2/5  train_loss 0.0000  val_loss 2.0000  ")
    again = train([5.0], 1, tmp_path)
    assert again.weight.item() == 0, "the checkpoint of an earlier training is replaced, although it is better"
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"best.ckpt", "history.csv", "last.ckpt"}


def test_training_stops_ten_epochs_after_the_best_and_is_not_continued(train, tmp_path, capsys):
    assert PATIENCE == 10
    losses = [2.0] * 20 + [1.0] + [1.5] * 40
    module = train(losses, 40, tmp_path)
    assert module.epochs == 31 and module.weight.item() == 20
    capsys.readouterr()
    resumed = train(losses, 40, tmp_path, resume=True)
    assert resumed.epochs == 0 and resumed.weight.item() == 20 and resumed.history == module.history
    assert capsys.readouterr().out == "scripted: trained already\n"


def test_no_training_stops_in_its_first_half(train, tmp_path):
    """There the learning rate is high: losses [0.5, 2, 2, ...] would otherwise stop it after eleven epochs."""
    module = train([0.5] + [2.0] * 29, 30, tmp_path)
    assert module.epochs == 24, "the fifteenth epoch is the first to count"


@pytest.mark.parametrize("losses, train_loss", [([1.0, float("nan")], 0.0), ([1.0], float("inf"))])
def test_a_loss_that_is_not_finite_is_one_line_and_is_not_saved(train, tmp_path, losses, train_loss):
    epoch = 1 if train_loss else 2
    with pytest.raises(UserError, match=f"^scripted: the loss is not finite in epoch {epoch}; --lr 0.001 is probably"):
        train(losses, 3, tmp_path, train_loss)
    last = tmp_path / "checkpoints/last.ckpt"
    assert not last.exists() if train_loss else torch.load(last, weights_only=True)["epoch"] == 0


def test_an_epoch_draws_the_same_whatever_was_drawn_before_and_each_epoch_anew(tone_data, tmp_path, make_run):
    def first_draws(folder: str, seed: int, excess: int) -> list:
        drawn = {}

        class Drawing(Scripted):
            def training_step(self, batch, _):
                drawn.setdefault(self.current_epoch, (torch.rand(1).item(), batch.waveform.numpy().tobytes()))
                torch.rand(excess)
                return (self.weight * 0).sum()

        fit(Drawing([1.0]), tone_data, make_run(tmp_path, epochs=2, seed=seed), folder, folder)
        return list(drawn.values())

    first, again, other = first_draws("first", 1, 0), first_draws("again", 1, 7), first_draws("other", 2, 0)
    assert first == again
    assert len({number for number, _ in first + other}) == 4
    assert first[0][1] != first[1][1], "the order is new"

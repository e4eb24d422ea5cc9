"""The one place that trains: as many epochs as asked for, the best of them kept, and nobody else's weights moved."""

import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from common.data import SpokenDigits
from common.evaluate import predict_digits, score_digits
from common.modules import LABEL_SMOOTHING, ContrastiveModel, DigitClassifier
from common.run.console import set_quiet
from common.training import PATIENCE, fit


class Scripted(pl.LightningModule):
    """Its weight is the number of the epoch, and its validation losses and accuracies are given."""

    def __init__(self, losses):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.losses, self.epochs = losses, 0

    def training_step(self, batch, _):
        with torch.no_grad():
            self.weight.fill_(self.current_epoch)
        self.epochs = self.current_epoch + 1
        return (self.weight * 0).sum()

    def validation_step(self, batch, _):
        loss = self.losses[min(self.current_epoch, len(self.losses) - 1)]
        self.log_dict({"val_loss": torch.tensor(loss), "val_acc": torch.tensor(1.0)})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Points(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(torch.zeros(2, 1))

    def val_dataloader(self):
        return DataLoader(torch.zeros(1, 1))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture
def train(make_args):
    """A function that trains on validation losses that are laid down beforehand."""

    def run(losses, epochs, folder, **flags) -> Scripted:
        module, args = Scripted(losses), make_args(epochs=epochs, **flags)
        module.history = fit(module, Points(), args, folder / "checkpoints", "scripted", {"corpus": "points"})
        return module

    return run


def test_the_epoch_with_the_lowest_validation_loss_is_kept(train, tmp_path, capsys):
    module = train([3.0, 2.0, 0.5, 1.0, 0.6], 5, tmp_path)
    assert module.epochs == 5 and module.weight.item() == 2
    checkpoint = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["weight"].item() == 2
    assert checkpoint["model"] == "scripted" and checkpoint["run"] == {"corpus": "points"}
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.ckpt",
        "history.csv",
        "last.ckpt",
    ]
    assert capsys.readouterr().out.count("epoch ") == 5, "a line for each epoch"


@pytest.mark.parametrize("epochs", [1, 4])
def test_as_many_epochs_are_trained_as_are_asked_for(train, tmp_path, epochs):
    assert train([9.0, 8.0, 7.0, 6.0, 5.0], epochs, tmp_path).epochs == epochs


def test_training_stops_ten_epochs_after_the_best(train, tmp_path):
    assert PATIENCE == 10
    module = train([2.0] * 20 + [1.0] + [1.5] * 40, 40, tmp_path)
    assert module.epochs == 31 and module.weight.item() == 20


def test_no_training_stops_in_its_first_half(train, tmp_path):
    """There the learning rate is high: losses [0.5, 2, 2, ...] would otherwise stop it after eleven epochs."""
    module = train([0.5] + [2.0] * 29, 30, tmp_path)
    assert module.epochs == 24, "the fifteenth epoch is the first to count"


def test_an_earlier_runs_checkpoint_is_replaced(train, tmp_path):
    train([1.0, 0.0], 2, tmp_path)
    module = train([5.0], 1, tmp_path)
    assert module.weight.item() == 0
    assert files(tmp_path) == ["best.ckpt", "history.csv", "last.ckpt"]


# --- with the real models


@pytest.fixture(scope="module")
def tones(tmp_path_factory, write_tones, make_args) -> SpokenDigits:
    folder = tmp_path_factory.mktemp("corpus")
    write_tones(folder / "tones", ["01", "02", "03"], digits=[0, 1], repetitions=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return SpokenDigits(make_args(data_dir=folder / "tones"))


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(before: dict, module: nn.Module) -> list[bool]:
    return [torch.equal(before[key], value.cpu()) for key, value in module.state_dict().items()]


def test_fine_tuning_one_copy_leaves_the_pretrained_encoders_and_the_next_copy_alone(tones, tmp_path, make_args):
    torch.manual_seed(0)
    pretrained = ContrastiveModel().embedder
    before = weights(pretrained)
    for mode in ("frozen", "finetuned", "finetuned"):
        model = DigitClassifier(("1d", "2d"), lr=1e-2, frozen=mode == "frozen")
        model.embedder.copy_weights(pretrained)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert len(trained) == len(list((model.head if mode == "frozen" else model).parameters()))
        assert all(same(before, model.embedder)), "each copy starts from the pretrained weights"
        head = weights(model.head)
        assert model.train().embedder.training == (mode != "frozen")
        fit(model, tones, make_args(epochs=2), tmp_path / mode, mode, {})
        assert all(same(before, pretrained)), "the pretrained encoders moved"
        assert not any(same(head, model.head)), "the head is trained"
        assert all(same(before, model.embedder)) == (mode == "frozen"), "BatchNorm statistics included"


def test_scores_are_those_of_the_clips_counted_one_by_one(tones, tmp_path, make_args):
    torch.manual_seed(0)
    model = DigitClassifier(("2d",), lr=1e-2)
    fit(model, tones, make_args(epochs=1), tmp_path, "test", {})
    val, test = (predict_digits(model, tones.loader(name)) for name in ("val", "test"))
    scores = score_digits(val, "val") | score_digits(test, "test")
    model.eval()
    for name, clips in (("val", 8), ("test", 20)):
        logits, digits = [], []
        with torch.no_grad():
            for batch in tones.loader(name):
                logits.append(model.cpu()(batch.inputs))
                digits.append(batch.digit)
        logits, digits = torch.cat(logits), torch.cat(digits)
        assert scores[f"{name}_clips"] == len(digits) == clips
        assert scores[f"{name}_acc"] == (logits.argmax(dim=1) == digits).sum().item() / clips
    assert scores["test_loss"] == pytest.approx(nn.functional.cross_entropy(logits, digits).item(), abs=1e-4)


def test_an_epochs_means_count_each_clip_once_also_in_a_small_last_batch(tones, tmp_path, make_args):
    torch.manual_seed(0)
    model, data = DigitClassifier(("2d",), lr=1e-2), copy.copy(tones)
    data.args = make_args(batch_size=3)  # of 8 validation clips
    (epoch,) = fit(model, data, make_args(epochs=1), tmp_path, "test", {})
    (batch,) = tones.loader("val")
    assert len(batch.digit) == 8
    with torch.no_grad():
        logits = model.cpu().eval()(batch.inputs)
    loss = nn.functional.cross_entropy(logits, batch.digit, label_smoothing=LABEL_SMOOTHING)
    assert epoch["val_loss"] == pytest.approx(loss.item(), abs=1e-4)
    assert epoch["val_acc"] == pytest.approx((logits.argmax(dim=1) == batch.digit).float().mean().item())


def test_an_epoch_draws_the_same_whatever_was_drawn_before_and_each_epoch_anew(tones, tmp_path, make_args):
    def first_draws(folder: str, seed: int, excess: int) -> list:
        drawn = {}

        class Drawing(Scripted):
            def training_step(self, batch, _):
                drawn.setdefault(self.current_epoch, (torch.rand(1).item(), batch.inputs.numpy().tobytes()))
                torch.rand(excess)
                return (self.weight * 0).sum()

        fit(Drawing([1.0]), tones, make_args(epochs=2, seed=seed), tmp_path / folder, folder, {})
        return list(drawn.values())

    first, again, other = first_draws("first", 1, 0), first_draws("again", 1, 7), first_draws("other", 2, 0)
    assert first == again
    assert len({number for number, _ in first + other}) == 4
    assert first[0][1] != first[1][1], "the order is new"


def test_each_epoch_is_measured_and_told(train, tmp_path, capsys):
    module = train([2.0, 1.0], 2, tmp_path)
    assert [epoch["val_loss"] for epoch in module.history] == [2.0, 1.0]
    assert [epoch["epoch"] for epoch in module.history] == [1, 2]
    lines = (tmp_path / "checkpoints/history.csv").read_text().splitlines()
    assert lines[0] == "epoch,val_acc,val_loss,lr,seconds" and lines[2].startswith("2,1.0,1.0,0.0,")
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and told[1].startswith("scripted  epoch 2/2  val_acc 1.0000  val_loss 1.0000")


def test_nothing_is_told_if_quiet_is_asked_for(train, tmp_path, capsys):
    set_quiet(True)
    try:
        train([1.0], 1, tmp_path)
    finally:
        set_quiet(False)
    assert capsys.readouterr() == ("", "")


def test_tensorboard_gets_the_same_numbers(train, tmp_path):
    pytest.importorskip("tensorboard")
    train([2.0, 1.0], 2, tmp_path, logger="tensorboard")
    assert list((tmp_path / "checkpoints/tensorboard").glob("events.out.tfevents.*"))

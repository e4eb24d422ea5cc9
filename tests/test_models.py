"""The modules train in any Lightning Trainer, learn, leave frozen encoders alone, and augment in training only."""

import math

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from common import augmentation
from common.augmentation import KINDS, Augmentation
from common.encoders import Embedder
from common.models import ContrastiveModel, DigitClassifier, FrozenDigitClassifier, one_cycle

SAMPLES = 4000  # shorter than the clips of the tasks, to be fast
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning", "ignore:.*LeafSpec")


def noise(clips: int = 8) -> Tensor:
    return torch.randint(-8000, 8000, (clips, SAMPLES), dtype=torch.int16)


def pairs(inputs: Tensor, digit: Tensor | None = None, batch_size: int = 4, shuffle: bool = False) -> DataLoader:
    """Batches of (waveform or embedding, digit) alone, as anybody's loader has them."""
    digit = torch.arange(len(inputs)) if digit is None else digit
    return DataLoader(TensorDataset(inputs, digit), batch_size, shuffle)


def trainer(epochs: int = 1) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, **quiet)


def moved(before: dict[str, Tensor], module: nn.Module) -> dict[str, bool]:
    return {key: not torch.equal(before[key], value) for key, value in module.state_dict().items()}


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


# --- in Lightning


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
@pytest.mark.parametrize("make", [lambda: DigitClassifier(("1d",)), ContrastiveModel], ids=["digits", "contrastive"])
def test_an_ordinary_trainer_and_an_ordinary_loader_are_enough(make, dtype):
    model, wave, plain = make(), noise(), trainer()
    loader = pairs(wave if dtype == torch.int16 else wave / 32768)
    before = weights(model)
    plain.fit(model, loader, loader)
    measures = {"loss", "acc"} if isinstance(model, DigitClassifier) else {"loss"}
    assert set(plain.callback_metrics) == {f"{stage}_{measure}" for stage in ("train", "val") for measure in measures}
    assert all(torch.isfinite(value) for value in plain.callback_metrics.values())
    assert all(has for key, has in moved(before, model).items() if key.endswith("weight"))


def test_epoch_means_count_each_clip_once_also_in_a_small_last_batch():
    loader, plain = pairs(noise(), batch_size=3), trainer()
    model = DigitClassifier(("2d",), lr=1e-12)  # it stays as it is, but for the BatchNorm statistics
    losses, hits = 0.0, 0.0
    for wave, digit in loader:
        logits = model(wave)
        losses += F.cross_entropy(logits, digit).item() * len(digit)
        hits += (logits.argmax(dim=1) == digit).sum().item()
    plain.fit(model, loader, loader)
    assert plain.callback_metrics["train_loss"].item() == pytest.approx(losses / 8, abs=1e-5)
    assert plain.callback_metrics["train_acc"].item() == pytest.approx(hits / 8)
    wave, digit = loader.dataset.tensors
    logits = model.eval()(wave)
    assert plain.callback_metrics["val_loss"].item() == pytest.approx(F.cross_entropy(logits, digit).item(), abs=1e-5)
    assert plain.callback_metrics["val_acc"].item() == pytest.approx((logits.argmax(dim=1) == digit).float().mean())
    assert torch.equal(torch.cat(trainer().predict(model, loader)).argmax(dim=1), logits.argmax(dim=1))


@pytest.mark.parametrize("size, counted", [(3, 6), (16, 8)])
def test_contrastive_validation_leaves_out_a_smaller_last_batch(size, counted):
    """It has fewer negatives, so that its loss is lower for no merit."""
    loader, model = pairs(noise(), batch_size=size), ContrastiveModel()
    (measures,) = trainer().validate(model, loader, verbose=False)
    waves = loader.dataset.tensors[0][:counted].split(size)
    model.eval()
    means = [model.loss(*(model.projections[k](z) for k, z in model(wave).items())).item() for wave in waves]
    assert measures["val_loss"] == pytest.approx(sum(means) / len(means), abs=1e-5)


def test_the_given_loss_optimizer_and_learning_rates_are_used():
    def seven(logits: Tensor, digit: Tensor) -> Tensor:
        return 7 + 0 * logits.sum()

    model, plain = DigitClassifier(("1d",), lr=0.2, encoder_lr=0.1, loss=seven, optimizer=torch.optim.SGD), trainer()
    plain.fit(model, pairs(noise()))
    assert plain.callback_metrics["train_loss"] == 7
    (optimizer,) = plain.optimizers
    assert type(optimizer) is torch.optim.SGD
    rates = {id(p): group["max_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert all(rates[id(p)] == 0.2 for p in model.network.head.parameters())
    assert all(rates[id(p)] == pytest.approx(0.02) for p in model.network.embedder.parameters())


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 100])
def test_the_learning_rate_rises_and_falls_over_any_number_of_steps(steps):
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), lr=0.01)
    schedule = one_cycle(optimizer, steps)["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert 0.005 < max(rates) <= 0.01
    if steps == 100:
        assert rates[0] < 0.001 and rates[19] == pytest.approx(0.01) and rates[-1] < 1e-6


# --- what is learned


def tones(clips: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ten pitches for ten digits, with random phases, levels and noise: [10 clips, N], [10 clips]."""
    generator = torch.Generator().manual_seed(seed)
    digit = torch.arange(10).repeat(clips)
    phase, level = torch.rand(2, 10 * clips, 1, generator=generator)
    t = torch.arange(SAMPLES) / 16_000
    wave = torch.sin(2 * math.pi * (200 * 1.35 ** digit.unsqueeze(1) * t + phase)) * (0.1 + 0.5 * level)
    return wave + 0.05 * torch.randn(wave.shape, generator=generator), digit


@pytest.mark.parametrize("name", ["1d", "2d"])
def test_a_classifier_learns_pitches_on_clips_it_has_not_seen(name):
    torch.manual_seed(0)
    model, plain = DigitClassifier((name,), lr=1e-2), trainer(epochs=8)
    plain.fit(model, pairs(*tones(8, seed=1), batch_size=20, shuffle=True))
    (measures,) = plain.validate(model, pairs(*tones(8, seed=2)), verbose=False)
    assert measures["val_acc"] > 0.8


def test_contrastive_training_brings_the_formats_of_a_clip_together():
    torch.manual_seed(0)
    (wave, _), (new_wave, _) = tones(1, seed=1), tones(1, seed=2)
    model, plain = ContrastiveModel(), trainer(epochs=20)
    plain.fit(model, pairs(wave, batch_size=10))
    assert plain.callback_metrics["train_loss"] < 0.5 * math.log(10), "log(10) is chance"
    a, b = (F.normalize(model.projections[name](z), dim=1) for name, z in model.eval()(new_wave).items())
    assert ((a @ b.T).argmax(dim=1) == torch.arange(10)).sum() > 5, "also of new clips, where chance is 1 of 10"


# --- what is frozen


def test_a_frozen_encoder_is_bit_identical_after_training():
    """With its BatchNorm statistics, also where somebody embeds clips while the classifier is in training mode."""
    model = FrozenDigitClassifier(("1d",), 1e-2, F.cross_entropy, torch.optim.AdamW).train()
    before, head = weights(model.network.embedder), weights(model.network.head)
    z = model.network.embedder(noise())["1d"].detach()
    loader = pairs(z)
    trainer(epochs=2).fit(model, loader, loader)
    assert any("running_mean" in key for key in before)
    assert not any(moved(before, model.network.embedder).values())
    assert all(moved(head, model.network.head).values())


# --- what the encoders see


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [lambda augment: DigitClassifier(("1d", "2d"), augment), ContrastiveModel])
def test_training_augments_what_it_should_and_evaluation_nothing(make, kind):
    model, wave, seen = make(Augmentation(kind)), noise(), {}
    embedder: Embedder = getattr(model, "network", model).embedder
    for name, encoder in embedder.encoders.items():
        encoder.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
    clean = embedder.views(wave, Augmentation("none"))
    changed = {"1d": kind in ("waveform", "both"), "2d": kind != "none"}
    model.training_step((wave, torch.arange(8)))
    assert {name: not torch.equal(seen[name], view) for name, view in clean.items()} == changed
    for evaluate in (lambda: model.validation_step((wave, torch.arange(8))), lambda: model(wave)):
        seen.clear()
        evaluate()
        assert all(torch.equal(seen[name], view) for name, view in clean.items())


def test_formats_share_the_speed_and_nothing_else(monkeypatch):
    """Matching a clip with itself at another speed would teach encoders to ignore what voices differ in."""
    calls = []

    def spy(wave: Tensor, rate: Tensor, shift: Tensor) -> Tensor:
        calls.append((rate.clone(), shift.clone()))
        return wave

    monkeypatch.setattr(augmentation, "warp", spy)
    Embedder().views(noise(), Augmentation())
    (rate_1d, shift_1d), (rate_2d, shift_2d) = calls
    assert torch.equal(rate_1d, rate_2d) and len(set(rate_1d.flatten().tolist())) == 8
    assert not torch.equal(shift_1d, shift_2d)

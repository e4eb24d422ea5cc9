"""The two modules train in any Lightning Trainer, learn, freeze what is frozen, and augment in training only."""

import math

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from common.modules import ContrastiveModel, DigitClassifier, one_cycle, smoothed_cross_entropy
from common.networks import Embedder
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from common import networks
from common.augmentation import fixed_random_numbers
from common.data import EmbeddedBatch

SAMPLES = 4000  # shorter than the clips of the tasks, to be fast
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning", "ignore:.*LeafSpec")


def noise(clips: int = 8) -> Tensor:
    return torch.randint(-8000, 8000, (clips, SAMPLES), dtype=torch.int16)


def batches(waveform: Tensor, digit: Tensor | None = None, batch_size: int = 4, shuffle: bool = False) -> DataLoader:
    digit = torch.arange(len(waveform)) if digit is None else digit
    return DataLoader(TensorDataset(waveform, digit, torch.zeros_like(digit)), batch_size, shuffle)


def trainer(epochs: int = 1) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, **quiet)


def moved(before: dict[str, Tensor], module: torch.nn.Module) -> dict[str, bool]:
    return {key: not torch.equal(before[key], value) for key, value in module.state_dict().items()}


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


# --- in Lightning


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
@pytest.mark.parametrize("make", [lambda: DigitClassifier(("1d",)), ContrastiveModel], ids=["digits", "contrastive"])
def test_an_ordinary_trainer_and_an_ordinary_loader_are_enough(make, dtype, validated):
    model, wave, plain = make(), noise(), trainer()
    loader = batches(wave if dtype == torch.int16 else wave / 32768)
    before = weights(model)
    plain.fit(model, loader, loader if validated else None)
    measures = {"loss", "acc"} if isinstance(model, DigitClassifier) else {"loss"}
    stages = ("train", "val") if validated else ("train",)
    assert set(plain.callback_metrics) == {f"{stage}_{measure}" for stage in stages for measure in measures}
    assert all(torch.isfinite(value) for value in plain.callback_metrics.values())
    assert all(has for key, has in moved(before, model).items() if key.endswith("weight"))


def test_epoch_means_count_each_clip_once_also_in_a_small_last_batch():
    loader, plain = batches(noise(), batch_size=3), trainer()
    model = DigitClassifier(("2d",), lr=1e-12, augment="none")  # it stays as it is, but for the BatchNorm statistics
    losses, hits = 0.0, 0.0
    for wave, digit, _ in loader:
        logits = model(wave)
        losses += smoothed_cross_entropy(logits, digit).item() * len(digit)
        hits += (logits.argmax(dim=1) == digit).sum().item()
    plain.fit(model, loader, loader)
    assert plain.callback_metrics["train_loss"].item() == pytest.approx(losses / 8, abs=1e-5)
    assert plain.callback_metrics["train_acc"].item() == pytest.approx(hits / 8)
    wave, digit, _ = loader.dataset.tensors
    logits = model.eval()(wave)
    loss = F.cross_entropy(logits, digit, label_smoothing=0.1)
    assert plain.callback_metrics["val_loss"].item() == pytest.approx(loss.item(), abs=1e-5)
    assert plain.callback_metrics["val_acc"].item() == pytest.approx((logits.argmax(dim=1) == digit).float().mean())
    assert torch.equal(torch.cat(trainer().predict(model, loader)).argmax(dim=1), logits.argmax(dim=1))


def test_half_of_the_validation_loss_is_that_of_clips_that_are_augmented_in_the_same_way_each_time():
    torch.manual_seed(0)
    (batch,), model = list(batches(noise(), batch_size=8)), DigitClassifier(("2d",)).eval()
    model.head[1].weight.data *= 50  # so that small changes of the clips show
    state, losses = torch.get_rng_state(), []
    for _ in range(2):
        model.validation_step(batch, 3)
        total, clips = model.sums.pop("val_loss")
        losses.append((total / clips).item())
        assert torch.equal(torch.get_rng_state(), state), "training draws from these numbers"
    clean = smoothed_cross_entropy(model(batch[0]), batch[1]).item()
    with fixed_random_numbers(3, torch.device("cpu")):
        augmented = smoothed_cross_entropy(model(batch[0], augment=True), batch[1]).item()
    assert losses[0] == losses[1] == pytest.approx((clean + augmented) / 2) and abs(clean - augmented) > 1e-3


@pytest.mark.parametrize("size, counted", [(3, 6), (8, 8), (16, 8)])
def test_contrastive_validation_leaves_out_a_smaller_last_batch(size, counted):
    loader, plain = batches(noise(), batch_size=size), trainer()
    model = ContrastiveModel(augment="none")
    losses = plain.validate(model, loader, verbose=False)
    waves = loader.dataset.tensors[0].split(size)
    model.eval()
    means = [model.loss(*(model.projections[k](z) for k, z in model(wave).items())).item() for wave in waves]
    kept = means[: counted // min(size, 8)]
    assert losses[0]["val_loss"] == pytest.approx(sum(kept) / len(kept), abs=1e-5)


def test_the_given_loss_optimizer_and_learning_rates_are_used():
    model = DigitClassifier(
        ("1d",), 0.1, encoder_lr=0.2, loss=lambda logits, digit: 7 + 0 * logits.sum(), optimizer=torch.optim.SGD
    )
    plain = trainer()
    plain.fit(model, batches(noise()))
    assert plain.callback_metrics["train_loss"] == 7
    (optimizer,) = plain.optimizers
    assert type(optimizer) is torch.optim.SGD
    rates = {id(p): group["max_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert all(rates[id(p)] == 0.1 for p in model.head.parameters())
    assert all(rates[id(p)] == 0.2 for p in model.embedder.parameters())


@pytest.mark.parametrize("steps", [*range(1, 12), 100])
def test_the_learning_rate_rises_and_falls_over_any_number_of_steps(steps):
    optimizer = torch.optim.AdamW(torch.nn.Linear(1, 1).parameters(), lr=0.01)
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
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_classifier_learns_pitches_on_clips_it_has_not_seen_but_not_shuffled_labels(name, shuffled):
    torch.manual_seed(0)
    (wave, digit), (new_wave, new_digit) = tones(8, seed=1), tones(8, seed=2)
    if shuffled:
        digit, new_digit = digit[torch.randperm(80)], new_digit[torch.randperm(80)]
    model, plain = DigitClassifier((name,), lr=1e-2, augment="none"), trainer(epochs=8)
    plain.fit(model, batches(wave, digit, batch_size=20, shuffle=True))
    (measures,) = plain.validate(model, batches(new_wave, new_digit), verbose=False)
    assert measures["val_acc"] < 0.3 if shuffled else measures["val_acc"] > 0.8


def test_contrastive_training_brings_the_formats_of_a_clip_together():
    torch.manual_seed(0)
    (wave, _), (new_wave, _) = tones(1, seed=1), tones(1, seed=2)
    model, plain = ContrastiveModel(lr=3e-3, augment="none"), trainer(epochs=20)
    plain.fit(model, batches(wave, batch_size=10))
    assert plain.callback_metrics["train_loss"] < 0.5 * math.log(10), "log(10) is chance"
    a, b = (F.normalize(model.projections[name](z), dim=1) for name, z in model.eval()(new_wave).items())
    assert ((a @ b.T).argmax(dim=1) == torch.arange(10)).sum() > 5, "also of new clips, where chance is 1 of 10"


# --- what is frozen


@pytest.mark.parametrize("embedded", [False, True], ids=["waveforms", "embeddings"])
def test_a_frozen_encoder_is_bit_identical_after_training(embedded):
    model = DigitClassifier(("1d",), frozen=True).train()
    before, head, digits = weights(model.embedder), model.head[1].weight.clone(), torch.arange(8)
    z = model.embedder(noise())["1d"]
    clips = [EmbeddedBatch(*clip) for clip in zip(z, digits, digits, strict=True)]
    loader = DataLoader(clips, batch_size=4) if embedded else batches(noise())
    trainer(epochs=2).fit(model, loader, loader)
    assert not any(moved(before, model.embedder).values())
    assert any("running_mean" in key for key in before), "BatchNorm statistics are among them"
    assert not torch.equal(head, model.head[1].weight)


# --- what goes in


@pytest.mark.parametrize("augment", ["waveform", "spectrogram", "both", "none"])
def test_evaluation_never_augments_and_training_does_unless_told_not_to(augment):
    model, wave = Embedder(("1d", "2d"), augment).eval(), noise()
    first, second = model(wave), model(wave)
    assert all(torch.equal(first[name], second[name]) for name in first)
    model.train()
    first, second = model(wave), model(wave)
    differs = {name: not torch.equal(first[name], second[name]) for name in first}
    assert differs == {"1d": augment in ("waveform", "both"), "2d": augment != "none"}


def test_formats_share_the_speed_and_nothing_else(monkeypatch):
    calls = []

    def spy(wave, rate, shift):
        calls.append((rate.clone(), shift.clone()))
        return wave

    monkeypatch.setattr(networks, "warp", spy)
    Embedder(("1d", "2d")).train()(noise())
    (rate_1d, shift_1d), (rate_2d, shift_2d) = calls
    assert torch.equal(rate_1d, rate_2d)
    assert not torch.equal(shift_1d, shift_2d)


def test_embeddings_have_a_method_of_their_own_and_are_refused_as_waveforms():
    model, wave = DigitClassifier(("1d", "2d")).eval(), noise()
    embeddings = torch.cat(list(model.embedder(wave).values()), dim=1)
    torch.testing.assert_close(model.classify(embeddings), model(wave))
    with pytest.raises(ValueError, match=r"expected waveforms .* got torch.float32 of shape \(8, 256\)"):
        model(embeddings)

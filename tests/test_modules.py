"""Frozen means frozen, copies are copies, the two views are independent, and evaluation never augments."""

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from common import modules
from common.data import Batch
from common.modules import ContrastiveModel, DigitClassifier, Embedder
from common.training import fit


def noise(batch: int = 8) -> torch.Tensor:
    return torch.randint(-8000, 8000, (batch, 16_000), dtype=torch.int16)


class Noise(pl.LightningDataModule):
    """Eight random clips, or their embeddings."""

    def __init__(self, inputs: torch.Tensor) -> None:
        super().__init__()
        self.batch = Batch(inputs, torch.arange(8), torch.zeros(8, dtype=torch.long))

    def train_dataloader(self) -> DataLoader:
        return DataLoader([0], collate_fn=lambda _: self.batch)

    val_dataloader = train_dataloader


@pytest.fixture
def train(make_args, tmp_path):
    """A function that trains a model for two epochs on the same eight clips or embeddings."""
    return lambda model, inputs: fit(model, Noise(inputs), make_args(epochs=2), tmp_path, "test", {})


def state(embedder: Embedder) -> dict[str, torch.Tensor]:
    return copy.deepcopy(embedder.state_dict())


@pytest.mark.parametrize("inputs", [noise(), torch.randn(8, 128)], ids=["waveforms", "embeddings"])
def test_frozen_encoder_is_bit_identical_after_training(train, inputs):
    model = DigitClassifier(("1d",), frozen=True)
    before, head = state(model.embedder), model.head[1].weight.clone()
    train(model, inputs)
    after = model.embedder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert any("running_mean" in key for key in before)  # BatchNorm statistics are among them
    assert not torch.equal(head, model.head[1].weight)


def test_finetuned_encoder_moves(train):
    model = DigitClassifier(("2d",), lr=1e-3)
    before = state(model.embedder)
    train(model, noise())
    after = model.embedder.state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in before if key.endswith("weight"))


def test_copied_weights_are_equal_and_not_shared():
    source, first, second = Embedder(("1d", "2d")), Embedder(("1d",)), Embedder(("1d", "2d"))
    for target in (first, second):
        target.copy_weights(source)
        for name, encoder in target.encoders.items():
            for key, value in encoder.state_dict().items():
                original = source.encoders[name].state_dict()[key]
                assert torch.equal(value, original)
                assert value.data_ptr() != original.data_ptr()


@pytest.mark.parametrize("augment", ["waveform", "spectrogram", "both"])
def test_evaluation_never_augments(augment):
    model, wave = Embedder(("1d", "2d"), augment).eval(), noise()
    first, second = model(wave), model(wave)
    assert all(torch.equal(first[name], second[name]) for name in first)
    model.train()
    assert any(not torch.equal(x, y) for x, y in zip(model(wave).values(), model(wave).values(), strict=True))


def test_augment_none_changes_nothing():
    model, wave = Embedder(("1d", "2d"), "none").train(), noise()
    first, second = model(wave), model(wave)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_formats_share_the_speed_and_nothing_else(monkeypatch):
    calls = []

    def spy(wave, rate, shift):
        calls.append((rate.clone(), shift.clone()))
        return wave

    monkeypatch.setattr(modules, "warp", spy)
    Embedder(("1d", "2d")).train()(noise())
    (rate_1d, shift_1d), (rate_2d, shift_2d) = calls
    assert torch.equal(rate_1d, rate_2d)
    assert not torch.equal(shift_1d, shift_2d)


def test_classifier_takes_waveforms_and_embeddings_to_the_same_logits():
    model, wave = DigitClassifier(("1d", "2d")).eval(), noise()
    embeddings = torch.cat(list(model.embedder(wave).values()), dim=1)
    torch.testing.assert_close(model.head(embeddings), model(wave))


def test_contrastive_training_brings_the_formats_of_a_clip_together():
    torch.manual_seed(0)
    t = torch.arange(16_000) / 16_000
    tones = torch.stack([torch.sin(2 * np.pi * f * t) for f in torch.linspace(200, 3000, 8)])
    inputs = (tones * 8000).short()
    model = ContrastiveModel(lr=3e-3, augment="none").train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch = Batch(inputs, torch.arange(8), torch.arange(8))
    losses = []
    for _ in range(20):
        loss = model.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("epochs", range(1, 12))
def test_a_training_of_few_steps_has_a_schedule(make_args, tmp_path, epochs):
    fit(
        DigitClassifier(("1d",), frozen=True),
        Noise(torch.randn(8, 128)),
        make_args(epochs=epochs),
        tmp_path,
        "test",
        {},
    )

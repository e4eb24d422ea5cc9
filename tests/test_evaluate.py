"""Embedding extraction, accuracy intervals and the linear probe, on hand-made embeddings."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from common import evaluate
from common.data import Batch
from common.evaluate import (
    Embeddings,
    accuracy_metrics,
    add_white_noise,
    embed,
    linear_probe,
    predict_digits,
    score_digits,
    score_in_noise,
    wilson_interval,
)


@pytest.mark.parametrize(
    "correct, total, low, high",
    [
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1.0),
        (9900, 10_000, 0.9879, 0.9918),
    ],
)
def test_wilson_interval(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx([low, high], abs=1e-4)


def test_accuracy_comes_with_its_clips_and_interval():
    metrics = accuracy_metrics("test", 8, 10)
    assert metrics.pop("test_acc_ci95") == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert metrics == {"test_acc": 0.8, "test_clips": 10}


# --- embed


class Fake(nn.Module):
    """Two formats of 2 and 3 dimensions, noisy in training mode, with statistics that training moves."""

    def __init__(self, formats=("1d", "2d")):
        super().__init__()
        self.formats = formats
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)
        self.grad_enabled = []

    def forward(self, inputs):
        self.grad_enabled.append(torch.is_grad_enabled())
        x = self.norm(self.dropout(inputs.float()))
        return {name: {"1d": x[:, :2], "2d": x[:, 1:] * 10}[name] for name in self.formats}


@pytest.fixture
def batches():
    """5 + 5 + 1 clips whose first input is their number."""
    inputs = torch.arange(11)[:, None] + torch.tensor([0, 100, 200, 300])
    parts = [slice(0, 5), slice(5, 10), slice(10, 11)]
    return [Batch(inputs[part], torch.arange(11)[part] % 10, torch.arange(11)[part] // 4) for part in parts]


def test_embed_keeps_the_order_and_concatenates_the_formats(batches):
    z, digit, speaker = embed(Fake(), batches)
    number = np.arange(11, dtype=np.float32)[:, None]
    np.testing.assert_allclose(z["1d"], number + np.array([0, 100]), rtol=1e-3)
    np.testing.assert_allclose(z["2d"], 10 * (number + np.array([100, 200, 300])), rtol=1e-3)
    np.testing.assert_array_equal(z["concat"], np.hstack([z["1d"], z["2d"]]))
    np.testing.assert_array_equal(digit, np.arange(11) % 10)
    np.testing.assert_array_equal(speaker, np.arange(11) // 4)
    assert z["1d"].dtype == np.float32


def test_one_format_has_nothing_to_concatenate(batches):
    assert set(embed(Fake(("2d",)), batches).z) == {"2d"}


@pytest.mark.parametrize("training", [True, False])
def test_embed_works_in_eval_mode_without_gradients_and_restores_the_mode(batches, training):
    fake = Fake().train(training)
    before = {key: value.clone() for key, value in fake.state_dict().items()}
    first, second = embed(fake, batches), embed(fake, batches)
    np.testing.assert_array_equal(first.z["concat"], second.z["concat"])
    assert (first.z["1d"][1:] != 0).all(), "nothing was dropped"
    assert fake.training == training and fake.norm.training == training
    assert all(torch.equal(before[key], value) for key, value in fake.state_dict().items()), "statistics moved"
    assert not any(fake.grad_enabled)


def test_take_keeps_clips_and_labels_together():
    embeddings = Embeddings({"1d": np.arange(4.0)[:, None]}, np.arange(4) + 5, np.arange(4) + 9)
    for rows in (np.array([2, 0]), np.array([True, False, True, False])):
        taken = embeddings.take(rows)
        np.testing.assert_array_equal(taken.digit - 5, taken.z["1d"][:, 0])
        np.testing.assert_array_equal(taken.speaker - 9, taken.z["1d"][:, 0])
        assert len(taken.digit) == 2


# --- noise


@pytest.mark.parametrize("snr_db", [20, 10, 0])
def test_noise_has_the_power_that_is_asked_for(snr_db):
    time = torch.arange(16_000) / 16_000
    wave = (torch.stack([torch.sin(2 * torch.pi * 440 * time), torch.zeros(16_000)]) * 20_000).round().short()
    noisy = add_white_noise(wave, snr_db, torch.Generator().manual_seed(0))
    signal = wave[0].double() / 2
    noise = noisy[0] - signal
    assert 10 * torch.log10(signal.square().mean() / noise.square().mean()) == pytest.approx(snr_db, abs=0.2)
    correlation = (noise[1:] * noise[:-1]).mean() / noise.square().mean()
    assert noisy.dtype == torch.int16 and abs(correlation) < 0.05 and not noisy[1].any()


class Loudest(nn.Module):
    """Logits by where the loudest of ten samples is; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.inputs = []

    def forward(self, wave):
        assert not self.training
        self.inputs.append(wave.clone())
        return wave.float() / 1000


@pytest.fixture
def spikes():
    """Ten clips, the last of them with a wrong label."""
    waves, digit = (torch.eye(10) * 10_000).short(), torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 0])
    return [Batch(waves[part], digit[part], torch.zeros(len(digit[part]))) for part in (slice(0, 8), slice(8, 10))]


def test_score_counts_clips_and_averages_their_cross_entropy(spikes):
    one, other = math.log(math.exp(10) + 9) - 10, math.log(math.exp(10) + 9)
    result = score_digits(predict_digits(Loudest(), spikes), "val")
    assert result.pop("val_loss") == pytest.approx((9 * one + other) / 10, rel=1e-4)
    assert result == accuracy_metrics("val", 9, 10)


def test_noise_is_added_to_the_clips_and_repeats(spikes):
    clean, first, again = Loudest(), Loudest(), Loudest()
    predict_digits(clean, spikes)
    results = [score_in_noise(module, spikes, 40) for module in (first, again)]
    assert results[0] == results[1] and results[0]["noise_40db_acc"] == 0.9
    assert all(torch.equal(a, b) for a, b in zip(first.inputs, again.inputs, strict=True))
    assert torch.equal(clean.inputs[0], spikes[0].inputs) and not torch.equal(first.inputs[0], clean.inputs[0])


@pytest.mark.parametrize("snr_db", [20, 0])
def test_noise_has_the_signal_to_noise_ratio_it_says(snr_db):
    tone = (8000 * torch.sin(torch.arange(16_000) * 0.3)).short().repeat(2, 1)
    noise = add_white_noise(tone, snr_db, torch.Generator().manual_seed(0)) - tone.float() / 2
    ratio = (tone.float() / 2).square().mean(dim=1) / noise.square().mean(dim=1)
    torch.testing.assert_close(10 * torch.log10(ratio), torch.full((2,), float(snr_db)), atol=0.2, rtol=0)


# --- linear probe


def points(x, digit, name="1d") -> Embeddings:
    x = np.asarray(x, dtype=np.float32)
    return Embeddings({name: x if x.ndim == 2 else x[:, None]}, np.asarray(digit), np.zeros(len(digit), dtype=int))


def test_separable_points_are_separated():
    train = points([-2, -1, 1, 2], [3, 3, 7, 7])
    result = linear_probe("1d", train, points([-1.5, 1.5], [3, 7]), points([-9, 9, 9, -9], [3, 7, 3, 3]))
    assert (result["train_acc"], result["val_acc"], result["test_acc"]) == (1.0, 1.0, 0.75)
    assert (result["train_clips"], result["val_clips"], result["test_clips"]) == (4, 2, 4)
    assert result["test_acc_ci95"] == wilson_interval(3, 4)


def test_the_named_embedding_is_probed():
    def both(x):
        return Embeddings({"1d": x[:, :1], "2d": x[:, 1:]}, np.array([0, 0, 1, 1]), np.zeros(4, dtype=int))

    x = np.array([[0.3, -2.0], [-0.3, -1], [0.3, 1], [-0.3, 2]])
    assert linear_probe("2d", both(x), both(x), both(x))["test_acc"] == 1.0
    assert linear_probe("1d", both(x), both(x), both(x))["test_acc"] == 0.5


def test_a_shift_of_the_test_set_is_not_corrected_with_its_own_statistics():
    """A scaler that saw the test set would move its points back around zero."""
    train = points([-2, -1, 1, 2], [0, 0, 1, 1])
    test = points([98, 99, 101, 102], [0, 0, 1, 1])
    assert linear_probe("1d", train, train, test)["test_acc"] == 0.5, "all are far on the side of 1"


def test_the_scaler_is_fitted_on_train_alone(monkeypatch):
    rng = np.random.default_rng(0)
    train, val, test = (points(rng.normal(size=(n, 3)) + n, np.arange(n) % 2) for n in (20, 9, 11))
    fitted, real = [], StandardScaler.partial_fit

    def spy(self, x, *args, **kwargs):
        fitted.append(np.array(x))
        return real(self, x, *args, **kwargs)

    monkeypatch.setattr(StandardScaler, "partial_fit", spy)
    linear_probe("1d", train, val, test)
    assert fitted and all(np.array_equal(x, train.z["1d"]) for x in fitted)


def test_embeddings_of_any_scale_are_standardised():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2))
    digit = (x[:, 1] > 0).astype(int)
    narrow = points(x * [1000, 0.001], digit)
    assert linear_probe("1d", narrow, narrow, narrow)["test_acc"] > 0.9


def test_regularisation_is_chosen_on_validation_and_not_on_test():
    rng = np.random.default_rng(0)
    x, digit = rng.normal(size=(40, 30)), np.arange(40) % 3
    x_val, x_test = rng.normal(size=(300, 30)), rng.normal(size=(300, 30))
    strengths = evaluate.PROBE_STRENGTHS
    probes = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x.astype(np.float32), digit)
        for c in strengths
    ]
    for favoured in range(len(strengths)):
        other = 0 if favoured else -1
        # Validation labels are what one probe says, test labels what another one says.
        val, test = points(x_val, probes[favoured].predict(x_val)), points(x_test, probes[other].predict(x_test))
        result = linear_probe("1d", points(x, digit), val, test)
        agreement = (probes[favoured].predict(x_test) == test.digit).mean()
        assert result["C"] == strengths[favoured] and result["val_acc"] == 1.0
        assert result["test_acc"] == pytest.approx(agreement, abs=0.02) and agreement < 0.97


def test_a_single_digit_in_training_is_always_the_answer():
    result = linear_probe("1d", points([1, 2], [4, 4]), points([1], [4]), points([1, 2, 3, 4], [4, 4, 4, 5]))
    assert (result["train_acc"], result["val_acc"], result["test_acc"]) == (1.0, 1.0, 0.75)


def test_shuffled_labels_give_chance():
    """The same points that true labels make trivial: whatever leaks would show."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 16))

    def clouds(n: int, shuffled: bool) -> Embeddings:
        digit = np.arange(n) % 10
        x = centres[digit] + 0.1 * rng.normal(size=(n, 16))
        return points(x, rng.permutation(digit) if shuffled else digit)

    true = linear_probe("1d", clouds(400, False), clouds(100, False), clouds(1000, False))
    chance = linear_probe("1d", clouds(400, True), clouds(100, True), clouds(1000, True))
    assert true["test_acc"] == 1
    assert 0.05 < chance["test_acc"] < 0.15

"""Embedding extraction, predictions, accuracy intervals and the linear probe, on hand-made data."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from common.data import Batch
from common.evaluate import PROBE_STRENGTHS, Embeddings, embed, linear_probe, predict_digits
from common.intervals import accuracy_metrics

# --- embed


class TwoFormats(nn.Module):
    """Embeddings of 2 and 3 dimensions; random in training mode, with statistics that training moves."""

    def __init__(self, formats=("1d", "2d")):
        super().__init__()
        self.formats = formats
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)
        self.grad_enabled = []

    def forward(self, wave):
        self.grad_enabled.append(torch.is_grad_enabled())
        x = self.norm(self.dropout(wave.float()))
        return {name: {"1d": x[:, :2], "2d": x[:, 1:] * 10}[name] for name in self.formats}


@pytest.fixture
def batches():
    """5 + 5 + 1 clips whose first sample is their number."""
    waves = torch.arange(11)[:, None] + torch.tensor([0, 100, 200, 300])
    parts = [slice(0, 5), slice(5, 10), slice(10, 11)]
    return [Batch(waves[part], torch.arange(11)[part] % 10, torch.arange(11)[part] // 4) for part in parts]


def test_embeddings_keep_the_order_of_the_clips_and_concatenate_the_formats(batches):
    z, digit, speaker = embed(TwoFormats(), batches)
    number = np.arange(11, dtype=np.float32)[:, None]
    np.testing.assert_allclose(z["1d"], number + np.array([0, 100]), rtol=1e-3)
    np.testing.assert_allclose(z["2d"], 10 * (number + np.array([100, 200, 300])), rtol=1e-3)
    np.testing.assert_array_equal(z["concat"], np.hstack([z["1d"], z["2d"]]))
    np.testing.assert_array_equal(digit, np.arange(11) % 10)
    np.testing.assert_array_equal(speaker, np.arange(11) // 4)
    assert z["1d"].dtype == np.float32
    assert set(embed(TwoFormats(("2d",)), batches).z) == {"2d"}, "one format has nothing to concatenate"


@pytest.mark.parametrize("training", [True, False])
def test_embed_works_in_eval_mode_without_gradients_and_restores_the_mode(batches, training):
    embedder = TwoFormats().train(training)
    before = {key: value.clone() for key, value in embedder.state_dict().items()}
    first, second = embed(embedder, batches), embed(embedder, batches)
    np.testing.assert_array_equal(first.z["concat"], second.z["concat"])
    assert (first.z["1d"][1:] != 0).all(), "nothing was dropped"
    assert embedder.training == training and embedder.norm.training == training
    assert all(torch.equal(before[key], value) for key, value in embedder.state_dict().items()), "statistics moved"
    assert not any(embedder.grad_enabled)


def test_take_keeps_clips_and_labels_together():
    embeddings = Embeddings({"1d": np.arange(4.0)[:, None]}, np.arange(4) + 5, np.arange(4) + 9)
    for rows, expected in ((np.array([2, 0]), [2, 0]), (np.array([True, False, True, False]), [0, 2])):
        z, digit, speaker = embeddings.take(rows)
        assert z["1d"][:, 0].tolist() == (digit - 5).tolist() == (speaker - 9).tolist() == expected


# --- predictions and noise


class Loudest(nn.Module):
    """Predicts which of ten samples is the loudest, and keeps the waveforms that it was given."""

    def __init__(self):
        super().__init__()
        self.waves = []

    def predict_step(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        self.waves.append(batch.waveform.clone())
        return batch.waveform.float() / 1000


@pytest.fixture
def spikes():
    """Ten clips in two batches; the label of the last clip is wrong."""
    waves, digit = (torch.eye(10) * 10_000).short(), torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 0])
    return [Batch(waves[part], digit[part], torch.zeros(len(digit[part]))) for part in (slice(0, 8), slice(8, 10))]


def test_predictions_count_correct_clips_and_average_their_cross_entropy(spikes):
    predictions = predict_digits(Loudest(), spikes)
    assert predictions.predicted.tolist() == list(range(10)) and predictions.digit.tolist() == [*range(9), 0]
    right, wrong = math.log(math.exp(10) + 9) - 10, math.log(math.exp(10) + 9)
    metrics = predictions.metrics("val")
    assert metrics.pop("val_loss") == pytest.approx((9 * right + wrong) / 10, rel=1e-4)
    assert metrics == predictions.accuracy("val") == accuracy_metrics("val", np.arange(10) < 9, np.zeros(10))


# --- linear probe


def points(x, digit) -> Embeddings:
    x = np.asarray(x, dtype=np.float32)
    return Embeddings({"1d": x if x.ndim == 2 else x[:, None]}, np.asarray(digit), np.zeros(len(digit), dtype=int))


def test_separable_points_are_separated():
    train = points([-2, -1, 1, 2], [3, 3, 7, 7])
    test = points([-9, 9, 9, -9], [3, 7, 3, 3])._replace(speaker=np.array([0, 0, 1, 1]))
    result, predicted = linear_probe("1d", train, points([-1.5, 1.5], [3, 7]), test, ["ann", "ben"])
    expected = {"train": np.ones(4), "val": np.ones(2), "test": np.array([1, 1, 0, 1])}
    metrics = {"C": PROBE_STRENGTHS[0]}
    for part, correct in expected.items():
        speaker = test.speaker if part == "test" else np.zeros(len(correct), dtype=int)
        metrics |= accuracy_metrics(part, correct, speaker, ["ann", "ben"])
    assert result == metrics and predicted.tolist() == [3, 7, 7, 3] and result["worst_speaker"] == "ben"


def test_the_embedding_that_is_named_is_probed():
    x = np.array([[0.3, -2.0], [-0.3, -1], [0.3, 1], [-0.3, 2]])
    both = Embeddings({"1d": x[:, :1], "2d": x[:, 1:]}, np.array([0, 0, 1, 1]), np.zeros(4, dtype=int))
    assert linear_probe("2d", both, both, both)[0]["test_acc"] == 1.0
    assert linear_probe("1d", both, both, both)[0]["test_acc"] == 0.5


def test_the_scaler_is_fitted_on_the_training_clips_alone():
    train, far = points([-2, -1, 1, 2], [0, 0, 1, 1]), points([98, 99, 101, 102], [0, 0, 1, 1])
    # A scaler that had seen the far points would move them back around zero.
    assert linear_probe("1d", train, train, far)[0]["test_acc"] == 0.5, "all lie on the side of 1"
    assert linear_probe("1d", train, far, train)[0]["val_acc"] == 0.5


def test_the_regularisation_is_chosen_on_the_validation_clips_and_not_on_the_test_clips():
    rng = np.random.default_rng(0)
    x, digit = rng.normal(size=(40, 30)).astype(np.float32), np.arange(40) % 3
    x_val, x_test = rng.normal(size=(2, 300, 30))
    # The weakest ones differ too little in what they predict.
    probes = {
        c: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x, digit)
        for c in PROBE_STRENGTHS[2:]
    }
    for strength, favoured in probes.items():
        other = probes[PROBE_STRENGTHS[2 if strength > 0.01 else -1]]
        # The validation labels are the predictions of one probe, the test labels those of another one.
        val, test = points(x_val, favoured.predict(x_val)), points(x_test, other.predict(x_test))
        result, _ = linear_probe("1d", points(x, digit), val, test)
        agreement = (favoured.predict(x_test) == test.digit).mean()
        assert result["C"] == strength and result["val_acc"] == 1.0
        assert result["test_acc"] == pytest.approx(agreement, abs=0.02) and agreement < 0.97


def test_shuffled_labels_give_chance():
    """Any leak would show: with the true labels the same points are easy."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 16))

    def clouds(n: int, shuffled: bool) -> Embeddings:
        digit = np.arange(n) % 10
        x = centres[digit] + 0.1 * rng.normal(size=(n, 16))
        return points(x, rng.permutation(digit) if shuffled else digit)

    true, shuffled = (
        linear_probe("1d", *(clouds(n, s) for n in (400, 100, 1000)))[0]["test_acc"] for s in (False, True)
    )
    assert true == 1 and 0.05 < shuffled < 0.15

"""Embeddings, predictions, calibration, the linear probe, and checkpoints, which are data and cannot spoil a test."""

import math
import os
import zipfile
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from common import evaluate
from common.data import Batch
from common.encoders import Embedder
from common.evaluate import (
    Embeddings,
    Predictions,
    classifier_metrics,
    embed,
    fit_temperature,
    load_classifier,
    load_embedder,
    predict_digits,
    tsne,
    with_statistics_of,
)
from common.intervals import accuracy_metrics
from common.models import ContrastiveModel, DigitClassifier
from common.run import UserError
from common.run.output import MAX_BYTES, store_temperature
from common.training import fit

CANDIDATES = [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]
linear_probe = partial(evaluate.linear_probe, candidates=CANDIDATES)

# --- embed


class TwoFormats(nn.Module):
    """Embeddings of 2 and 3 dimensions; random in training mode, with statistics that training moves."""

    def __init__(self):
        super().__init__()
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)

    def forward(self, wave):
        assert not torch.is_grad_enabled()
        x = self.norm(self.dropout(wave.float()))
        return {"1d": x[:, :2], "2d": x[:, 1:] * 10}


@pytest.mark.parametrize("training", [True, False])
def test_embeddings_are_of_eval_mode_in_the_order_of_the_clips_and_side_by_side(training):
    waves = torch.arange(11)[:, None] + torch.tensor([0, 100, 200, 300])  # the first sample is the clip's number
    parts = [slice(0, 5), slice(5, 10), slice(10, 11)]
    batches = [Batch(waves[part], torch.arange(11)[part] % 10, torch.arange(11)[part] // 4) for part in parts]
    embedder = TwoFormats().train(training)
    before = {key: value.clone() for key, value in embedder.state_dict().items()}
    z, digit, speaker = embed(embedder, batches)
    number = np.arange(11, dtype=np.float32)[:, None]
    np.testing.assert_allclose(z["1d"], number + np.array([0, 100]), rtol=1e-3)
    np.testing.assert_allclose(z["2d"], 10 * (number + np.array([100, 200, 300])), rtol=1e-3)
    np.testing.assert_array_equal(z["concat"], np.hstack([z["1d"], z["2d"]]))
    assert (digit.tolist(), speaker.tolist()) == ([*range(10), 0], [0] * 4 + [1] * 4 + [2] * 3)
    assert embedder.training == training and embedder.norm.training == training
    assert all(torch.equal(before[key], value) for key, value in embedder.state_dict().items()), "statistics moved"


def test_the_statistics_of_clips_are_those_of_all_of_them_and_nothing_else_moves():
    torch.manual_seed(0)
    embedder, waves = Embedder(), 0.1 * torch.randn(24, 4000) * torch.linspace(0.1, 3, 24)[:, None]
    twin = with_statistics_of(embedder, [Batch(part, part, part) for part in waves.split(8)])
    norm, inputs = twin.encoders["2d"].norm1, []
    twin.encoders["2d"].conv1.register_forward_hook(lambda *arguments: inputs.append(arguments[-1]))
    twin(waves)
    torch.testing.assert_close(norm.running_mean, inputs[0].mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)
    changed = {key for key, value in embedder.state_dict().items() if not torch.equal(value, twin.state_dict()[key])}
    assert changed and all("running" in key or "num_batches" in key for key in changed)
    assert not twin.training and embedder.encoders["2d"].norm1.num_batches_tracked == 0


def test_equal_points_have_a_layout():
    assert tsne(np.ones((5, 3)), 1.0, seed=0).shape == (5, 2)


# --- predictions and calibration


class Loudest(nn.Module):
    """Predicts which of ten samples is the loudest."""

    def forward(self, wave):
        assert not self.training and not torch.is_grad_enabled()
        return wave.float() / 1000


def test_predictions_count_correct_clips_and_average_their_cross_entropy():
    waves, digit = (torch.eye(10) * 10_000).short(), torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 0])  # the last is wrong
    spikes = [Batch(waves[p], digit[p], torch.zeros(len(digit[p]), dtype=int)) for p in (slice(0, 8), slice(8, 10))]
    found = predict_digits(Loudest().train(), spikes)
    assert found.predicted.tolist() == list(range(10)) and found.digit.tolist() == [*range(9), 0]
    right, wrong = math.log(math.exp(10) + 9) - 10, math.log(math.exp(10) + 9)
    metrics = classifier_metrics(found, found, ["ann"])
    assert metrics["val_loss"] == metrics["test_loss"] == pytest.approx((9 * right + wrong) / 10, rel=1e-4)
    expected = accuracy_metrics("test", np.arange(10) < 9, np.zeros(10, dtype=int), ["ann"])
    assert expected.items() <= metrics.items() and "val_acc_ci95" not in metrics
    turned = predict_digits(Loudest(), spikes, lambda batch: batch._replace(waveform=batch.waveform.roll(1, 1)))
    assert turned.predicted.tolist() == [*range(1, 10), 0] and turned.digit.tolist() == found.digit.tolist()


def model_of(confidence: float, accuracy: float, clips: int = 4000) -> Predictions:
    """One digit has ``confidence``, and it is the true one in ``accuracy`` of the clips."""
    p = torch.full((clips, 10), (1 - confidence) / 9)
    p[:, 3] = confidence
    return Predictions(
        p.log(), torch.where(torch.arange(clips) < accuracy * clips, 3, 4), torch.zeros(clips, dtype=int)
    )


@pytest.mark.parametrize("confidence, accuracy", [(0.9, 0.9), (0.9, 0.6), (0.7, 0.99)])
def test_the_calibration_error_is_the_distance_between_confidence_and_accuracy(confidence, accuracy):
    metrics = classifier_metrics(*[model_of(confidence, accuracy)] * 2, ["ann"])
    assert metrics["test_ece"] == pytest.approx(abs(confidence - accuracy), abs=1e-4)
    assert metrics["test_ece_calibrated"] < 0.01, "the same clips were used for the temperature"


def test_the_temperature_that_was_put_in_is_found_and_few_right_clips_do_not_make_a_model_certain():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3000, 10, generator=generator)
    digit = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    for temperature in (0.4, 1.0, 3.0):
        assert fit_temperature(logits * temperature, digit) == pytest.approx(temperature, rel=0.1)
    logits, digit, _ = model_of(0.8, 1.0, clips=20)
    assert 0.9 < (logits / fit_temperature(logits, digit)).softmax(dim=1).max() < 0.97


# --- linear probe


def points(x, digit) -> Embeddings:
    x = np.asarray(x, dtype=np.float32)
    return Embeddings({"1d": x if x.ndim == 2 else x[:, None]}, np.asarray(digit), np.zeros(len(digit), dtype=int))


def test_separable_points_are_separated():
    train = points([-2, -1, 1, 2], [3, 3, 7, 7])
    test = points([-9, 9, 9, -9], [3, 7, 3, 3])._replace(speaker=np.array([0, 0, 1, 1]))
    result, correct = linear_probe("1d", train, points([-1.5, 1.5], [3, 7]), test, names=["ann", "ben"])
    metrics = {"C": CANDIDATES[0]}  # of equal scores the most regularised
    for part, right in {"train": np.ones(4), "val": np.ones(2), "test": np.array([1, 1, 0, 1])}.items():
        speaker = test.speaker if part == "test" else np.zeros(len(right), dtype=int)
        metrics |= accuracy_metrics(part, right, speaker, ["ann", "ben"], interval=part == "test")
    assert result == metrics and correct.tolist() == [True, True, False, True] and result["worst_speaker"] == "ben"


def test_the_scaler_is_fitted_on_the_training_clips_alone():
    train, far = points([-2, -1, 1, 2], [0, 0, 1, 1]), points([98, 99, 101, 102], [0, 0, 1, 1])
    # A scaler that had seen the far points would move them back around zero.
    assert linear_probe("1d", train, train, far)[0]["test_acc"] == 0.5, "all lie on the side of 1"
    assert linear_probe("1d", train, far, train)[0]["val_acc"] == 0.5


def test_the_regularisation_is_chosen_on_the_validation_clips_and_not_on_the_test_clips():
    rng = np.random.default_rng(0)
    x, digit = rng.normal(size=(40, 30)).astype(np.float32), np.arange(40) % 3
    x_val, x_test = rng.normal(size=(2, 300, 30))
    # The strongest ones differ too little in what they predict.
    probes = {
        c: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x, digit) for c in CANDIDATES[2:]
    }
    for strength, favoured in probes.items():
        other = probes[CANDIDATES[2 if strength > 0.01 else -1]]
        # The validation labels are the predictions of one probe, the test labels those of another one.
        val, test = points(x_val, favoured.predict(x_val)), points(x_test, other.predict(x_test))
        result, _ = linear_probe("1d", points(x, digit), val, test)
        agreement = (favoured.predict(x_test) == test.digit).mean()
        assert result["C"] == strength and result["val_acc"] == 1.0
        assert result["test_acc"] == pytest.approx(agreement, abs=0.02) and agreement < 0.97


# --- checkpoints


@pytest.fixture
def content(tone_data) -> dict:
    """A checkpoint of a classifier as the tasks write it."""
    record = {"corpus": "tones", "train_speakers": tone_data.names("train", "val")}
    return {"state_dict": DigitClassifier(("1d",)).state_dict(), "run": record}


@pytest.fixture
def refused(content, tone_data, tmp_path) -> Callable[..., None]:
    """A function that finds the checkpoint, or other bytes in its place, refused in one line with these words."""

    def check(*words: str, data: bytes | None = None, load: Callable = load_classifier) -> None:
        path = tmp_path / "best.ckpt"
        if data is None:
            torch.save(content, path)
        else:
            path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            load(path, tone_data)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 1000
        assert all(word in message for word in words), message

    return check


@pytest.mark.parametrize("load, formats", [(load_classifier, ("2d",)), (load_embedder, ("1d", "2d"))])
def test_what_was_trained_is_loaded_in_eval_mode_with_its_temperature(tone_data, make_run, tmp_path, load, formats):
    path = tmp_path / "a/best.ckpt"
    model = DigitClassifier(formats) if load is load_classifier else ContrastiveModel()
    fit(model, tone_data, make_run(tmp_path), "a", "label")
    store_temperature(path, 1.5)
    loaded, expected = load(path, None), model.network if load is load_classifier else model.embedder
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in expected.state_dict().items())
    assert not any(module.training for module in loaded.modules())
    assert load is load_embedder or (loaded.temperature == 1.5 and list(loaded.embedder.encoders) == ["2d"])


class Payload:
    """Unpickling this runs a command of the shell."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def test_code_in_a_checkpoint_is_not_run(refused, content, tmp_path):
    trace = tmp_path / "trace"
    content["run"]["seed"] = Payload(f"touch {trace}")
    refused("no such network")
    assert not trace.exists()
    torch.load(tmp_path / "best.ckpt", weights_only=False)
    assert trace.exists(), "where code is run, this one leaves a trace"


def test_one_that_was_trained_on_a_test_speaker_is_refused_and_one_of_another_corpus_noted(
    refused, content, tone_data, tmp_path, capsys
):
    content["run"]["train_speakers"] = ["01", tone_data.names("test")[0]]
    refused("1 test speaker", "--fold")
    assert capsys.readouterr().err == ""
    content["run"]["corpus"] = "elsewhere"
    torch.save(content, tmp_path / "best.ckpt")
    load_classifier(tmp_path / "best.ckpt", tone_data)
    note = capsys.readouterr().err
    assert note.count("\n") == 1 and "best.ckpt was trained on elsewhere, this run is on tones" in note


@pytest.mark.filterwarnings("error")
def test_weights_of_another_task_or_that_are_not_finite_are_refused(refused, content):
    content["state_dict"]["network.head.1.weight"].fill_(torch.inf)
    refused("weights are not finite", "python task1.py")
    content["state_dict"] = ContrastiveModel().state_dict()
    refused("no such network", "python task1.py")


def test_what_is_no_checkpoint_or_not_of_task_2_is_refused(refused, tmp_path):
    refused("no such network", "python task2.py", load=load_embedder)
    refused("no such network", data=(tmp_path / "best.ckpt").read_bytes()[:50_000])
    with pytest.raises(UserError, match=r"^missing\.ckpt: no such checkpoint; make it with `python task1\.py` or name"):
        load_classifier("missing.ckpt")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_unread(refused, content, tmp_path, monkeypatch):
    torch.save(content, tmp_path / "best.ckpt")
    with zipfile.ZipFile(tmp_path / "best.ckpt", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("best/data/more", bytes(MAX_BYTES))
    bomb = (tmp_path / "best.ckpt").read_bytes()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    refused("no such network", data=bomb)
    assert len(bomb) < 2_000_000

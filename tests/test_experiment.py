"""The scripts do the experiment that they describe: each test fails when one of its conditions is broken.

Tasks 1, 2, 4 and 5 run once on a small corpus of tones, and what passes between their parts is recorded.
"""

import copy
import importlib
import json
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from common.encoders import gabor_filters

SPEAKERS = ["01", "02", "03", "04", "05", "06", "10"]
TEST_SPEAKERS = ["03", "06"]  # every third one in natural order
SIX = [f"{name}_{mode}_checkpoints" for name in ("1d", "2d", "concat") for mode in ("frozen", "finetuned")]


class Record:
    """What a task did."""

    def __init__(self):
        self.models, self.initial, self.rates = {}, {}, {}  # {checkpoints folder: ...}
        self.data = None  # SpokenDigits of the last training
        self.stage, self.rooms = "evaluation", defaultdict(list)  # {stage: for each augmentation, whether with rooms}
        self.passes = []  # for each call of predict_digits, the clips that the network heard
        self.embedders = []  # that were probed, or whose embeddings tell speakers apart
        self.channels = []  # (clean, changed) embeddings of each row of task 4


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, write_tones):
    """{number: what the task did}"""
    folder = tmp_path_factory.mktemp("experiment")
    write_tones(folder / "tones", SPEAKERS, digits=[0, 1, 5, 6], repetitions=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return {number: record(number) for number in (1, 2, 4, 5)}


def record(number):
    task, seen = importlib.import_module(f"task{number}"), Record()
    real = {name: getattr(task, name, None) for name in ("fit", "predict_digits", "probe", "embed_sets", "recognise")}
    random_channel = importlib.import_module("common.augmentation").random_channel

    def channel(wave, room=False):
        seen.rooms[seen.stage].append(room)
        return random_channel(wave, room)

    def fit(model, data, run, checkpoints, label):
        seen.models[checkpoints], seen.initial[checkpoints] = model, copy.deepcopy(model.state_dict())
        seen.rates[checkpoints], seen.data, seen.stage = learning_rates(model), data, label
        history = real["fit"](model, data, run, checkpoints, label)
        seen.stage = "evaluation"
        return history

    def predict_digits(network, loader, change=None):
        def heard(batch):
            changed = change(batch) if change else batch
            clips.extend(pictures_of(changed))
            return changed

        clips = []
        seen.passes.append(clips)
        return real["predict_digits"](network, loader, heard)

    def with_embedder(function):
        return lambda net, *more: seen.embedders.append(copy.deepcopy(net)) or function(net, *more)

    def recognise(clean, changed, *more):
        seen.channels.append((clean, changed))
        return real["recognise"](clean, changed, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.augmentation.random_channel", channel)
        patch.setattr(task, "fit", fit, raising=False)
        patch.setattr(task, "predict_digits", predict_digits, raising=False)
        patch.setattr(task, "recognise", recognise, raising=False)
        for name in ("probe", "embed_sets"):
            patch.setattr(task, name, with_embedder(real[name]), raising=False)
        short = {"epochs": 1} if task.DEFAULTS.epochs else {}
        task.main(replace(task.DEFAULTS, data_dir="tones", batch_size=8, num_workers=0, seed=1, **short))
    return seen


def pictures_of(batch):
    """A few samples of each clip of a batch, by which it is recognised."""
    return [tuple(wave) for wave in batch[0][:, ::50].tolist()]


def learning_rates(model):
    """The peak learning rates of a model's groups of parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.models.one_cycle", lambda optimizer, steps: [g["lr"] for g in optimizer.param_groups])
        patch.setattr(type(model), "trainer", SimpleNamespace(estimated_stepping_batches=10))
        return model.configure_optimizers()


def encoders(state):
    """The weights and statistics of the encoders in the state of a module."""
    return {key.split("embedder.")[1]: value for key, value in state.items() if "embedder." in key}


def equal(a, b):
    """Whether all that two states share is equal."""
    shared = a.keys() & b.keys()
    assert shared
    return all(torch.equal(a[key], b[key]) for key in shared)


# --- data


@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_third_speaker_is_tested_and_never_trained_on(tasks, number):
    data = tasks[number].data
    assert data.names("test") == TEST_SPEAKERS
    assert data.names("train", "val") == [name for name in SPEAKERS if name not in TEST_SPEAKERS]


@pytest.mark.parametrize("number", [1, 2])
def test_no_clip_is_in_two_sets_and_loaders_serve_their_own_set(tasks, number):
    data = tasks[number].data
    sets = {name: {clip for batch in data.loader(name) for clip in pictures_of(batch)} for name in data.examples}
    assert [len(part) for part in sets.values()] == [80, 20, 40]
    assert len(set.union(*sets.values())) == 140
    assert {clip for batch in data.train_dataloader() for clip in pictures_of(batch)} == sets["train"]
    validated = {clip for batch in data.val_dataloader() for clip in pictures_of(batch)}
    assert sets["val"] <= validated and not validated & (sets["train"] | sets["test"])
    assert len(validated - sets["val"]) == (20 if number == 1 else 0), "task 1 selects on augmented clips as well"


def test_the_classifiers_are_tested_on_the_test_clips_and_each_condition_changes_all_of_them(tasks):
    passes, data = tasks[1].passes, tasks[1].data
    val, test = ([clip for batch in data.loader(name) for clip in pictures_of(batch)] for name in ("val", "test"))
    for of_model in (passes[:10], passes[10:]):
        assert of_model[:2] == [val, test]
        assert len(of_model) == 2 + 8, "validation, test and eight conditions"
        heard = [set(clips) for clips in of_model[1:]]
        assert len(set.union(*heard)) == 9 * len(set(test)), "no clip sounds alike in two conditions"
    assert passes[2:10] == passes[12:], "all models hear the same"


# --- training


def test_rooms_are_added_for_digits_and_not_for_voices_and_only_in_training(tasks):
    assert set(tasks[1].rooms) == {"evaluation", "supervised 1d", "supervised 2d"}
    assert all(all(rooms) and len(rooms) >= 24 for rooms in tasks[1].rooms.values() if len(rooms) > 3)
    assert len(tasks[1].rooms["evaluation"]) == 3, "the 20 validation clips, once, in batches of 8"
    assert set(tasks[2].rooms) == {"contrastive"} and not any(tasks[2].rooms["contrastive"])
    assert len(tasks[2].rooms["contrastive"]) == 2 * tasks[2].data.steps, "each format is changed by itself"
    assert set(tasks[5].rooms) == {"evaluation", "finetuned 1d", "finetuned 2d", "finetuned concat"}
    assert tasks[4].rooms == {}


def test_losses_and_learning_rates_are_those_of_the_experiment(tasks):
    logits, digit = torch.randn(7, 10), torch.arange(7)
    expected = F.cross_entropy(logits, digit, label_smoothing=0.1)
    for number in (1, 5):
        assert all(torch.equal(model.loss(logits, digit), expected) for model in tasks[number].models.values())
    assert tasks[1].rates == {"1d_checkpoints": [4e-3, 4e-3], "2d_checkpoints": [4e-3, 4e-3]}
    assert all(tasks[5].rates[key] == [1e-2, 0 if "frozen" in key else 1e-3] for key in SIX)
    assert tasks[2].rates == {"checkpoints": [3e-3]}
    a, b = F.normalize(torch.randn(5, 64)), F.normalize(torch.randn(5, 64))
    p = torch.exp(a @ b.T / 0.2)
    naive = -(torch.log(p.diag() / p.sum(dim=0)) + torch.log(p.diag() / p.sum(dim=1))).mean() / 2
    torch.testing.assert_close(tasks[2].models["checkpoints"].loss(a, b), naive)


def test_each_model_of_task_5_starts_from_its_own_copy_of_the_pretrained_encoders(tasks):
    pretrained = tasks[2].embedders[0].state_dict()
    assert list(tasks[5].models) == SIX
    assert all(equal(encoders(tasks[5].initial[key]), pretrained) for key in SIX)
    addresses = [x.data_ptr() for model in tasks[5].models.values() for x in model.network.parameters()]
    assert len(set(addresses)) == len(addresses)


def test_frozen_encoders_stay_as_they_are_to_the_last_bit_and_others_move(tasks):
    for key, model in tasks[5].models.items():
        before, after = encoders(tasks[5].initial[key]), encoders(model.state_dict())
        assert equal(before, after) == ("frozen" in key), key
        head = "network.head.1.weight"
        assert not torch.equal(tasks[5].initial[key][head], model.state_dict()[head])


# --- controls


def is_untrained(embedder):
    return torch.equal(embedder.encoders["1d"].filterbank.weight.squeeze(1), gabor_filters(32, 256))


def test_controls_of_task_2_learned_nothing(tasks):
    trained, untrained, statistics = tasks[2].embedders
    assert not is_untrained(trained) and is_untrained(untrained)
    before = encoders(tasks[2].initial["checkpoints"])
    assert equal({key: before[key] for key, _ in untrained.named_parameters()}, untrained.state_dict())
    assert not list(statistics.parameters())


def test_task_4_asks_over_other_microphones_and_its_controls_learned_nothing(tasks):
    contrastive, statistics, untrained, supervised = tasks[4].embedders
    assert equal(contrastive.state_dict(), tasks[2].embedders[0].state_dict())
    assert is_untrained(untrained) and not list(statistics.parameters())
    digits = {key: x for model in tasks[1].models.values() for key, x in encoders(model.state_dict()).items()}
    assert equal(supervised.state_dict(), digits)
    for clean, changed in tasks[4].channels:
        assert (abs(clean - changed).max(axis=1) > 1e-3).all(), "each query over another microphone"


# --- learning


@pytest.mark.slow
def test_something_is_learned_from_speech(tmp_path, monkeypatch):
    """On synthetic speech of unseen voices: far above chance, and above encoders that were not trained."""
    pytest.importorskip("espeakng_loader")
    monkeypatch.chdir(tmp_path)
    flags = {"dataset": "synthetic", "ratio": 0.02, "num_workers": 0, "seed": 1}
    for number, epochs in ((1, 5), (2, 8)):
        torch.manual_seed(1)
        task = importlib.import_module(f"task{number}")
        task.main(replace(task.DEFAULTS, epochs=epochs, **flags))
    results = json.loads((tmp_path / "task1_supervised/metrics.json").read_text())
    assert results["1d"]["test_acc_ci95"][0] > 0.6 and results["2d"]["test_acc_ci95"][0] > 0.6, "chance is 0.1"
    probes = json.loads((tmp_path / "task2_contrastive/metrics.json").read_text())
    assert probes["concat"]["test_acc"] > probes["untrained_concat"]["test_acc"]
    assert probes["2d"]["over_untrained_ci95"][0] > 0

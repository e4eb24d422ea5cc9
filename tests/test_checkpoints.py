"""A checkpoint is data: it runs no code, and one that would spoil the results is refused in one line."""

import os
import pickle
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.checkpoints import MAX_BYTES, load_contrastive, load_supervised
from common.data import SpokenDigits
from common.modules import ContrastiveModel, DigitClassifier
from common.run.console import UserError


@pytest.fixture(scope="module")
def tones(tmp_path_factory, write_tones, make_args) -> SpokenDigits:
    """Speakers 01 to 06; 05 and 06 are the test."""
    folder = tmp_path_factory.mktemp("corpus")
    write_tones(folder / "tones", [f"{i:02d}" for i in range(1, 7)], digits=[0, 1], repetitions=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return SpokenDigits(make_args(data_dir=folder / "tones"))


def checkpoint_of(module, name: str, **run: object) -> dict:
    """What common.training leaves of a module."""
    return {
        "model": name,
        "hyper_parameters": dict(module.hparams),
        "state_dict": module.state_dict(),
        "run": {"corpus": "tones", "train_speakers": ["01", "02", "03", "04"]} | run,
    }


class Place:
    """Where each kind of checkpoint lies, how it is loaded, and the flag that names it."""

    def __init__(self, kind: str, folder: Path, data: SpokenDigits):
        self.kind, self.data = kind, data
        self.flag = "--task2-checkpoint" if kind == "contrastive" else "--task1-checkpoint"
        self.path = folder / "best.ckpt" if kind == "contrastive" else folder / f"{kind}_checkpoints" / "best.ckpt"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.args = Namespace(task1_checkpoint=folder, task2_checkpoint=self.path)
        torch.manual_seed(1)
        self.module = ContrastiveModel() if kind == "contrastive" else DigitClassifier((kind,))
        self.name = "contrastive" if kind == "contrastive" else f"supervised {kind}"

    def load(self):
        if self.kind == "contrastive":
            return load_contrastive(self.args, self.data)
        return load_supervised(self.args, self.data, self.kind)

    def is_refused(self, *words: str) -> None:
        with pytest.raises(UserError) as caught:
            self.load()
        message = str(caught.value)
        assert message.startswith(self.flag) and "\n" not in message
        assert all(word in message for word in words), message


KINDS = ("contrastive", "1d", "2d")


@pytest.fixture
def place(tmp_path, tones) -> Place:
    """One kind for the many faults: all are read by the same lines."""
    return Place("1d", tmp_path, tones)


@pytest.fixture(params=KINDS)
def each_place(request, tmp_path, tones) -> Place:
    return Place(request.param, tmp_path, tones)


def test_a_good_one_gives_its_weights_in_eval_mode(each_place, capsys):
    with torch.no_grad():
        for value in each_place.module.state_dict().values():
            value.add_(1)  # weights and statistics that no fresh module has
    torch.save(checkpoint_of(each_place.module, each_place.name), each_place.path)
    loaded = each_place.load()
    expected = each_place.module.state_dict()
    assert set(loaded.state_dict()) == set(expected) and type(loaded) is type(each_place.module)
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    assert not any(module.training for module in loaded.modules())
    assert capsys.readouterr().err == ""


class Payload:
    """Unpickling this runs ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "beside the weights"])
@pytest.mark.parametrize("payload", ["system", "exec"])
def test_code_in_a_checkpoint_is_not_run(place, tmp_path, form, payload):
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w').close()"
    bomb = Payload(os.system, f"touch {trace}") if payload == "system" else Payload(exec, code)
    if form == "beside the weights":
        torch.save(checkpoint_of(place.module, place.name, seed=bomb), place.path)
    elif form == "pickle":
        place.path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, place.path, _use_new_zipfile_serialization=form == "torch")
    place.is_refused(str(place.path))
    assert not trace.exists()


def test_a_missing_one_is_refused(each_place):
    each_place.is_refused(
        f"there is no {each_place.path}", "task2.py" if each_place.kind == "contrastive" else "task1.py"
    )


def test_a_folder_is_refused(place):
    place.path.mkdir()
    place.is_refused(str(place.path))


@pytest.mark.parametrize("content", ["truncated", "empty", "text", "another torch file", "a list", "a tensor", "none"])
def test_what_is_no_checkpoint_is_refused(place, content):
    torch.save(checkpoint_of(place.module, place.name), place.path)
    if content == "truncated":
        whole = place.path.read_bytes()
        place.path.write_bytes(whole[: len(whole) // 2])
    elif content == "empty":
        place.path.write_bytes(b"")
    elif content == "text":
        place.path.write_text("not a checkpoint\nat all\n")
    else:
        things = {"another torch file": {"weights": torch.zeros(3)}, "a list": [1, 2], "a tensor": torch.zeros(3)}
        torch.save(things.get(content), place.path)
    place.is_refused(str(place.path))


@pytest.mark.parametrize("key", ["model", "hyper_parameters", "state_dict", "run"])
def test_a_missing_part_is_refused(place, key):
    checkpoint = checkpoint_of(place.module, place.name)
    del checkpoint[key]
    torch.save(checkpoint, place.path)
    place.is_refused(str(place.path))


@pytest.mark.parametrize("change", ["lacks", "has more", "other shape", "other hyper-parameters", "no speakers"])
def test_another_versions_weights_are_refused(place, change):
    checkpoint = checkpoint_of(place.module, place.name)
    state = checkpoint["state_dict"] = dict(checkpoint["state_dict"])
    key = next(key for key, value in state.items() if value.ndim > 1)
    if change == "lacks":
        del state[key]
    elif change == "has more":
        state["extra.weight"] = torch.zeros(1)
    elif change == "other shape":
        state[key] = torch.zeros(1, 1)
    elif change == "other hyper-parameters":
        checkpoint["hyper_parameters"] = {"layers": 4}
    else:
        del checkpoint["run"]["train_speakers"]
    torch.save(checkpoint, place.path)
    place.is_refused(str(place.path))


def test_another_tasks_model_is_refused(tmp_path, tones):
    for kind in KINDS:
        for other in KINDS:
            place, wrong = Place(kind, tmp_path, tones), Place(other, tmp_path / "other", tones)
            torch.save(checkpoint_of(wrong.module, wrong.name), place.path)
            if kind == other:
                place.load()
            else:
                place.is_refused(wrong.name, place.name)


def test_one_that_heard_a_test_speaker_is_refused(each_place):
    torch.save(checkpoint_of(each_place.module, each_place.name, train_speakers=["01", "02", "05"]), each_place.path)
    each_place.is_refused("1 test speaker")


def test_one_of_another_corpus_is_noted(each_place, capsys):
    checkpoint = checkpoint_of(each_place.module, each_place.name, corpus="elsewhere", train_speakers=["05"])
    torch.save(checkpoint, each_place.path)
    each_place.load()
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and each_place.flag in told and "elsewhere" in told and "tones" in told


# --- hostile ones


def packed(checkpoint: dict, path: Path) -> None:
    """The same checkpoint, each part compressed."""
    torch.save(checkpoint, path)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)


def endless_text() -> tuple:
    """A small object that takes years to be shown: pairs of pairs of pairs."""
    pair = ("x", "x")
    for _ in range(60):
        pair = (pair, pair)
    return pair


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_unread(place, monkeypatch):
    checkpoint = checkpoint_of(place.module, place.name)
    packed(checkpoint | {"more": torch.zeros(MAX_BYTES, dtype=torch.uint8)}, place.path)
    assert place.path.stat().st_size < 2_000_000
    monkeypatch.setattr(torch, "load", None)
    place.is_refused("not a readable checkpoint")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(place, value):
    state = place.module.state_dict()
    list(state.values())[-1].view(-1)[0] = value
    torch.save(checkpoint_of(place.module, place.name), place.path)
    place.is_refused("no finite numbers")


def with_weight(change):
    def spoil(checkpoint):
        key = next(key for key, value in checkpoint["state_dict"].items() if value.ndim > 1)
        checkpoint["state_dict"][key] = change(checkpoint["state_dict"][key])

    return spoil


HOSTILE = {
    "a huge shape": with_weight(lambda value: torch.zeros(1).expand(10**6, 10**6)),
    "no dimension": with_weight(lambda value: torch.tensor(0.0)),
    "no tensor": with_weight(lambda value: "weights"),
    "a sparse tensor": with_weight(lambda value: torch.eye(3).to_sparse()),
    "weights in a list": lambda checkpoint: checkpoint.update(state_dict=[torch.zeros(3)]),
    "no weights": lambda checkpoint: checkpoint.update(state_dict={}),
    "a model without a name": lambda checkpoint: checkpoint.update(model=None),
    "an endless name": lambda checkpoint: checkpoint.update(model=endless_text()),
    "an endless corpus": lambda checkpoint: checkpoint["run"].update(corpus=endless_text()),
    "a very long name": lambda checkpoint: checkpoint.update(model="line\n" * 10**6),
    "a run in words": lambda checkpoint: checkpoint.update(run="yesterday"),
    "numbered hyper-parameters": lambda checkpoint: checkpoint.update(hyper_parameters={1: 2}),
    "hyper-parameters in a list": lambda checkpoint: checkpoint.update(hyper_parameters=["1d"]),
    "unhashable speakers": lambda checkpoint: checkpoint["run"].update(train_speakers=[["01"]]),
}


@pytest.mark.parametrize("spoil", HOSTILE)
def test_a_hostile_one_is_refused_in_one_short_line(place, spoil, recwarn):
    checkpoint = checkpoint_of(place.module, place.name)
    HOSTILE[spoil](checkpoint)
    torch.save(checkpoint, place.path)
    place.is_refused(str(place.path))
    assert not recwarn.list


def test_any_bytes_changed_are_a_checkpoint_or_one_line(place):
    torch.save(checkpoint_of(place.module, place.name), place.path)
    whole, rng = place.path.read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for number in range(60):
        content = bytearray(whole)
        if number % 3 == 0:
            del content[rng.integers(len(content)) :]
        else:  # the pickle is at the start, the table of contents at the end
            near = rng.integers(0, 4000, 20) if number % 3 == 1 else len(content) - rng.integers(1, 4000, 20)
            for where in near:
                content[where] = rng.integers(256)
        place.path.write_bytes(content)
        try:
            place.load()
            outcomes.add("read")
        except UserError as error:
            assert len(str(error)) < 1000 and "\n" not in str(error)
            outcomes.add("refused")
    assert "refused" in outcomes


@pytest.mark.parametrize(
    "task, flag",
    [(3, "--task1-checkpoint"), (3, "--task2-checkpoint"), (4, "--task2-checkpoint"), (5, "--task2-checkpoint")],
)
def test_each_task_refuses_a_hostile_one_before_it_writes_anything(tones, tmp_path, run_here, monkeypatch, task, flag):
    monkeypatch.chdir(tmp_path)
    places = {kind: Place(kind, tmp_path / "earlier", tones) for kind in KINDS}
    bomb = {"seed": Payload(os.system, f"touch {tmp_path / 'trace'}")}
    hostile = "contrastive" if flag == "--task2-checkpoint" else "2d"
    for kind, place in places.items():
        torch.save(checkpoint_of(place.module, place.name, **(bomb if kind == hostile else {})), place.path)
    flags = ["--data-dir", str(tones.corpus.root), "--num-workers", "0", "--output-dir", "output"]
    flags += ["--task2-checkpoint", str(places["contrastive"].path)]
    flags += ["--task1-checkpoint", str(tmp_path / "earlier")] if task == 3 else []
    with pytest.raises(SystemExit) as caught:
        run_here(f"task{task}.py", *flags)
    assert str(caught.value).startswith(f"task{task}.py: error: {flag}") and "\n" not in str(caught.value)
    assert not (tmp_path / "trace").exists() and not (tmp_path / "output").exists()

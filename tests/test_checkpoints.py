"""A checkpoint is data: it cannot run code, and one that would spoil the results is refused in one line."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from common.checkpoints import MAX_BYTES, load
from common.modules import ContrastiveModel, DigitClassifier
from common.networks import VoiceEmbedder
from common.speaker_space import load_spaces, store_spaces

from common.data import SpokenDigits
from common.evaluate import embed
from common.run import UserError
from common.training import fit

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple", "ignore:Sparse invariant")  # of strange files
KINDS = (ContrastiveModel, DigitClassifier)


class Stored:
    """A checkpoint of one kind: its content, its path, and the function that loads it."""

    def __init__(self, kind: type, path: Path, data: SpokenDigits, form: str = "1d") -> None:
        self.path, self.module = path, kind() if kind is ContrastiveModel else kind((form,))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.content = {
            "class": type(self.module).__name__,
            "hyper_parameters": dict(self.module.hparams),
            "state_dict": self.module.state_dict(),
            "run": {"corpus": "tones", "train_speakers": data.names("train", "val")},
        }
        self.load = lambda: load(path, kind, data)

    def save(self) -> None:
        torch.save(self.content, self.path)

    def is_refused(self, *words: str) -> None:
        with pytest.raises(UserError) as caught:
            self.load()
        message = str(caught.value)
        assert message.startswith(str(self.path)) and "\n" not in message and len(message) < 1000
        assert all(word in message for word in words), message


@pytest.fixture
def stored(tmp_path, tone_data) -> Stored:
    """One kind for all faults, since the same lines read both kinds."""
    return Stored(DigitClassifier, tmp_path / "best.ckpt", tone_data)


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    expected = second.state_dict()
    return all(torch.equal(value, expected.pop(key)) for key, value in first.state_dict().items()) and not expected


@pytest.mark.parametrize("make", [lambda: DigitClassifier(("2d",), frozen=True), ContrastiveModel])
def test_the_class_and_its_arguments_are_stored_and_the_label_may_be_anything(make, tone_data, make_run, tmp_path):
    model, path = make(), tmp_path / "model/best.ckpt"
    fit(model, tone_data, make_run(tmp_path), "model", label="supervised 1d\nor contrastive: as you like")
    if isinstance(model, ContrastiveModel):
        store_spaces(path, embed(VoiceEmbedder(model.embedder), tone_data.loader("train")))
    ours, of_lightning = load(path, type(model)), type(model).load_from_checkpoint(path)
    for loaded in (ours, of_lightning):
        assert type(loaded) is type(model) and loaded.hparams == model.hparams and same_weights(loaded, model)
    assert not any(module.training for module in ours.modules())


# --- what is refused


def test_a_missing_one_is_refused(stored):
    stored.is_refused("no such checkpoint", "python task1.py")


class Payload:
    """Unpickling this runs a command of the shell."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "beside the weights"])
def test_code_in_a_checkpoint_is_not_run(stored, tmp_path, form):
    trace = tmp_path / "trace"
    bomb = Payload(f"touch {trace}")
    if form == "beside the weights":
        stored.content["run"]["seed"] = bomb
        stored.save()
    elif form == "pickle":
        stored.path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, stored.path, _use_new_zipfile_serialization=form == "torch")
    stored.is_refused()
    assert not trace.exists()


def test_what_is_no_checkpoint_is_refused(stored):
    stored.save()
    whole = stored.path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint\nat all\n"):
        stored.path.write_bytes(content)
        stored.is_refused()


def test_another_tasks_model_is_refused(tmp_path, tone_data):
    for kind, other in (KINDS, KINDS[::-1]):
        stored = Stored(kind, tmp_path / "best.ckpt", tone_data)
        stored.content = Stored(other, tmp_path / "other.ckpt", tone_data).content
        stored.save()
        stored.is_refused(f"not a checkpoint of a {kind.__name__}")


def test_a_classifier_of_the_other_format_is_refused_where_the_format_matters(stored, tone_data):
    stored.save()
    assert load(stored.path, DigitClassifier, tone_data, formats=("1d",)).formats == ("1d",)
    stored.load = lambda: load(stored.path, DigitClassifier, tone_data, formats=("2d",))
    stored.is_refused("not a checkpoint of a DigitClassifier")


def test_one_that_was_trained_on_a_test_speaker_is_refused(stored, tone_data):
    stored.content["run"]["train_speakers"] = ["01", tone_data.names("test")[0]]
    stored.save()
    stored.is_refused("1 test speaker")


def test_one_of_another_corpus_is_noted(stored, tone_data, capsys):
    stored.content["run"] = {"corpus": "elsewhere", "train_speakers": tone_data.names("test")}
    stored.save()
    stored.load()
    note = capsys.readouterr().err
    assert note.count("\n") == 1 and str(stored.path) in note and "elsewhere" in note and "tones" in note


# --- strange and hostile ones


def other_weight(value: object) -> Callable[[dict], None]:
    return lambda content: content["state_dict"].update({"head.1.weight": value})


SPOILED = {
    "of the version before": lambda content: content.update(model=content.pop("class")),
    "other arguments": lambda content: content.update(hyper_parameters={"layers": 4}),
    "no record of its run": lambda content: content.pop("run"),
    "no speakers": lambda content: content["run"].pop("train_speakers"),
    "a temperature of nothing": lambda content: content.update(temperature=float("nan")),
    "a weight too few": lambda content: content["state_dict"].pop("head.1.weight"),
    "a weight too many": lambda content: content["state_dict"].update({"extra.weight": torch.zeros(1)}),
    "a huge weight": other_weight(torch.zeros(1).expand(10**6, 10**6)),
    "a weight that is not finite": other_weight(torch.full((10, 128), torch.inf)),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_strange_one_is_refused_in_one_short_line(stored, spoil):
    SPOILED[spoil](stored.content)
    stored.save()
    stored.is_refused("weights are not finite" if "finite" in spoil else "not a checkpoint of a DigitClassifier")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_unread(stored, monkeypatch):
    stored.save()
    with zipfile.ZipFile(stored.path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("best/data/more", bytes(MAX_BYTES))
    assert stored.path.stat().st_size < 2_000_000
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    stored.is_refused("not a checkpoint")


def test_a_checkpoint_without_its_speaker_space_is_refused(tmp_path, tone_data):
    stored = Stored(ContrastiveModel, tmp_path / "best.ckpt", tone_data)
    stored.load = lambda: load_spaces(stored.path)
    stored.save()
    stored.is_refused("no statistics")


@pytest.mark.parametrize("task, flag", [(3, "--task1-checkpoint"), *((n, "--task2-checkpoint") for n in (3, 4, 5))])
def test_each_task_refuses_a_hostile_one_before_it_writes_anything(
    tone_data, tmp_path, run_here, monkeypatch, task, flag
):
    monkeypatch.chdir(tmp_path)
    contrastive = Stored(ContrastiveModel, tmp_path / "best.ckpt", tone_data)
    paths = {name: tmp_path / f"{name}_checkpoints/best.ckpt" for name in ("1d", "2d")}
    supervised = [Stored(DigitClassifier, path, tone_data, name) for name, path in paths.items()]
    hostile = contrastive if flag == "--task2-checkpoint" else supervised[1]
    hostile.content["run"]["seed"] = Payload(f"touch {tmp_path / 'trace'}")
    for stored in (contrastive, *supervised):
        stored.save()
    flags = ["--data-dir", str(tone_data.corpus.root), "--num-workers", "0", "--output-dir", "output"]
    flags += ["--task2-checkpoint", str(contrastive.path)]
    flags += ["--task1-checkpoint", str(tmp_path)] if task == 3 else []
    with pytest.raises(SystemExit) as caught:
        run_here(f"task{task}.py", *flags)
    assert str(caught.value).startswith(f"task{task}.py: error: {hostile.path}") and "\n" not in str(caught.value)
    assert not (tmp_path / "trace").exists() and not (tmp_path / "output").exists()

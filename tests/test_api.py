"""What `from common import ...` gives, and the README's example of it."""

import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import common
from common import ContrastiveModel, DigitClassifier, Run, Settings, SpokenDigits, embed, fit, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_tones):
    """A folder with the clips of eight speakers where AudioMNIST is looked for."""
    folder = tmp_path_factory.mktemp("api")
    write_tones(folder / "data/AudioMNIST/data", [f"{i:02d}" for i in range(1, 9)], repetitions=5)
    return folder


@pytest.fixture
def tones(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what Lightning advises its users
def test_the_example_of_the_readme_runs(repository, tones, capsys):
    section = (repository / "README.md").read_text().split("\n## From Python\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert 0 <= float(capsys.readouterr().out.splitlines()[-1].split()[0]) <= 1, "it ends with an accuracy"


def test_every_public_name_exists_and_has_a_docstring():
    assert common.__all__ == dir(common)
    for name in common.__all__:
        thing = getattr(common, name)
        if callable(thing):
            assert thing.__doc__ and thing.__module__.startswith("common."), name


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(AttributeError, match=r"no attribute 'Enkoder1D'.*Encoder1D"):
        common.Enkoder1D  # noqa: B018
    with pytest.raises(ImportError):
        from common import Enkoder2D  # noqa: F401


def test_importing_common_imports_no_library(repository):
    libraries = ("torch", "numpy", "sklearn")
    code = f"import sys, common, common.corpus; print([name for name in {libraries} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
def test_what_trains_nothing_imports_no_lightning(repository):
    names = "task3, task4, common.voice.predict, common.voice.identify, common.corpus.command, common.report.__main__"
    code = (
        f"import sys, {names}; print({{'pytorch_lightning', 'lightning_fabric', 'torch._dynamo'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.slow
def test_a_user_without_a_name_can_import_what_pytorch_needs_a_name_for(repository):
    """A container may be started with a user id that is in no list of users."""
    code = "import pwd; pwd.getpwuid = lambda uid: {}[uid]; import common, torch._dynamo"
    nameless = {key: value for key, value in os.environ.items() if key not in ("LOGNAME", "USER", "LNAME", "USERNAME")}
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, env=nameless, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "common.voice.predict"], ["{}/common/voice/identify.py"]])
def test_commands_run_in_any_folder(repository, tmp_path, command):
    """Because ``uv sync`` installs ``common`` as a link."""
    if not any(importlib.metadata.distributions(name="audio-deep-learning-tasks")):
        pytest.skip("the project is not installed here")
    words = [sys.executable, *(word.format(repository) for word in command), "--help"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, text=True).stdout.startswith("usage:")


def test_every_argument_of_the_data_is_a_setting():
    arguments = inspect.signature(SpokenDigits).parameters
    assert set(Settings().data) == set(arguments)
    different = {"num_workers"}  # from Python no processes are started unless they are asked for
    assert all(arguments[name].default == value for name, value in Settings().data.items() if name not in different)


@pytest.mark.parametrize("kind, arguments", [(ContrastiveModel, []), (DigitClassifier, [["2d"]])])
def test_a_trained_model_is_loaded_with_the_same_weights(tones, kind, arguments):
    data, model = SpokenDigits(ratio=0.1), kind(*arguments)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = Settings(output_dir=Path(kind.__name__), epochs=1, lr=model.lr)
    run = Run(settings, data.describe(), model.embedder.sizes())
    (epoch,) = fit(model, data, run, "checkpoints", label="test")
    assert epoch["epoch"] == 1 and epoch["val_loss"] > 0
    loaded = load(run.folder / "checkpoints/best.ckpt", kind)
    assert not loaded.training
    after = loaded.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    ours, theirs = (embed(m.embedder, data.loader("test")).z for m in (model, loaded))
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_encoders_and_loss_are_plain_pytorch():
    wave = torch.randn(4, 16_000)
    a, b = common.Encoder1D()(wave), common.Encoder2D()(common.LogMel()(wave))
    assert a.shape == b.shape == (4, common.EMBEDDING_DIM)
    common.info_nce(a, b).backward()

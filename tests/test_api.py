"""What `from common import ...` gives, and the README's example of it."""

import importlib.metadata
import inspect
import re
import subprocess
import sys

import pytest
import torch

import common
from common import Settings, SpokenDigits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what Lightning advises its users
def test_the_example_of_the_readme_runs(repository, write_tones, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tones(tmp_path / "data/AudioMNIST/data", [f"{i:02d}" for i in range(1, 9)], repetitions=5)
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


def test_importing_common_imports_no_library(repository):
    libraries = ("torch", "numpy", "sklearn")
    code = f"import sys, common, common.corpus; print([name for name in {libraries} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
def test_what_trains_nothing_imports_no_lightning(repository):
    names = "task3, task4, common.voice, common.corpus.command, common.report.__main__"
    code = (
        f"import sys, {names}; print({{'pytorch_lightning', 'lightning_fabric', 'torch._dynamo'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "common.voice"], ["{}/common/report/seeds.py"]])
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


def test_encoders_and_loss_are_plain_pytorch():
    wave = torch.randn(4, 16_000)
    a, b = common.Encoder1D()(wave), common.Encoder2D()(common.LogMel()(wave))
    assert a.shape == b.shape == (4, common.EMBEDDING_DIM)
    common.info_nce(a, b).backward()

"""What `from common import ...` gives, and the README's example of it."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import common
from common import ContrastiveModel, DigitClassifier, Embedder, SpokenDigits, UserError, embed, load, train
from common.checkpoints import load_encoders
from common.run.cli import task_parser


@pytest.fixture
def tones(tmp_path, write_tones, monkeypatch):
    """A working folder with eight speakers where AudioMNIST is looked for."""
    monkeypatch.chdir(tmp_path)
    write_tones(tmp_path / "data/AudioMNIST/data", [f"{i:02d}" for i in range(1, 9)], repetitions=10)
    return tmp_path


def test_the_readmes_example_runs(repository, tones, capsys):
    section = (repository / "README.md").read_text().split("\n## From Python\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out.splitlines()[-1]) <= 1
    assert (tones / "digits.png").stat().st_size > 5000 and (tones / "my_model/best.ckpt").is_file()


def test_every_name_is_there_and_has_a_docstring():
    for name in common.__all__:
        thing = getattr(common, name)
        if callable(thing):
            assert thing.__doc__ and thing.__module__.startswith("common."), name
    assert set(common.__all__) <= set(dir(common))


def test_a_name_that_is_not_there_is_told():
    with pytest.raises(AttributeError, match=r"no attribute 'Enkoder1D'.*Encoder1D"):
        common.Enkoder1D  # noqa: B018
    with pytest.raises(ImportError):
        from common import Enkoder2D  # noqa: F401


def test_importing_common_imports_nothing_else(repository):
    slow = ("torch", "numpy", "sklearn", "common.run.cli")
    code = f"import sys, common, common.run.console; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_data_of_python_are_those_of_the_command_line(tones):
    folder = "data/AudioMNIST"
    flags = ["--data-dir", folder, "--ratio", "0.5", "--seed", "7", "--num-workers", "0"]
    theirs = SpokenDigits(task_parser("", "output").parse_args(flags))
    ours = SpokenDigits.open(folder, ratio=0.5, seed=7)
    assert ours.cached.clips == theirs.cached.clips
    assert all(np.array_equal(a, b) for a, b in zip(ours.split, theirs.split, strict=True))


@pytest.mark.parametrize(
    "flags, named",
    [
        ({"ratio": 2}, "--ratio"),
        ({"speed": 3}, "--speed"),
        ({"seed": "x"}, "--seed"),
        ({"dataset": "mnist"}, "--dataset"),
        ({"data_dir": "nowhere"}, "no such folder"),
    ],
)
def test_what_the_command_line_refuses_is_refused_here(flags, named):
    with pytest.raises(UserError, match=named) as caught:
        SpokenDigits.open(**flags)
    assert "\n" not in str(caught.value)


MODELS = [
    lambda: ContrastiveModel(),
    lambda: DigitClassifier(("2d",)),
    lambda: DigitClassifier(("1d", "2d"), frozen=True),
]


@pytest.mark.parametrize("make", MODELS, ids=["contrastive", "supervised", "frozen"])
def test_what_is_trained_can_be_loaded_and_says_the_same(tones, make):
    data = SpokenDigits.open(ratio=0.1)
    torch.manual_seed(0)
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert train(model, data, "model", epochs=1) is model and not model.training
    again = load("model/best.ckpt")
    assert type(again) is type(model) and not again.training
    after = again.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    ours, theirs = (embed(m.embedder, data.loader("test")).z for m in (model, again))
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_contrastive_model_knows_how_its_embeddings_spread(tones):
    data = SpokenDigits.open(ratio=0.1)
    model = train(ContrastiveModel(), data, "model", epochs=1)
    z = embed(model.embedder, data.loader("train")).z["concat"]
    _, spread = load_encoders(tones / "model/best.ckpt")
    assert np.allclose(spread.mean, z.mean(axis=0), atol=1e-5)
    assert np.allclose(spread.covariance, np.cov(z.T), atol=1e-5)


def test_encoders_and_loss_are_plain_pytorch():
    wave = torch.randn(4, 16_000)
    a, b = common.Encoder1D()(wave), common.Encoder2D()(common.LogMel()(wave))
    assert a.shape == b.shape == (4, common.EMBEDDING_DIM)
    common.info_nce(a, b).backward()
    assert set(Embedder(("1d",)).eval()(torch.zeros(2, 16_000, dtype=torch.int16))) == {"1d"}

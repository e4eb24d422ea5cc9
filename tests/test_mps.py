"""A Mac's GPU can take every operator of a training step and of an evaluation step, as far as one can tell elsewhere.

The table in PyTorch's wheel says which operators exist there. Which of them take complex numbers, and that memory
formats other than contiguous fail in some backward steps, was read from the kernels of torch 2.11. This says nothing of
speed or exactness, and cannot replace a run on a Mac.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchgen
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.augmentation import Augmentation, _power, random_noise
from common.data import Batch, pick_device
from common.encoders import Embedder, Encoder1D, Encoder2D
from common.models import ContrastiveModel, DigitClassifier
from common.saliency import explain

COMPOSITE = {"CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"}


# Operators of our steps that take complex numbers on MPS in torch 2.11. Others do not: repeat raises, normal_ is wrong.
COMPLEX_NAMES = """_conj _fft_c2c _fft_c2r _fft_r2c abs add add_ as_strided clone conj_physical copy_ detach div empty
empty_like expand fft_irfft fft_rfft fill_ imag index index_put index_put_ index_select mul mul_ new_zeros real select
select_backward slice slice_backward squeeze sum transpose transpose_ unsqueeze view view_as_complex view_as_real zeros
zeros_like"""
COMPLEX_ON_MPS = set(COMPLEX_NAMES.split())
# Their backward kernels take no other memory format than contiguous, see ``common.encoders.in_order``.
CONTIGUOUS_ON_MPS = ("batch_norm", "avg_pool2d", "convolution")


class Recorder(TorchDispatchMode):
    """The names of the operators that run, the types of their tensors, and what MPS would not take."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[str] = set()
        self.dtypes: set[torch.dtype] = set()
        self.complex: set[str] = set()  # operators with complex tensors
        self.formats: set[str] = set()  # operators with images [B, C, H, W] that are not contiguous

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators |= {func.name()} if func.namespace == "aten" else set()  # the optimiser calls a profiler too
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        self.dtypes |= {x.dtype for x in tensors}
        name = func.name().removeprefix("aten::").split(".")[0]
        self.complex |= {name} if any(x.is_complex() for x in tensors) else set()
        images = [x for x in tensors if x.ndim == 4 and any(kind in name for kind in CONTIGUOUS_ON_MPS)]
        self.formats |= {name} if any(not x.is_contiguous() for x in images) else set()
        return result


@pytest.fixture(scope="module")
def table() -> dict[str, dict]:
    """{"aten::add.Tensor": its entry in the table}."""
    path = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    entries = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {f"aten::{entry['func'].split('(')[0]}": entry for entry in entries}


def runs_on_mps(table: dict[str, dict], name: str) -> bool:
    entry = table[name.removesuffix(".default")]
    if delegate := entry.get("structured_delegate"):
        entry = table[f"aten::{delegate}"]
    keys = {key.strip() for keys in entry.get("dispatch", {"CompositeImplicitAutograd": ""}) for key in keys.split(",")}
    return bool(keys & (COMPOSITE | {"MPS"}))


@pytest.mark.filterwarnings("ignore:You are trying to .self.log")
@pytest.mark.parametrize("make", [lambda augment: DigitClassifier(("1d", "2d"), augment), ContrastiveModel])
def test_each_operator_of_a_step_runs_on_mps(table, make, monkeypatch):
    monkeypatch.setattr("common.encoders.CONTIGUOUS_ON", {"cpu"})
    assert not runs_on_mps(table, "aten::mkldnn_linear"), "the table tells what is missing"
    wave = torch.randint(-20_000, 20_000, (4, 16_000), dtype=torch.int16)
    batch = Batch(wave, torch.arange(4), torch.arange(4))
    model = make(Augmentation(rooms=True)).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with Recorder() as recorder:
        model.training_step(batch).backward()
        optimizer.step()
        model.eval()
        with torch.inference_mode():
            model.validation_step(batch)
        if isinstance(model, DigitClassifier):
            explain(model.network, batch)
    assert len(recorder.operators) > 20
    assert [name for name in sorted(recorder.operators) if not runs_on_mps(table, name)] == []
    assert torch.float64 not in recorder.dtypes and torch.complex128 not in recorder.dtypes
    assert recorder.complex - COMPLEX_ON_MPS == set()
    assert recorder.formats == set()


@pytest.mark.parametrize("make", [Encoder1D, Encoder2D])
def test_contiguous_tensors_change_no_embedding(make, monkeypatch):
    torch.manual_seed(0)
    encoder = make().eval()
    inputs = torch.randn(3, 16_000) if make is Encoder1D else torch.randn(3, 101, 64).transpose(1, 2)
    with torch.inference_mode():
        expected = encoder(inputs)
        monkeypatch.setattr("common.encoders.CONTIGUOUS_ON", {"cpu"})
        torch.testing.assert_close(encoder(inputs), expected, atol=1e-5, rtol=1e-5)


def test_noise_has_the_power_that_was_asked_for():
    torch.manual_seed(0)
    spectrum = torch.fft.rfft(torch.randn(64, 16_000))
    ratios = [_power(spectrum) / _power(random_noise(spectrum, (10.0, 10.0))) for _ in range(10)]
    assert 10 * torch.cat(ratios).mean().log10() == pytest.approx(10, abs=0.1)  # dB


def test_automatic_choice_is_never_a_macs_gpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("mps"))
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("mps").type == "mps"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_does_not_reach_what_the_encoders_see(dtype):
    """Babble is a matrix product and log-mel another one, which autocast would calculate in half precision."""
    embedder, augmentation = Embedder(), Augmentation(rooms=True)
    wave = torch.randint(-20_000, 20_000, (8, 16_000), dtype=torch.int16)
    torch.manual_seed(0)
    expected = embedder.views(wave, augmentation)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype):
        seen = embedder.views(wave, augmentation)
    for name, view in expected.items():
        torch.testing.assert_close(seen[name], view, atol=0, rtol=0)

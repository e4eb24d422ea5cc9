"""Every operator of a training step and of an evaluation step exists on a Mac's GPU, by the table in PyTorch's wheel.

This says nothing of their speed or exactness there, and cannot replace a run on a Mac.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchgen
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.batches import Batch
from common.modules import ContrastiveModel, DigitClassifier
from common.saliency import explain

COMPOSITE = {"CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"}


class Recorder(TorchDispatchMode):
    """The names of the operators that run, and the types of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[str] = set()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators |= {func.name()} if func.namespace == "aten" else set()  # the optimiser calls a profiler too
        self.dtypes |= {x.dtype for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)}
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


@pytest.mark.parametrize("make", [lambda: DigitClassifier(("1d", "2d"), encoder_lr=1e-4), ContrastiveModel])
def test_each_operator_of_a_step_exists_on_mps_and_none_uses_double_precision(table, make):
    assert not runs_on_mps(table, "aten::mkldnn_linear"), "the table tells what is missing"
    wave = torch.randint(-20_000, 20_000, (4, 16_000), dtype=torch.int16)
    batch = Batch(wave, torch.arange(4), torch.arange(4))
    model = make().train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with Recorder() as recorder:
        model.training_step(batch).backward()
        optimizer.step()
        model.eval()
        with torch.inference_mode():
            model.validation_step(batch)
        if isinstance(model, DigitClassifier):
            explain(model, batch)
    assert len(recorder.operators) > 20
    assert [name for name in sorted(recorder.operators) if not runs_on_mps(table, name)] == []
    assert torch.float64 not in recorder.dtypes and torch.complex128 not in recorder.dtypes

"""How far the training steps are from what the machine could do at best.

    python tests/benchmarks/limit.py

For each operator of a step of 64 clips (augmentation, forward, backward, AdamW) the floating-point operations of
convolutions, matrix products and Fourier transforms are counted, and the bytes that it reads and writes. It takes at
least the longer of two times: its operations at the rate of a large matrix product, and its bytes at the rate of a
large copy, both measured here. Their sum bounds a step from below, as long as no operators are fused.
"""

import math
import statistics
import time
from typing import Any

import torch
from task_models import MODELS
from timing import repeatedly, show
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from common.data import Batch
from common.run.cli import keep_freed_memory

BATCH, ROUNDS = 64, 7
TRANSFORMS = (torch.ops.aten._fft_r2c, torch.ops.aten._fft_c2r)


class Costs(TorchDispatchMode):
    """Adds up operations and bytes, and the time that they take at least at the given rates per second."""

    def __init__(self, operations_rate: float, bytes_rate: float) -> None:
        super().__init__()
        self.rates = operations_rate, bytes_rate
        self.operations = self.bytes = self.seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view:
            return result
        operator, operations = func.overloadpacket, 0.0
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        if operator in TRANSFORMS:  # 2.5 n log2(n) for the n real samples of one transform
            real = next(x for x in (args[0], result) if not x.is_complex())
            operations = real.numel() * 2.5 * math.log2(real.shape[args[1][0]])
        elif operator in flop_registry:
            operations = flop_registry[operator](*args, **kwargs, out_val=result)
        size = sum(min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) for x in tensors)
        self.operations += operations
        self.bytes += size
        self.seconds += max(operations / self.rates[0], size / self.rates[1])
        return result


def machine_rates() -> tuple[float, float]:
    """Operations per second of a product of two matrices, and bytes per second that a copy reads and writes."""
    a, b, source, target = torch.rand(2048, 2048), torch.rand(2048, 2048), torch.rand(2**26), torch.empty(2**26)
    product = min(repeatedly(lambda: a @ b) for _ in range(3))
    copy = min(repeatedly(lambda: target.copy_(source)) for _ in range(3))
    return 2 * 2048**3 / product, 2 * 4 * 2**26 / copy


def main() -> None:
    keep_freed_memory()
    operations_rate, bytes_rate = machine_rates()
    generator = torch.Generator().manual_seed(0)
    wave = torch.randint(-20_000, 20_000, (BATCH, 16_000), generator=generator).short()
    batch = Batch(wave, torch.arange(BATCH) % 10, torch.arange(BATCH))
    table = [["step", "operations", "bytes", "at least", "measured", "ratio"]]
    for name, make in MODELS.items():
        model = make().train()
        optimizer = model.optimizer([{"params": model.parameters()}])

        def step(model: Any = model, optimizer: Any = optimizer) -> None:
            loss = model.training_step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        step()
        times = []
        for _ in range(ROUNDS):
            times.append(repeatedly(step))
            time.sleep(0.1)
        with Costs(operations_rate, bytes_rate) as costs:
            step()
        measured = statistics.median(times)
        sizes = [f"{costs.operations / 1e9:.2f} G", f"{costs.bytes / 1e6:.0f} MB"]
        shown = [f"{1e3 * costs.seconds:.1f} ms", f"{1e3 * measured:.1f} ms", f"{measured / costs.seconds:.1f}"]
        table.append([name, *sizes, *shown])
    rates = f"{operations_rate / 1e9:.0f} GFLOP/s, {bytes_rate / 1e9:.1f} GB/s, {torch.get_num_threads()} threads"
    show(f"Training steps of {BATCH} clips; {rates}", table)


if __name__ == "__main__":
    main()

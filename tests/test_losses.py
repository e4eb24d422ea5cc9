"""InfoNCE against a naive double loop, closed forms and numerical gradients."""

import math

import pytest
import torch
import torch.distributed as dist

from common.losses import gather, info_nce


def naive_info_nce(a: torch.Tensor, b: torch.Tensor, temperature: float) -> float:
    def similarity(x, y) -> float:
        dot, norms = sum(p * q for p, q in zip(x, y, strict=True)), math.hypot(*x) * math.hypot(*y)
        return dot / norms / temperature

    rows, columns = a.tolist(), b.tolist()
    total = 0.0
    for i in range(len(rows)):
        own = similarity(rows[i], columns[i])
        total -= own - math.log(sum(math.exp(similarity(rows[i], other)) for other in columns))
        total -= own - math.log(sum(math.exp(similarity(other, columns[i])) for other in rows))
    return total / (2 * len(rows))


def pair(size: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, dim, dtype=torch.float64, generator=generator) for _ in range(2))


@pytest.mark.parametrize("size, dim, temperature", [(2, 3, 1.0), (5, 4, 0.1), (8, 2, 0.5), (1, 4, 0.1)])
def test_equals_a_naive_double_loop(size, dim, temperature):
    a, b = pair(size, dim)
    assert info_nce(a, b).item() == pytest.approx(naive_info_nce(a, b, 0.2), rel=1e-10, abs=1e-12), "the default"
    assert info_nce(a, b, temperature).item() == pytest.approx(naive_info_nce(a, b, temperature), rel=1e-10, abs=1e-12)


def test_equal_embeddings_are_at_chance_and_orthogonal_ones_below():
    z = torch.ones(64, 5, dtype=torch.float64)
    assert info_nce(z, z).item() == pytest.approx(math.log(64), abs=1e-12)
    z = torch.eye(7, dtype=torch.float64)
    assert info_nce(z, 3 * z, 0.1).item() == pytest.approx(math.log(1 + 6 * math.exp(-10)), rel=1e-9)


def one_of_two_processes(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    x, first, second = clips_and_layers()
    mine = slice(32 * rank, 32 * rank + 32)
    loss = info_nce(gather(x[mine] @ first), gather(x[mine] @ second), 0.2)
    gradients = torch.autograd.grad(loss, [first, second])
    for gradient in gradients:  # as DDP does
        dist.all_reduce(gradient)
        gradient /= 2
    torch.save([loss.detach(), *gradients], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def clips_and_layers() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 10), (10, 6), (10, 6)]
    x, first, second = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return [x, first.requires_grad_(), second.requires_grad_()]


@pytest.mark.slow  # two new processes import torch
def test_two_processes_of_32_give_loss_and_gradients_of_one_of_64(tmp_path):
    torch.multiprocessing.spawn(one_of_two_processes, (str(tmp_path),), nprocs=2)
    x, first, second = clips_and_layers()
    loss = info_nce(x @ first, x @ second, 0.2)
    expected = [loss.detach(), *torch.autograd.grad(loss, [first, second])]
    for rank in (0, 1):
        for got, wanted in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected, strict=True):
            torch.testing.assert_close(got, wanted)

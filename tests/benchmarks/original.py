"""Size and training speed against the original design: parameters and milliseconds per training step of 64 clips.

    python tests/benchmarks/original.py                  on the CPU: two minutes on 2 cores
    python tests/benchmarks/original.py --device cuda

The original encoders had 4 layers of 64, 128, 256 and 512 channels, embeddings of 512 dimensions, about 4.3M
parameters together, and clips padded to 3 s. That much is known; kernels and strides are a reconstruction. If the
2D kernels are 3x3, the parameter count leaves 13 samples for the 1D ones. The strides (1D: 8, then 4; 2D: 2) shorten
the signal early, which favours the original. A step is forward, backward and AdamW, with a linear layer to ten digits.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from task_models import digit_classifier
from timing import interleave, ratio, repeatedly, show
from torch import Tensor, nn

from common.audio import SAMPLE_RATE, LogMel, to_float
from common.encoders import EMBEDDING_DIM, Encoder1D, Encoder2D

BATCH = 64
CHANNELS = (1, 64, 128, 256, 512)
ORIGINAL_DIM = 512


def original_1d() -> nn.Sequential:
    """[B, N] -> [B, 512]."""
    sizes = zip(itertools.pairwise(CHANNELS), (8, 4, 4, 4), strict=True)
    return _chain([nn.Conv1d(i, o, 13, stride, 6) for (i, o), stride in sizes], nn.BatchNorm1d, nn.AdaptiveAvgPool1d(1))


def original_2d() -> nn.Sequential:
    """[B, 64, T] -> [B, 512]."""
    sizes = itertools.pairwise(CHANNELS)
    return _chain([nn.Conv2d(i, o, 3, 2, 1) for i, o in sizes], nn.BatchNorm2d, nn.AdaptiveAvgPool2d(1))


def _chain(convolutions: list, norm: type[nn.Module], pool: nn.Module) -> nn.Sequential:
    layers = [(convolution, norm(convolution.out_channels), nn.ReLU()) for convolution in convolutions]
    end = (pool, nn.Flatten(), nn.Linear(CHANNELS[-1], ORIGINAL_DIM))
    return nn.Sequential(nn.Unflatten(1, (1, -1)), *itertools.chain(*layers), *end)


class FrontEnd(nn.Module):
    """Cached samples [B, N] int16 to the input of an encoder: [B, N] float for "1d", [B, 64, T] for "2d"."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.features = LogMel() if name == "2d" else nn.Identity()

    def forward(self, wave: Tensor) -> Tensor:
        return self.features(to_float(wave))


class WholeStep(nn.Module):
    """What task 1 does with cached samples in training: [B, N] int16 -> logits [B, 10]."""

    def __init__(self, name: str) -> None:
        super().__init__()
        classifier = digit_classifier(name)
        self.network, self.augmentation = classifier.network, classifier.augmentation

    def forward(self, wave: Tensor) -> Tensor:
        embedder = self.network.embedder
        return self.network.classify(embedder.encode(embedder.views(wave, self.augmentation)))


def steps(model: nn.Module, inputs: Tensor) -> Callable[[], float]:
    """A function that trains ``model`` for half a second, at least one step, and returns the seconds per step.

    Args:
        model: maps ``inputs`` to logits [B, 10].
    """
    model = model.to(inputs.device).train()
    digit = torch.arange(BATCH, device=inputs.device) % 10
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), digit).backward()
        optimizer.step()
        if inputs.device.type != "cpu":
            torch.accelerator.synchronize()

    return lambda: repeatedly(step)


def compare(name: str, device: str, repeats: int) -> list[list[str]]:
    """The rows for one format of the table of speeds."""

    def wave(seconds: int) -> Tensor:
        return torch.randint(-8000, 8000, (BATCH, seconds * SAMPLE_RATE), dtype=torch.int16, device=device)

    ours, original = ENCODERS[name]
    front_end = FrontEnd(name).to(device)
    encoder = steps(nn.Sequential(ours(), nn.Linear(EMBEDDING_DIM, 10)), front_end(wave(1)))
    theirs = {s: steps(nn.Sequential(original(), nn.Linear(ORIGINAL_DIM, 10)), front_end(wave(s))) for s in (1, 3)}
    whole_theirs = steps(nn.Sequential(FrontEnd(name), original(), nn.Linear(ORIGINAL_DIM, 10)), wave(3))
    pairs = {
        "encoder, 1 s against 3 s": (encoder, theirs[3]),
        "encoder, 1 s against 1 s": (encoder, theirs[1]),
        "whole step, 1 s against 3 s": (steps(WholeStep(name), wave(1)), whole_theirs),
    }
    rows = []
    for what, pair in pairs.items():
        times = interleave(f"{name} {what}", dict(zip(("ours", "original"), pair, strict=True)), repeats)
        medians = [f"{1000 * statistics.median(times[key]):.1f}" for key in ("ours", "original")]
        rows.append([f"{name} {what}", *medians, ratio(times["original"], times["ours"])])
    return rows


ENCODERS = {"1d": (Encoder1D, original_1d), "2d": (Encoder2D, original_2d)}


def main(args: argparse.Namespace) -> None:
    sizes = {name: [sum(p.numel() for p in make().parameters()) for make in pair] for name, pair in ENCODERS.items()}
    sizes["both"] = [sum(pair) for pair in zip(*sizes.values(), strict=True)]
    rows = [[name, f"{ours:,}", f"{theirs:,}", f"{theirs / ours:.1f}x"] for name, (ours, theirs) in sizes.items()]
    show("Parameters", [["encoder", "ours", "original", "fewer"], *rows])
    head = ["", "ours, ms", "original, ms", "faster (range)"]
    rows = [row for name in ENCODERS for row in compare(name, args.device, args.repeats)]
    show(f"Training step of {BATCH} clips, {args.device}, {torch.get_num_threads()} threads", [head, *rows])
    print("\nA whole step begins with int16 samples: both sides compute the log-mel, and only ours augments.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    main(parser.parse_args())

"""Clips in batches: what a step of training gets, and in which order."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler


class Batch(NamedTuple):
    """Clips of one step."""

    waveform: Tensor  # [B, N] int16 at 16 kHz
    digit: Tensor  # [B] int64
    speaker: Tensor  # [B] int64, index into SpokenDigits.speakers


class EmbeddedBatch(NamedTuple):
    """Clips of one step whose embeddings were computed before, because their encoders are frozen."""

    embedding: Tensor  # [B, D] float32
    digit: Tensor  # [B] int64
    speaker: Tensor  # [B] int64


class Examples(Dataset):
    """Rows of ``inputs`` with their labels. Whole batches are read at once, straight from the array.

    Args:
        inputs: [clips, ...] memory-mapped, in memory, or a tensor on the training device.
        digit, speaker: [n] labels.
        rows: [n] rows of ``inputs`` that belong to this set.
        batch: the type of a batch.
    """

    def __init__(self, inputs: Any, digit: Any, speaker: Any, rows: np.ndarray, batch: type = Batch) -> None:
        self.inputs, self.rows, self.batch = inputs, rows, batch
        self.digit, self.speaker = torch.as_tensor(digit), torch.as_tensor(speaker)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch | EmbeddedBatch:
        picked = np.asarray(indices)
        return self.batch(torch.as_tensor(self.inputs[self.rows[picked]]), self.digit[picked], self.speaker[picked])

    def __getstate__(self) -> dict[str, Any]:
        # A spawned loader process gets a copy of this object. It maps the file itself rather than receive a copy of it.
        mapped = isinstance(self.inputs, np.memmap)
        return vars(self) | ({"inputs": (self.inputs.filename, self.inputs.shape)} if mapped else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(self.inputs, tuple):
            path, shape = self.inputs
            self.inputs = np.memmap(path, np.int16, mode="r", shape=shape)


class Passes(DistributedSampler):
    """``length`` rows for each process and epoch: as many passes through the clips as that takes, the last cut short.

    Each pass has an order of its own.
    """

    def __init__(self, length: int, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.length = length

    def __iter__(self) -> Iterator[int]:
        epoch, rows, passes = self.epoch, [], -(-self.length // super().__len__())
        for index in range(passes):
            self.epoch = epoch * passes + index  # it decides the order
            rows += list(super().__iter__())
        self.epoch = epoch
        return iter(rows[: self.length])

    def __len__(self) -> int:
        return self.length

"""The data of an experiment: the train, validation and test clips of one corpus, in batches.

python -m common.data --data-dir DIR      shows the clips and speakers of each set
"""

import copy
import functools
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from common.audio import to_float
from common.augmentation import Augmentation
from common.corpus import speaker_names, split_clips, stratified_sample
from common.corpus.cache import open_cache, usable_cores
from common.corpus.source import AUDIOMNIST_DIR, downloaded_commit, find_corpus
from common.run import UserError, shortened

CACHE_DIR = Path("data/cache")
MAX_WORKERS = 4  # loader processes, where the user asks for no number
ORDER = 2**16  # purpose of a seed, see ``epoch_seed``
MIN_STEPS = 24  # in an epoch: 50 epochs of fewer are not enough for noise and rooms to be learned as well


class Batch(NamedTuple):
    """Clips of one step."""

    waveform: Tensor  # [B, N] int16 at 16 kHz; of ``SpokenDigits.with_embeddings`` [B, D] float32
    digit: Tensor  # [B] int64
    speaker: Tensor  # [B] int64, index into SpokenDigits.speakers


class Examples(Dataset):
    """Rows of ``inputs`` with their labels. Whole batches are read at once, straight from the array.

    Args:
        inputs: [clips, ...] memory-mapped, in memory, or a tensor on the training device.
        digit, speaker: [n] labels.
        rows: [n] rows of ``inputs`` that belong to this set.
    """

    def __init__(self, inputs: Any, digit: Any, speaker: Any, rows: np.ndarray) -> None:
        self.inputs, self.rows = inputs, rows
        self.digit, self.speaker = torch.as_tensor(digit), torch.as_tensor(speaker)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        picked = np.asarray(indices)
        return Batch(torch.as_tensor(self.inputs[self.rows[picked]]), self.digit[picked], self.speaker[picked])

    def __getstate__(self) -> dict[str, Any]:
        # A memory map is pickled as a copy of its content. A spawned loader process is to map the file itself.
        path = {"inputs": Path(str(self.inputs.filename))} if isinstance(self.inputs, np.memmap) else {}
        return vars(self) | path

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(self.inputs, Path):
            self.inputs = np.load(self.inputs, mmap_mode="r")


class SpokenDigits:
    """Train, validation and test clips of one corpus, each one second at 16 kHz as int16; no test speaker in training.

    ``loader("train")`` serves them in batches, ``split`` and ``cached`` tell which clips they are.

    Args:
        data_dir: folder with the clips; without it ``dataset`` decides.
        dataset: "auto", "audiomnist" or "synthetic", see ``common.corpus.source.find_corpus``.
        ratio: fraction of the clips to use, stratified by speaker and digit.
        seed: of the choice of clips, the split, and the order in which they are trained on.
        fold: 1 to 5, a published fold of AudioMNIST in place of our split.
        label_ratio: fraction of the training and validation clips that remain, stratified. An epoch has as many steps
            as with all of them, so that few labels do not mean little training.
        num_workers: loader processes; None for up to 4, on cores that training leaves free.
        accelerator: the device that needs the batches: "auto", "cpu", "gpu" or "mps".
        processes: how many share the training clips.

    Raises:
        UserError: no such folder, no clips, too few of them to split, nothing readable, no such accelerator, or an
            argument out of range.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        *,
        dataset: str = "auto",
        ratio: float = 1.0,
        seed: int = 42,
        fold: int | None = None,
        label_ratio: float = 1.0,
        batch_size: int = 64,
        num_workers: int | None = 0,
        accelerator: str = "auto",
        processes: int = 1,
    ) -> None:
        if not (0 < ratio <= 1 and 0 < label_ratio <= 1) or fold not in (None, 1, 2, 3, 4, 5):
            given = f"got ratio {ratio}, label ratio {label_ratio} and fold {fold}"
            raise UserError(f"expected ratios above 0 and at most 1, and a fold from 1 to 5; {given}")
        self.seed, self.batch_size = seed, batch_size
        self.device = pick_device(accelerator, processes)
        self.corpus = find_corpus(None if data_dir is None else Path(data_dir), dataset, ratio, seed)
        self.cached = open_cache(self.corpus, CACHE_DIR)
        waves: np.ndarray | Tensor = self.cached.waves
        if self.device.type != "cpu" and not num_workers:  # on a GPU the clips need no loader processes
            waves, num_workers = torch.from_numpy(np.array(waves)).to(self.device), 0
        elif num_workers is None:
            # Reading a batch means copying 2 MB: a worker on a core that computes delays the computation by more.
            num_workers = min(MAX_WORKERS, max(0, usable_cores() - torch.get_num_threads()))
        self.num_workers = num_workers
        self.split = split_clips(self.cached.clips, seed, fold)
        self.steps = _steps(len(self.split.train), batch_size)
        if label_ratio < 1:  # whoever has few labels has few for validation too
            train, val = (
                rows[stratified_sample([self.cached.clips[row] for row in rows], label_ratio, seed)]
                for rows in (self.split.train, self.split.val)
            )
            self.split = self.split._replace(train=train, val=val)
        counts = len(self.split.train), len(self.split.val)
        if counts[0] < 2 * processes or not counts[1]:  # BatchNorm needs two clips
            few = f"{counts[0]} training and {counts[1]} validation clips are too few for {processes} process(es)"
            raise UserError(f"{few}; raise --ratio or --label-ratio, or lower --devices")
        # With few clips, an epoch is several passes through them, and a batch at most one of these.
        self.train_batch_size = min(batch_size, counts[0] // processes)
        self.speakers = speaker_names(self.cached.clips)
        digit = np.array([clip.digit for clip in self.cached.clips])  # [clips]
        speaker = np.array([self.speakers.index(clip.speaker) for clip in self.cached.clips])  # [clips]
        # Sorted by speaker and digit, a validation batch would hold almost nothing but one speaker: InfoNCE would then
        # compare clips of one voice, and select by another criterion than it trains on.
        rows = self.split._asdict() | {"val": np.random.default_rng(seed).permutation(self.split.val)}
        self.examples = {name: Examples(waves, digit[part], speaker[part], part) for name, part in rows.items()}
        self.selection = self.examples["val"]  # what the best epoch is chosen on

    def describe(self) -> dict[str, Any]:
        """What these data are, for the record of a run: plain numbers and strings."""
        return {
            "corpus": self.corpus.name,
            "corpus_commit": downloaded_commit(AUDIOMNIST_DIR) if self.corpus.root == AUDIOMNIST_DIR / "data" else None,
            "fingerprint": self.cached.key,  # of the clips and settings that the waveforms were made from
            "clips": {name: len(examples) for name, examples in self.examples.items()},
            "skipped": len(self.cached.skipped),  # clips that could not be used
            "ignored": self.corpus.ignored,  # files that are not clips
            "speakers": len(self.speakers),
            "train_speakers": self.names("train", "val"),
            "split": hashlib.sha256(repr([part.tolist() for part in self.split]).encode()).hexdigest()[:16],
        }

    def names(self, *sets: str) -> list[str]:
        """The speakers of these sets, in natural order."""
        return [self.speakers[i] for i in np.unique(np.concatenate([self.examples[name].speaker for name in sets]))]

    def caption(self, *sets: str) -> str:
        """A line for pictures: the corpus, and how many clips of how many speakers these sets hold."""
        clips = ", ".join(f"{len(self.examples[name]):,} {name}" for name in sets)
        return f"{shortened(self.corpus.name, 30)}: {clips} clips of {len(self.names(*sets))} speakers"

    def loader(self, name: str) -> DataLoader:
        """The "train", "val" or "test" clips in their order, read by this process, on ``self.device``."""
        return self._load(self.examples[name])

    def train_dataloader(self, epoch: int = 0) -> DataLoader:
        """The training clips in random order; with few clips, several passes through them, see ``MIN_STEPS``."""
        examples, size = self.examples["train"], self.train_batch_size
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch, ORDER))
        sampler = RandomSampler(examples, num_samples=self.steps * size, generator=generator)
        return self._load(examples, self.num_workers, batch_size=size, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """The validation clips, in one order that is shuffled by the seed."""
        return self._load(self.selection, self.num_workers)

    def augment_validation(self, augmentation: Augmentation, clips: int = 1000) -> None:
        """Choose the best epoch on up to ``clips`` validation clips as they are, and on the same ones augmented once.

        On clean clips alone the epoch would be chosen that has learned least of noise and rooms.
        """
        val = self.examples["val"]
        few = Examples(val.inputs, val.digit[:clips], val.speaker[:clips], val.rows[:clips])
        with torch.random.fork_rng(devices=[]):  # the training draws what it would draw without this
            torch.manual_seed(self.seed)
            clean = [batch.waveform.cpu() for batch in self._load(few)]
            changed = [augmentation.waveforms(to_float(wave), 1)[0] for wave in clean]  # [B, N] each
        # At full scale, as the clips of the cache are.
        changed = [(32_000 / wave.abs().amax(dim=1, keepdim=True).clamp(min=1e-9) * wave).short() for wave in changed]
        waves = torch.cat(clean + changed).to(self.device if isinstance(val.inputs, Tensor) else "cpu")
        self.selection = Examples(waves, few.digit.repeat(2), few.speaker.repeat(2), np.arange(2 * len(few)))

    def with_embeddings(self, embeddings: dict[str, np.ndarray]) -> "SpokenDigits":
        """The same clips, whose batches hold embeddings in place of waveforms: {set: [clips of the set, D]}."""
        twin = copy.copy(self)
        twin.num_workers = 0  # the embeddings are in memory: worker processes would only copy them
        twin.examples = {
            name: Examples(embeddings[name], clips.digit, clips.speaker, np.arange(len(clips)))
            for name, clips in self.examples.items()
        }
        twin.selection = twin.examples["val"]
        return twin

    def _load(self, examples: Examples, workers: int = 0, **options: Any) -> DataLoader:
        return DataLoader(
            examples,
            **{"batch_size": self.batch_size} | options,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # so that the loader does not advance the global RNG used by augmentation
            # The batch is collated already. Worker processes leave it on the CPU.
            collate_fn=functools.partial(_to_device, device="cpu" if workers else self.device),
        )


def epoch_seed(seed: int, epoch: int, purpose: int) -> int:
    """The seed of one epoch for ``ORDER`` or for the augmentation of a rank: a resumed training goes on undisturbed."""
    return int(np.random.SeedSequence([seed, epoch, purpose]).generate_state(1)[0])


def _steps(clips: int, batch_size: int) -> int:
    """Steps of an epoch that passes through ``clips`` once, or, if they are few, until it has ``MIN_STEPS``."""
    batch = min(batch_size, clips)
    passes = math.ceil(max(MIN_STEPS, clips // batch_size) * batch / clips)
    return passes * clips // batch


def pick_device(accelerator: str, processes: int = 1) -> torch.device:
    """The device of this process for ``accelerator``; "auto" is CUDA or else the CPU.

    Also on a Mac: networks of this size gain little from its GPU, on which nobody has trained them yet.

    Raises:
        UserError: PyTorch finds no such device.
    """
    best = torch.accelerator.current_accelerator(check_available=True)
    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if best is None or (accelerator == "mps" and best.type != "mps"):
        raise UserError(f"--accelerator {accelerator}: PyTorch finds none on this machine; leave the flag out")
    return torch.device(best.type, int(os.environ.get("LOCAL_RANK", 0)) if processes > 1 else 0)


def _to_device(batch: Batch, device: torch.device | str) -> Batch:
    return Batch(*(part.to(device) for part in batch))


if __name__ == "__main__":
    from common.corpus.source import show
    from common.run.cli import Parser, Settings, run

    parser = Parser("Show the clips and speakers of each set.")
    parser.add_settings(Settings(), ("data_dir", "dataset", "ratio", "seed", "fold"))
    run(show, parser)

"""The data of an experiment: the train, validation and test clips of one corpus, in batches.

python -m common.data      shows, downloads or synthesises a corpus, see common.corpus.command
"""

import copy
import functools
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from common.batches import EmbeddedBatch, Examples, Passes
from common.corpus.cache import open_cache
from common.corpus.clips import speaker_names, split_clips, stratified_sample
from common.corpus.source import AUDIOMNIST_DIR, downloaded_commit, find_corpus
from common.run import UserError, shortened

CACHE_DIR = Path("data/cache")
MIN_STEPS = 24  # in an epoch: 50 epochs of fewer are not enough for noise and rooms to be learned as well


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
        num_workers: loader processes, at most as many as there are cores that training leaves free.
        accelerator: the device that needs the batches, in Lightning's words.
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
        num_workers: int = 0,
        accelerator: str = "auto",
        processes: int = 1,
    ) -> None:
        for name, value in (("ratio", ratio), ("label-ratio", label_ratio)):
            if not 0 < value <= 1:
                raise UserError(f"--{name}: expected a number above 0 and at most 1, got {value}")
        if dataset not in ("auto", "audiomnist", "synthetic"):
            raise UserError(f"--dataset: expected auto, audiomnist or synthetic, got {dataset}")
        if fold not in (None, 1, 2, 3, 4, 5):
            raise UserError(f"--fold: expected 1 to 5, got {fold}")
        self.seed, self.batch_size, self.accelerator = seed, batch_size, accelerator
        self.device = pick_device(accelerator)
        self.corpus = find_corpus(None if data_dir is None else Path(data_dir), dataset, ratio, seed)
        self.cached = open_cache(self.corpus, CACHE_DIR)
        waves = on_gpu(self.cached.waves, self.device)
        # Clips that lie on the device need no loader processes.
        self.num_workers = 0 if isinstance(waves, Tensor) else min(num_workers, spare_cores(self.device))
        self.split = split_clips(self.cached.clips, seed, fold)
        self.steps = _steps(-(-len(self.split.train) // processes), batch_size)
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
        index = {name: i for i, name in enumerate(self.speakers)}
        speaker = np.array([index[clip.speaker] for clip in self.cached.clips])  # [clips]
        # Sorted by speaker and digit, a validation batch would hold almost nothing but one speaker: InfoNCE would then
        # compare clips of one voice, and select by another criterion than it trains on.
        rows = self.split._asdict() | {"val": np.random.default_rng(seed).permutation(self.split.val)}
        self.examples = {name: Examples(waves, digit[part], speaker[part], part) for name, part in rows.items()}

    def describe(self) -> dict[str, Any]:
        """What these data are, for the record of a run: plain numbers and strings."""
        return {
            "corpus": self.corpus.name,
            "corpus_commit": downloaded_commit(AUDIOMNIST_DIR) if self.corpus.root == AUDIOMNIST_DIR / "data" else None,
            "fingerprint": self.cached.key,  # of the files and settings that the waveforms were made from
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

    def with_embeddings(self, embeddings: dict[str, np.ndarray]) -> "SpokenDigits":
        """The same clips as ``EmbeddedBatch``es: {set: [clips of the set, D]}."""
        twin = copy.copy(self)
        twin.num_workers = 0  # the embeddings are in memory: worker processes would only copy them
        twin.examples = {
            name: Examples(embeddings[name], clips.digit, clips.speaker, np.arange(len(clips)), EmbeddedBatch)
            for name, clips in self.examples.items()
        }
        return twin

    def loader(self, name: str, sampler: Passes | None = None, workers: int = 0) -> DataLoader:
        """Batches of the "train", "val" or "test" clips, in their order or that of ``sampler``.

        Without worker processes they lie on ``self.device``.
        """
        batch_size = self.batch_size if sampler is None else self.train_batch_size
        return DataLoader(
            self.examples[name],
            batch_size=batch_size,
            sampler=sampler,
            # A small last batch has few negatives and noisy statistics; the shuffle of the next epoch covers its clips.
            drop_last=sampler is not None and len(sampler) >= batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # so that the loader does not advance the global RNG used by augmentation
            # Examples.__getitems__ has collated the batch already.
            collate_fn=_as_is if workers else functools.partial(_to_device, device=self.device),
        )

    def train_dataloader(self, processes: int = 1, rank: int = 0, epoch: int = 0) -> DataLoader:
        """The training clips, shuffled by seed and epoch; each of several processes, which has to say so, its share.

        With few clips, an epoch passes through them several times, see ``MIN_STEPS``.
        """
        length = self.steps * self.train_batch_size
        sampler = Passes(length, self.examples["train"], processes, rank, seed=self.seed)
        sampler.set_epoch(epoch)  # Lightning counts on, but in a resumed training only after workers have begun to read
        return self.loader("train", sampler, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        """The validation clips, in one order that is shuffled by the seed."""
        return self.loader("val", workers=self.num_workers)


def _steps(clips: int, batch_size: int) -> int:
    """Steps of an epoch that passes through ``clips`` once, or, if they are few, until it has ``MIN_STEPS``."""
    batch = min(batch_size, clips)
    passes = math.ceil(max(MIN_STEPS, clips // batch_size) * batch / clips)
    return passes * clips // batch


def pick_device(accelerator: str) -> torch.device:
    """The device that Lightning gives this process for ``accelerator``; "auto" is the best that there is.

    Raises:
        UserError: PyTorch finds no such device.
    """
    best = torch.accelerator.current_accelerator(check_available=True)
    if accelerator == "cpu" or (accelerator == "auto" and best is None):
        return torch.device("cpu")
    if best is None or (accelerator == "mps" and best.type != "mps"):
        raise UserError(f"--accelerator {accelerator}: PyTorch finds none on this machine; leave the flag out")
    return torch.device(best.type, int(os.environ.get("LOCAL_RANK", 0)))


def spare_cores(device: torch.device) -> int:
    """Cores that training on ``device`` leaves free.

    Reading a batch means copying 2 MB. Workers on cores that compute delay the computation by more than that.
    """
    busy = torch.get_num_threads() if device.type == "cpu" else 0
    return max(0, (os.cpu_count() or 1) - busy)


def on_gpu(waves: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """All waveforms as a tensor on a GPU, if they fit into half of its free memory; else the array as it is."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "mps":  # a Mac's
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        return waves
    return torch.from_numpy(np.array(waves)).to(device) if waves.nbytes <= free / 2 else waves


def _as_is(batch: Any) -> Any:
    return batch


def _to_device(batch: Any, device: torch.device) -> Any:
    return type(batch)(*(part.to(device) for part in batch))


if __name__ == "__main__":
    from common.corpus.command import run_command

    run_command()

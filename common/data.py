"""The data of a run: find or fetch the corpus, cache it, split it, and serve batches.

python -m common.data                        what is there: clips, speakers, digits, seconds, split
python -m common.data fetch [DIR]            download AudioMNIST (all of it, or the share that --ratio names)
python -m common.data synthesize DIR         write the synthetic corpus as WAV files
"""

import copy
import functools
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from common.corpus import download, synthetic
from common.corpus.cache import open_cache, open_clip
from common.corpus.clips import (
    SYNTHETIC_NAME,
    Corpus,
    Split,
    audiomnist_names,
    open_folder,
    speaker_names,
    split_clips,
    stratified_sample,
)
from common.run.cli import Parser, a_folder, add_data_flags, run, settings
from common.run.console import UserError, align, printable, set_quiet, shortened

AUDIOMNIST_DIR = Path("data/AudioMNIST")
CACHE_DIR = Path("data/cache")


class Batch(NamedTuple):
    """Examples of one training step."""

    inputs: Tensor  # [B, N] int16 waveforms, or [B, D] embeddings where the encoders are frozen
    digit: Tensor  # [B] int64
    speaker: Tensor  # [B] int64, index into SpokenDigits.speakers


class Examples(Dataset):
    """Rows of an array with their labels; whole batches are read at once, straight from the array."""

    def __init__(
        self, inputs: np.ndarray | Tensor, digit: np.ndarray, speaker: np.ndarray, rows: np.ndarray | None = None
    ) -> None:
        self.inputs = inputs  # [rows, ...], memory-mapped, in memory, or a tensor on the device that trains
        self.rows = np.arange(len(inputs)) if rows is None else rows  # [n] the rows that belong to this set
        self.digit = torch.as_tensor(digit)  # [n]
        self.speaker = torch.as_tensor(speaker)  # [n]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        picked = np.asarray(indices)
        return Batch(torch.as_tensor(self.inputs[self.rows[picked]]), self.digit[picked], self.speaker[picked])


class SpokenDigits(pl.LightningDataModule):
    """Train, validation and test examples of one corpus, for a task's arguments; from Python, ``SpokenDigits.open``.

    ``loader("train")`` serves them in batches, ``split`` and ``cached`` tell which clips they are, ``speakers`` who
    speaks. Waveforms are one second at 16 kHz, int16.

    Raises:
        UserError: no such folder, no clips, too few of them to split, or nothing readable.
    """

    def __init__(self, args: Namespace) -> None:
        super().__init__()
        self.args, self.device = args, pick_device(args.accelerator)
        self.corpus = find_corpus(args)
        self.cached = open_cache(self.corpus, CACHE_DIR)
        waves = resident(self.cached.waves, self.device)
        # What is on a device needs no workers.
        self.num_workers = 0 if isinstance(waves, Tensor) else min(args.num_workers, spare_cores(self.device))
        self.split = split_clips(self.cached.clips, args.seed, args.fold)
        if getattr(args, "label_ratio", 1.0) < 1:
            self.split = self._with_few_labels(args.label_ratio)
        self.speakers = speaker_names(self.cached.clips)
        digit = np.array([clip.digit for clip in self.cached.clips])
        index = {name: i for i, name in enumerate(self.speakers)}
        speaker = np.array([index[clip.speaker] for clip in self.cached.clips])
        self.examples = {
            name: Examples(waves, digit[rows], speaker[rows], rows) for name, rows in self.split._asdict().items()
        }

    @classmethod
    def open(cls, data_dir: str | Path | None = None, **flags: object) -> "SpokenDigits":
        """The data that the tasks would use with these flags, by their names: ``open("DIR", ratio=0.1, seed=7)``.

        Args:
            data_dir: folder with the clips; without it AudioMNIST or, where that cannot be had, synthetic speech.
            flags: ratio, seed, fold, batch_size, dataset, label_ratio, accelerator, ...; see `python task1.py --help`.

        Raises:
            UserError: a flag or value that the tasks would refuse, or as the class.
        """
        args = settings(data_dir=data_dir, **flags)
        set_quiet(args.quiet)
        return cls(args)

    def _with_few_labels(self, ratio: float) -> Split:
        train = self.split.train
        kept = stratified_sample([self.cached.clips[i] for i in train], ratio, self.args.seed)
        if len(kept) < 2:
            raise UserError(f"--label-ratio {ratio} leaves {len(kept)} of {len(train)} training clips; raise it")
        return self.split._replace(train=train[kept])

    def names(self, *sets: str) -> list[str]:
        """The speakers of some of the sets, in natural order."""
        return [self.speakers[i] for i in np.unique(np.concatenate([self.examples[name].speaker for name in sets]))]

    def caption(self, *sets: str) -> str:
        """A line for pictures: the corpus, and how many clips of how many speakers these sets hold."""
        clips = ", ".join(f"{len(self.examples[name]):,} {name}" for name in sets)
        return f"{shortened(self.corpus.name, 30)}: {clips} clips of {len(self.names(*sets))} speakers"

    def with_inputs(self, inputs: dict[str, np.ndarray]) -> "SpokenDigits":
        """The same clips with other inputs, such as their embeddings: {set: [clips of the set, ...]}."""
        twin = copy.copy(self)
        twin.num_workers = 0  # the inputs are in memory: workers would only copy them
        twin.examples = {name: Examples(inputs[name], old.digit, old.speaker) for name, old in self.examples.items()}
        return twin

    def loader(self, name: str, sampler: Sampler | None = None, workers: int = 0) -> DataLoader:
        """Batches of the ``train``, ``val`` or ``test`` examples, in their order or that of ``sampler``.

        Without workers they come on ``self.device``, ready to be embedded or scored.
        """
        return DataLoader(
            self.examples[name],
            batch_size=self.args.batch_size,
            sampler=sampler,
            # A last batch that is small has few negatives and noisy statistics; the next epoch's shuffle covers it.
            drop_last=sampler is not None and len(sampler) >= self.args.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else a loader draws from the numbers that augmentation draws from
            # Examples.__getitems__ has collated the batch already.
            collate_fn=_as_is if workers else functools.partial(_to_device, device=self.device),
        )

    def train_dataloader(self) -> DataLoader:
        # Shuffles by seed and epoch, and gives each of several processes its share.
        processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = DistributedSampler(self.examples["train"], processes, rank, seed=self.args.seed)
        # Lightning tells it the epoch too, but later than workers begin to read in a resumed training.
        sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed if self.trainer else 0)
        return self.loader("train", sampler, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        return self.loader("val", workers=self.num_workers)


def pick_device(accelerator: str) -> torch.device:
    """The device that Lightning gives this process for ``--accelerator``; "auto" is the best that there is."""
    best = torch.accelerator.current_accelerator(check_available=True)
    if accelerator == "cpu" or best is None:
        return torch.device("cpu")
    return torch.device(best.type, int(os.environ.get("LOCAL_RANK", 0)))


def spare_cores(device: torch.device) -> int:
    """Cores that training on ``device`` leaves free.

    Reading a batch is to copy 2 MB. Workers on cores that compute make them wait for longer than that takes.
    """
    busy = torch.get_num_threads() if device.type == "cpu" else 0
    return max(0, (os.cpu_count() or 1) - busy)


def resident(waves: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """All waveforms as a tensor on a GPU, if they fit in half of its free memory; else they stay where they are."""
    if device.type != "cuda" or waves.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return waves
    return torch.from_numpy(np.array(waves)).to(device)


def find_corpus(args: Namespace) -> Corpus:
    """The clips that ``--data-dir``, ``--dataset``, ``--ratio`` and ``--seed`` ask for, downloaded if need be.

    Without ``--data-dir``: ``data/AudioMNIST`` if it is there, else a download of the clips that the ratio needs,
    else (announced, and only if ``--dataset`` is ``auto``) synthetic speech.
    """
    if args.data_dir is not None:
        return open_folder(args.data_dir).take(args.ratio, args.seed)
    synthetic_speech = Corpus(SYNTHETIC_NAME, audiomnist_names(), None).take(args.ratio, args.seed)
    if args.dataset == "synthetic":
        return synthetic_speech
    if _is_own_copy(AUDIOMNIST_DIR):
        corpus = open_folder(AUDIOMNIST_DIR)
        if corpus.name == SYNTHETIC_NAME and args.dataset == "audiomnist":
            raise UserError(f"--dataset audiomnist: {AUDIOMNIST_DIR} holds synthetic speech; move it away")
        return corpus.take(args.ratio, args.seed)
    wanted = Corpus("AudioMNIST", audiomnist_names(), AUDIOMNIST_DIR / "data").take(args.ratio, args.seed)
    try:
        download.fetch(wanted.clips, AUDIOMNIST_DIR)
    except download.DownloadError as error:
        if args.dataset == "audiomnist":
            raise
        _announce_synthetic(error)
        return synthetic_speech
    return wanted


def _is_own_copy(folder: Path) -> bool:
    """A folder that the user filled: what is there is the corpus. A download is only as large as runs needed so far."""
    return folder.is_dir() and any(folder.iterdir()) and not download.is_managed(folder)


def _announce_synthetic(error: Exception) -> None:
    lines = (
        f"AudioMNIST could not be had: {error}",
        "This run uses SYNTHETIC SPEECH (espeak-ng) instead. Its numbers are not AudioMNIST numbers.",
        "With a copy of AudioMNIST: --data-dir DIR. To choose synthetic speech: --dataset synthetic.",
    )
    rule = "!" * 100
    print(rule, *(f"!!  {line}" for line in lines), rule, sep="\n", file=sys.stderr)


def _as_is(batch: Batch) -> Batch:
    return batch


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(part.to(device) for part in batch))


def describe(args: Namespace) -> str:
    """A table of the clips that are there now, without downloading or caching anything."""
    if args.data_dir is None and args.dataset != "synthetic" and AUDIOMNIST_DIR.is_dir():
        args.data_dir = AUDIOMNIST_DIR
    corpus = find_corpus(args) if args.data_dir or args.dataset == "synthetic" else None
    if corpus is None:
        return f"{AUDIOMNIST_DIR} is not there. `python -m common.data fetch` downloads it; the tasks do so themselves."
    rows = [
        ["corpus", corpus.name],
        ["folder", str(corpus.root) if corpus.root else "none: spoken when it is needed"],
        ["clips", str(len(corpus.clips))],
        ["speakers", _listed(speaker_names(corpus.clips))],
        ["digits", _listed(sorted({str(clip.digit) for clip in corpus.clips}))],
        ["other files", f"{corpus.ignored} ignored"],
    ]
    if corpus.root:
        rows.append(["seconds", _durations(corpus)])
    split = split_clips(corpus.clips, args.seed, args.fold)
    for name, numbers in split._asdict().items():
        heard = speaker_names([corpus.clips[i] for i in numbers])
        rows.append([name, f"{len(numbers)} clips, {_listed(heard)}"])
    return "\n".join(align(rows))


def _listed(names: list[str]) -> str:
    return f"{len(names)}: {printable(names[0])} to {printable(names[-1])}"


def _durations(corpus: Corpus) -> str:
    seconds, unreadable = [], 0
    for clip in corpus.clips:
        try:
            with open_clip(corpus.root / clip.path) as file:
                seconds.append(file.frames / file.samplerate)
        except (ValueError, OSError, RuntimeError):  # soundfile's errors are RuntimeErrors
            unreadable += 1
    note = f", {unreadable} files unreadable" if unreadable else ""
    if not seconds:
        return f"none{note}"
    return (
        f"{sum(seconds):.0f} (a clip: {min(seconds):.2f} to {max(seconds):.2f}, median {np.median(seconds):.2f}){note}"
    )


def main(args: Namespace) -> None:
    if args.command == "show":
        print(describe(args))
        return
    clips = Corpus("", audiomnist_names(), None).take(args.ratio, args.seed).clips
    if args.command == "fetch":
        folder = args.folder or AUDIOMNIST_DIR
        print(f"{download.fetch(clips, folder)} clips fetched; {folder} holds the {len(clips)} asked for")
    elif args.folder is None:
        raise UserError("synthesize: name the folder to write, as in `python -m common.data synthesize data/synthetic`")
    else:
        synthetic.write_corpus(args.folder, clips)
        print(f"{args.folder} holds {len(clips)} clips of {SYNTHETIC_NAME}")


if __name__ == "__main__":
    parser = Parser(__doc__)
    commands = ("show", "fetch", "synthesize")
    parser.add_argument("command", nargs="?", choices=commands, default="show", help="what to do")
    parser.add_argument("folder", nargs="?", type=a_folder, metavar="DIR", help="folder to fetch into or to write")
    add_data_flags(parser)
    run(main, parser)

"""How much does the cache save, compared with decoding every clip in every epoch?

    python tests/benchmarks/loading.py                   1,500 synthetic clips: four minutes on 2 cores
    python tests/benchmarks/loading.py --part cache      one table: cache, loading or epoch

Both pipelines start from the same 48 kHz WAV files. The other one is what a tutorial would do: a Dataset that decodes
with soundfile, resamples to 16 kHz with torchaudio, pads to 1 or 3 s and, for the 2D encoder, computes a log-mel
spectrogram of each clip, with two DataLoader workers. Ours reads the cache and computes log-mels of whole batches.

cache    building it, against decoding and resampling alone on the same cores
loading  clips/s that reach the encoder, without augmentation
epoch    training and validation of task 1 by the same Trainer; only ours augments. First with our encoder on both
         sides, then the other pipeline with the encoder of the original design, see original.py. Ours validates
         twice as many clips: as they are, and augmented

The files are in the system's page cache: a slow disk would add to every epoch of the other pipeline.
"""

import argparse
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
import torchaudio
from original import ENCODERS, ORIGINAL_DIM
from scipy.signal import resample_poly
from task_models import digit_classifier
from timing import interleave, ratio, repeatedly, show, timed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import task1
from common import data as common_data
from common.audio import SAMPLE_RATE, LogMel, to_float
from common.augmentation import Augmentation
from common.corpus import SYNTHETIC_MARKER, Corpus, audiomnist_names, open_folder, synthetic
from common.corpus.cache import open_cache, usable_cores
from common.data import SpokenDigits
from common.encoders import Embedder
from common.models import DigitClassifier
from common.run.cli import Settings
from common.run.output import Run
from common.training import fit

common_data.MIN_STEPS = 1  # an epoch is one pass through the clips on both sides
FILE_RATE = 48_000  # Hz
ALL_CLIPS = 30_000  # of AudioMNIST
CONFIGURATIONS = (("1d", 1), ("1d", 3), ("2d", 1), ("2d", 3))  # format, seconds that the other pipeline pads to
WORKERS = 2  # of the other pipeline


class PerClip(Dataset):
    """Clips decoded, resampled, padded and transformed one by one."""

    def __init__(self, paths: list[Path], digit: Tensor, name: str, seconds: int) -> None:
        self.paths, self.digit, self.size = paths, digit, seconds * SAMPLE_RATE
        self.resample = torchaudio.transforms.Resample(FILE_RATE, SAMPLE_RATE)
        self.mel = torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=64)
        self.two_dimensional = name == "2d"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        samples, _ = soundfile.read(self.paths[index], dtype="float32")
        wave = self.resample(torch.from_numpy(samples))[: self.size]
        wave = F.pad(wave, (0, self.size - len(wave)))
        return torch.log(self.mel(wave) + 1e-6) if self.two_dimensional else wave, self.digit[index]


class PerClipData:
    """The clips and the split of ``data``, in batches of the same size, by the other pipeline."""

    def __init__(self, data: SpokenDigits, name: str, seconds: int) -> None:
        self.sets, self.batch_size, self.device = {}, data.batch_size, data.device
        for key in ("train", "val"):
            clips = [data.cached.clips[row] for row in getattr(data.split, key)]
            paths = [data.corpus.root / clip.path for clip in clips]
            self.sets[key] = PerClip(paths, torch.tensor([clip.digit for clip in clips]), name, seconds)

    def loader(self, key: str, **options: Any) -> DataLoader:
        # ``fit`` seeds the generator of a sampler.
        options |= {"num_workers": WORKERS, "persistent_workers": True, "generator": torch.Generator()}
        return DataLoader(self.sets[key], self.batch_size, **options)

    def train_dataloader(self, epoch: int = 0) -> DataLoader:
        return self.loader("train", shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")


class ReadyInputs(Embedder):
    """Encoders whose inputs are ready for them: a batch is what its format's encoder sees."""

    def views(self, wave: Tensor, augmentation: Augmentation) -> dict[str, Tensor]:
        return dict.fromkeys(self.encoders, wave)


def on_ready_inputs(name: str) -> DigitClassifier:
    """The classifier of task 1, on inputs that are ready for its encoder."""
    module = digit_classifier(name)
    module.network.embedder = ReadyInputs((name,))
    return module


def original_on_ready_inputs(name: str) -> DigitClassifier:
    """A classifier with the encoder of the original design, on inputs that are ready for it."""
    module, (_, encoder) = on_ready_inputs(name), ENCODERS[name]
    module.network.embedder.encoders[name] = encoder()
    module.network.head = nn.Linear(ORIGINAL_DIM, 10)
    return module


def compare_cache(corpus: Corpus, repeats: int) -> None:
    def build() -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            open_cache(corpus, Path(folder))
            return time.perf_counter() - started

    paths = [corpus.root / clip.path for clip in corpus.clips]
    work = {
        "decode": lambda: on_all_cores(_decode, paths),
        "decode and resample": lambda: on_all_cores(_decode_and_resample, paths),
        "build the cache": build,
    }
    times = interleave("cache", work, repeats)
    rows = [["", "clips/s", "of the cache's time (range)", f"{ALL_CLIPS:,} clips"]]
    for name, seconds in times.items():
        rate = len(paths) / statistics.median(seconds)
        share = ratio(seconds, times["build the cache"])
        rows.append([name, f"{rate:,.0f}", share, f"{ALL_CLIPS / rate:.0f} s"])
    show(f"Cache of {len(paths):,} clips, {os.cpu_count()} cores", rows)


def _decode(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def _decode_and_resample(path: Path) -> np.ndarray:
    return resample_poly(_decode(path), 1, FILE_RATE // SAMPLE_RATE)


def on_all_cores(work: Callable, items: Sequence) -> None:
    """Do ``work`` on each item in threads, as the cache does."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in pool.map(work, items):
            pass


def compare_loading(data: dict[int, SpokenDigits], repeats: int) -> None:
    log_mel = LogMel()
    features = {"1d": to_float, "2d": lambda wave: log_mel(to_float(wave))}
    rows = [["", "other, clips/s", *(f"ours, {n} workers" for n in data), "faster (range)"]]
    for name, seconds in CONFIGURATIONS:
        other = PerClipData(data[0], name, seconds).train_dataloader()
        work = {"other": functools.partial(_read, other, lambda inputs: inputs)}
        for workers, own in data.items():
            work[f"ours {workers}"] = functools.partial(_read, own.train_dataloader(), features[name])
        times = interleave(f"loading {name} {seconds} s", work, repeats)
        rates = [f"{1 / statistics.median(t):,.0f}" for t in times.values()]
        rows.append([f"{name}, other {seconds} s", *rates, ratio(times["other"], times["ours 0"])])
    show("Loading alone (faster: with 0 workers)", rows)


@torch.inference_mode()
def _read(loader: DataLoader, features: Callable[[Tensor], Tensor]) -> float:
    """Seconds per clip."""

    def read_all() -> None:
        for batch in loader:
            features(batch[0])

    return repeatedly(read_all) / (len(loader) * loader.batch_size)  # the last batch is dropped if it is not full


def compare_epochs(data: dict[int, SpokenDigits], run: Run, repeats: int) -> None:
    for own in data.values():
        own.augment_validation(task1.AUGMENTATION)
    rows = [["", "other, s", *(f"ours, {n} workers, s" for n in data), "faster (range)"]]
    cases = [(name, seconds, "", on_ready_inputs) for name, seconds in CONFIGURATIONS]
    cases += [(name, 3, ", original encoder", original_on_ready_inputs) for name in ENCODERS]
    for name, seconds, encoder, make in cases:
        label = f"{name}, other {seconds} s{encoder}"
        work = {"other": functools.partial(_epoch, make, PerClipData(data[0], name, seconds), run, name)}
        for workers, own in data.items():
            work[f"ours {workers}"] = functools.partial(_epoch, digit_classifier, own, run, name)
        times = interleave(f"epoch {label}", work, repeats)
        medians = [f"{statistics.median(t):.2f}" for t in times.values()]
        rows.append([label, *medians, ratio(times["other"], times["ours 0"])])
    show(f"An epoch of task 1, {data[0].caption('train', 'val')} (faster: with 0 workers)", rows)


def _epoch(make: Callable[[str], DigitClassifier], data: SpokenDigits | PerClipData, run: Run, name: str) -> float:
    """Seconds of a training epoch with its validation, once the workers have started."""
    module = make(name)
    return statistics.mean(timed(module, lambda: fit(module, data, run, "checkpoints", name)).epochs())


def write_wavs(folder: Path, ratio: float) -> Corpus:
    """Write a fraction of the synthetic corpus at AudioMNIST's sampling rate."""
    clips = Corpus("", audiomnist_names(), None).take(ratio, seed=42).clips
    (folder / SYNTHETIC_MARKER).write_text("Synthetic speech, not AudioMNIST.\n")
    for clip in tqdm(clips, desc="writing", unit=" clips", leave=False):
        samples, rate = synthetic.speak(*clip[:3])
        divisor = np.gcd(rate, FILE_RATE)
        resampled = resample_poly(samples, FILE_RATE // divisor, rate // divisor)
        (folder / clip.path).parent.mkdir(exist_ok=True)
        soundfile.write(folder / clip.path, resampled, FILE_RATE, subtype="PCM_16")
    return open_folder(folder)


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # the cache is made in data/ of the current folder
        folder = Path(name, "wavs")
        folder.mkdir()
        corpus = write_wavs(folder, args.ratio)
        if args.part in ("all", "cache"):
            compare_cache(corpus, args.repeats)
        settings = Settings(epochs=3, data_dir=folder, accelerator="cpu")
        data = {workers: SpokenDigits(**settings.data | {"num_workers": workers}) for workers in (0, 2)}
        if args.part in ("all", "loading"):
            compare_loading(data, args.repeats)
        if args.part in ("all", "epoch"):
            with Run(settings, data[0].describe(), {}) as run:
                compare_epochs(data, run, args.repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("all", "cache", "loading", "epoch"), default="all")
    parser.add_argument("--ratio", type=float, default=0.05, help="of the 30,000 clips of synthetic speech")
    parser.add_argument("--repeats", type=int, default=5)
    main(parser.parse_args())

"""The settings of a run: each flag of the command line, its type, its default and its help, in one place."""

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


def a_path(text: str) -> Path:
    """An argument type: the path of a file or folder, which may exist or not."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(text)


def a_folder(text: str) -> Path:
    """An argument type: the path of a folder that exists or can be made."""
    path = a_path(text)
    try:
        if path.exists() and not path.is_dir():
            raise argparse.ArgumentTypeError(f"expected a folder, {text[:60]!r} is a file")
    except OSError as error:  # for example a name that is too long
        raise argparse.ArgumentTypeError(f"{text[:60]!r} cannot be a folder ({error.strerror})") from error
    return path


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], Any]:
    """An argument type: a number of ``kind`` from ``low`` to ``high``."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # nan is never inside
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {name} from {low:.10g} to {high:.10g}, got {text[:60]!r}")
        return value

    return parse


def _flag(default: Any, text: str, kind: Callable[[str], Any] | None = None, metavar: str = "", **more: Any) -> Any:
    if kind:
        more |= {"type": kind, "metavar": metavar}
    return field(default=default, metadata={"help": text, **more})


def _count(default: int, low: int, high: int, text: str) -> Any:
    return _flag(default, text, number(int, low, high), "INT")


def _choice(choices: tuple[str, ...], text: str) -> Any:
    return _flag(choices[0], text, choices=choices)


_RATIO = number(float, 1e-6, 1)


# The upper limits are more than anybody means: such a number is a slip, and would fill the memory or never end.
@dataclass(frozen=True)
class Settings:
    """A field for each flag, ``--batch-size`` for ``batch_size``. A task without the flag has the default."""

    epochs: int = _count(0, 1, 1_000_000, "maximum passes over the training clips; tasks 3 and 4 train nothing")
    lr: float = _flag(0.0, "peak learning rate; tasks 3 and 4 train nothing", number(float, 1e-9, 1000), "FLOAT")
    # BatchNorm and the contrastive loss compare the clips of a batch, so one clip is not enough.
    batch_size: int = _count(64, 2, 1_000_000, "clips per step and process")
    num_workers: int = _count(4, 0, 1024, "processes that load batches, at most the cores that training leaves free")
    seed: int = _count(42, 0, 2**32 - 1, "of the choice of clips, the split and the training; it repeats a run")

    ratio: float = _flag(1.0, "fraction of the clips to use, stratified", _RATIO, "FLOAT")
    data_dir: Path | None = _flag(None, "folder with speakers' folders or with all clips", a_folder, "DIR")
    dataset: str = _choice(
        ("auto", "audiomnist", "synthetic"), "without --data-dir; auto is AudioMNIST or else synthetic"
    )
    fold: int | None = _flag(None, "a published fold of AudioMNIST, 1 to 5", number(int, 1, 5), "INT")
    label_ratio: float = _flag(1.0, "fraction of the training clips whose labels are used", _RATIO, "FLOAT")
    augment: str = _choice(("both", "none", "waveform", "spectrogram"), "which format of the clips is augmented")

    accelerator: str = _choice(("auto", "cpu", "gpu", "mps", "tpu"), "the device, for Lightning's Trainer")
    devices: int = _count(1, 1, 1024, "processes per machine")
    num_nodes: int = _count(1, 1, 1024, "machines")
    strategy: str = _choice(("auto", "ddp"), "how several processes work together")
    precision: str = _choice(("32-true", "16-mixed", "bf16-mixed"), "of the arithmetic")

    resume: bool = _flag(False, "continue a run that was stopped, after its last complete epoch", action="store_true")
    logger: str = _choice(("csv", "tensorboard"), "tensorboard: write its files beside history.csv")
    quiet: bool = _flag(False, "print nothing but warnings and errors", action="store_true")
    output_dir: Path = _flag(Path("output"), "where checkpoints and metrics go", a_folder, "DIR")
    task1_checkpoint: Path = _flag(Path("task1_supervised"), "output folder of task 1", a_folder, "DIR")
    task2_checkpoint: Path = _flag(
        Path("task2_contrastive/checkpoints/best.ckpt"), "encoders of task 2", a_path, "PATH"
    )

    @property
    def data(self) -> dict[str, Any]:
        """The keyword arguments of common.data.SpokenDigits."""
        names = "data_dir dataset ratio seed fold label_ratio batch_size num_workers accelerator"
        return {name: value for name, value in asdict(self).items() if name in names.split()}

    @property
    def hardware(self) -> dict[str, Any]:
        """The keyword arguments of pl.Trainer that say what trains."""
        names = "accelerator devices num_nodes strategy precision"
        return {name: value for name, value in asdict(self).items() if name in names.split()}

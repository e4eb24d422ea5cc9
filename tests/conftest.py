"""What several test files need: tone corpora in AudioMNIST's layout, arguments, and scripts run as a user runs them."""

import contextlib
import os
import resource
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from common.data import SpokenDigits
from common.run.cli import Settings
from common.run.output import Run

REPOSITORY = Path(__file__).resolve().parents[1]


def tone(frequency: float, seconds: float = 0.3, rate: int = 16_000) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Several threads round the sums that are compared here differently, and wait for each other on busy cores."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def write_tones() -> Callable[..., Path]:
    """A function that fills a folder with short tones named SS/D_SS_R.wav, each with a frequency of its own."""

    def write(folder: Path, speakers: Iterable[str], digits: Iterable[int] = range(10), repetitions: int = 2) -> Path:
        number = 0
        for speaker in speakers:
            (folder / speaker).mkdir(parents=True, exist_ok=True)
            for digit in digits:
                for repetition in range(repetitions):
                    path = folder / speaker / f"{digit}_{speaker}_{repetition}.wav"
                    soundfile.write(path, tone(150 + 11 * number), 16_000, subtype="PCM_16")
                    number += 1
        return folder

    return write


@pytest.fixture(scope="session")
def tone_data(tmp_path_factory, write_tones) -> SpokenDigits:
    """Tones of three speakers, of whom the last one is the test: 32 training, 8 validation and 20 test clips."""
    folder = tmp_path_factory.mktemp("corpus")
    write_tones(folder / "tones", ["01", "02", "03"], digits=[0, 1], repetitions=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = SpokenDigits(folder / "tones", batch_size=8)
    data.steps = 6  # of an epoch: what is tested with them does not need 24
    return data


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., Settings]:
    """A function that gives the settings of a short training, except for those named."""
    return lambda **overrides: Settings(**{"epochs": 1, "lr": 1e-3, "batch_size": 8, "num_workers": 0} | overrides)


@pytest.fixture(scope="session")
def make_run(make_settings) -> Callable[..., Run]:
    """A function that gives a run in a folder, with settings as in ``make_settings``; nothing is written yet."""
    facts = {"corpus": "tones", "train_speakers": ["01", "02"], "fingerprint": "tones", "split": "s"}
    return lambda folder, **overrides: Run(make_settings(output_dir=folder, **overrides), facts, {})


@pytest.fixture
def full_disk() -> Callable[[int], contextlib.AbstractContextManager]:
    """A function that opens a stretch in which no file can grow beyond some bytes: the system fails what goes on."""

    @contextlib.contextmanager
    def at(size: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return at


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are saved."""
    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: figures.append(self) or savefig(self, *args, **kw))
    return figures


@pytest.fixture(scope="session")
def offline() -> dict[str, str]:
    """The environment of a user who cannot reach AudioMNIST."""
    return os.environ | {"AUDIOMNIST_URL": "/nonexistent/AudioMNIST", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def run_script(offline) -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs a script of the repository with this Python in a folder, offline."""

    def run_it(script: str, *flags: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(REPOSITORY / script), *flags]
        return subprocess.run(
            command, cwd=folder, env=offline | environment, capture_output=True, text=True, timeout=600
        )

    return run_it


@pytest.fixture(scope="session")
def run_here() -> Callable[..., object]:
    """A function that runs a script's ``__main__`` in this process, offline, which saves the imports."""

    def run_it(script: str, *flags: str) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AUDIOMNIST_URL", "/nonexistent/AudioMNIST")
            patch.setattr(sys, "argv", [script, *flags])
            return runpy.run_path(str(REPOSITORY / script), run_name="__main__")

    return run_it

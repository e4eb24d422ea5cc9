"""What a finished run leaves to read: metrics.json for programs and metrics.txt for people."""

import contextlib
import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from common.data import SpokenDigits
from common.plots.figure import is_own_picture
from common.run.console import UserError, align, say
from common.run.files import write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STARTED = time.monotonic()
CHANGE_NOTHING = ("output_dir", "num_workers", "logger", "quiet")  # arguments that have no influence on the results


def describe_run(args: Namespace, data: SpokenDigits, parameters: dict[str, int]) -> dict:
    """The circumstances of a run: stored with its metrics and inside its checkpoints. Plain numbers and strings."""
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    arguments.pop("resume")
    return {
        "corpus": data.corpus.name,
        "fingerprint": data.cached.key,  # of the files and settings behind the waveforms
        "clips": {name: len(examples) for name, examples in data.examples.items()},
        "skipped": len(data.cached.skipped),  # clips that could not be used
        "ignored": data.corpus.ignored,  # files that are no clips
        "speakers": len(data.speakers),
        "train_speakers": data.names("train", "val"),
        "seed": args.seed,
        "arguments": arguments,
        "task2_checkpoint": _digest(getattr(args, "task2_checkpoint", None)),
        "parameters": parameters,
        "versions": {name: version(name) for name in ("torch", "torchaudio", "pytorch-lightning", "scikit-learn")}
        | {"python": platform.python_version()},
    }


def _digest(path: Path | None) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path and path.is_file() else None


def refuse_other_run(path: Path, earlier: dict | None, now: dict) -> None:
    """Raise UserError unless ``earlier``, the run that ``path`` is of, is the one that is asked for now."""
    try:
        arguments = dict(earlier["arguments"])
        corpus, checkpoint = earlier["fingerprint"], earlier["task2_checkpoint"]
    except (KeyError, TypeError, ValueError) as error:  # no run of this version
        raise UserError(f"--resume: {path} cannot be read; start anew without --resume") from error
    differing = [
        f"--{key.replace('_', '-')} {arguments.get(key)} (now {value})"
        for key, value in now["arguments"].items()
        if key not in CHANGE_NOTHING and arguments.get(key) != value
    ]
    differing += ["another corpus"] if corpus != now["fingerprint"] else []
    differing += ["another task 2 checkpoint"] if checkpoint != now["task2_checkpoint"] else []
    if differing:
        raise UserError(f"--resume: {path} is of a run with {', '.join(differing)}; start anew without --resume")


@rank_zero_only
def start_output(directory: Path, run: dict, resume: bool = False) -> None:
    """Make the output directory, lock it, and remove what an earlier run left there that this one would belie.

    Those are its metrics, pictures and examples, and the epochs it could be resumed from. With ``resume`` they stay;
    if they are of the same run, and it had finished, the process ends here with exit code 0.

    Raises:
        UserError: the directory cannot be made or written, another run is writing there, or what is there is of
            another run.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        _lock(directory.resolve())
        metrics, unfinished = directory / "metrics.json", list(directory.glob("*/last.ckpt"))
        if resume and metrics.is_file():
            refuse_other_run(metrics, _run_of(metrics), run)
            say(f"{metrics}: this run has finished; nothing is left to do")
            sys.exit()
        if resume and unfinished:
            return
        if resume:
            say(f"--resume: nothing to resume in {directory}; starting anew")
        pictures = filter(is_own_picture, directory.glob("*.png"))
        for path in (metrics, directory / "metrics.txt", directory / "examples.json", *pictures, *unfinished):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--output-dir {directory}: cannot write there ({error.strerror}); name another") from error


def _run_of(metrics: Path) -> dict | None:
    with contextlib.suppress(ValueError, KeyError, TypeError):  # not JSON, or not of these tasks
        return json.loads(metrics.read_text())["run"]


@functools.cache  # once a process
def _lock(directory: Path) -> None:
    """Hold ``directory`` until the process ends, however it ends."""
    if fcntl is None:
        return
    folder = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise UserError(f"--output-dir {directory}: another run is writing there; name another directory") from error
    # A loader process may outlive a killed run by seconds, and must not keep the next one out. Its own children find
    # the list empty: by then the number may be another file's.
    held = [folder]
    os.register_at_fork(after_in_child=lambda: held and os.close(held.pop()))


def write_listing(directory: Path, title: str, files: list[str], run: dict) -> None:
    """Write metrics.txt of a task whose results are pictures: their names, under the same heading."""
    text = format_metrics(title, {name: {} for name in files}, run | {"seconds": _seconds()})
    write_atomically(directory / "metrics.txt", text)
    say(f"\n{text}\nWritten to {directory}/")


@rank_zero_only
def write_metrics(directory: Path, title: str, results: dict[str, dict], run: dict) -> None:
    """Write ``results`` (one dict of numbers per model) and the run they came from, and print them.

    Both files are complete or absent: each is written beside its place and renamed into it.
    """
    run = run | {"seconds": _seconds()}
    text = format_metrics(title, results, run)
    write_atomically(directory / "metrics.txt", text)
    write_atomically(directory / "metrics.json", json.dumps(results | {"run": run}, indent=2) + "\n")
    for finished in directory.glob("*/last.ckpt"):
        finished.unlink()
    say(f"\n{text}\nWritten to {directory}/")


def format_metrics(title: str, results: dict[str, dict], run: dict) -> str:
    """A table with a row per model, headed by what was measured on which corpus."""
    clips = ", ".join(f"{count} {name}" for name, count in run["clips"].items())
    head = [title, f"Corpus: {run['corpus']} ({clips} clips, {run['speakers']} speakers), seed {run['seed']}", ""]
    # An accuracy stands with its interval and its number of clips in one cell.
    columns = [key for key in _keys(results) if not key.endswith(("_ci95", "_clips"))]
    table = [["", *columns], *([name, *(_cell(row, key) for key in columns)] for name, row in results.items())]
    return "\n".join([*head, *align(table), "", f"{run['seconds']} s"]) + "\n"


def _seconds() -> float:
    return round(time.monotonic() - STARTED, 1)


def _keys(results: dict[str, dict]) -> list[str]:
    return list(dict.fromkeys(key for row in results.values() for key in row))


def _cell(row: dict, key: str) -> str:
    value = row.get(key)
    if f"{key}_ci95" in row:
        stem = key.removesuffix("_acc")
        low, high = row[f"{key}_ci95"]
        return f"{value:.4f} [{low:.3f}, {high:.3f}] n={row[f'{stem}_clips']}"
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)

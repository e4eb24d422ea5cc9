"""What a finished run leaves to read: metrics.json for programs and metrics.txt for people."""

import json
import platform
import tempfile
import time
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from common.data import SpokenDigits
from common.errors import UserError
from common.text import align, write_atomically

STARTED = time.monotonic()


def describe_run(args: Namespace, data: SpokenDigits, parameters: dict[str, int]) -> dict:
    """The circumstances of a run: stored with its metrics and inside its checkpoints. Plain numbers and strings."""
    return {
        "corpus": data.corpus.name,
        "clips": {name: len(examples) for name, examples in data.examples.items()},
        "skipped": len(data.cached.skipped),  # clips that could not be used
        "ignored": data.corpus.ignored,  # files that are no clips
        "speakers": len(data.speakers),
        "train_speakers": data.names("train", "val"),
        "seed": args.seed,
        "arguments": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
        "parameters": parameters,
        "versions": {name: version(name) for name in ("torch", "torchaudio", "pytorch-lightning", "scikit-learn")}
        | {"python": platform.python_version()},
    }


def start_output(directory: Path) -> None:
    """Make the output directory, and remove the metrics of an earlier run: what is trained now would belie them.

    Raises:
        UserError: the directory cannot be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        for name in ("metrics.json", "metrics.txt"):
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--output-dir {directory}: cannot write there ({error.strerror}); name another") from error


def write_listing(directory: Path, title: str, files: list[str], run: dict) -> None:
    """Write metrics.txt of a task whose results are pictures: their names, under the same heading."""
    text = format_metrics(title, {name: {} for name in files}, run | {"seconds": _seconds()})
    write_atomically(directory / "metrics.txt", text)
    print(f"\n{text}\nWritten to {directory}/")


@rank_zero_only
def write_metrics(directory: Path, title: str, results: dict[str, dict], run: dict) -> None:
    """Write ``results`` (one dict of numbers per model) and the run they came from, and print them.

    Both files are complete or absent: each is written beside its place and renamed into it.
    """
    run = run | {"seconds": _seconds()}
    text = format_metrics(title, results, run)
    write_atomically(directory / "metrics.txt", text)
    write_atomically(directory / "metrics.json", json.dumps(results | {"run": run}, indent=2) + "\n")
    print(f"\n{text}\nWritten to {directory}/")


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

"""One run of a task: its output folder, the record of its circumstances, metrics.json and metrics.txt."""

import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from common.run.console import UserError, align, say
from common.run.files import is_own_picture, write_atomically
from common.run.settings import Settings

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

STARTED = time.monotonic()
LIBRARIES = ("torch", "torchaudio", "pytorch-lightning", "scikit-learn")
NOT_RECORDED = ("resume", "task1_checkpoint", "task2_checkpoint")  # a checkpoint is recorded by its content
WITHOUT_INFLUENCE = ("output_dir", "num_workers", "logger", "quiet")  # on the results: --resume may change them


class Run:
    """The settings and the folder of a run, and its ``record``: what is stored with metrics and in checkpoints.

    Args:
        facts: what the data are, see ``common.data.SpokenDigits.describe``.
        parameters: number of parameters of each encoder.
        task2_checkpoint: the file that the encoders come from, in a task that reads one.
    """

    def __init__(
        self,
        settings: Settings,
        facts: dict[str, Any],
        parameters: dict[str, int],
        task2_checkpoint: Path | None = None,
    ) -> None:
        self.settings, self.folder = settings, settings.output_dir
        digest = hashlib.sha256(task2_checkpoint.read_bytes()).hexdigest()[:16] if task2_checkpoint else None
        arguments = {name: value for name, value in asdict(settings).items() if name not in NOT_RECORDED}
        self.record = facts | {
            "seed": settings.seed,
            "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in arguments.items()},
            "task2_checkpoint": digest,
            "parameters": parameters,
            "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        }

    @rank_zero_only
    def open(self) -> None:
        """Make the folder, lock it until the process ends, and delete stale results of an earlier run.

        Those are its metrics, pictures and examples, and the epochs from which it could be resumed. With ``--resume``
        they stay; if this very run has finished already, the process ends here with exit code 0.

        Raises:
            UserError: the folder cannot be made or written, another run is writing there, or ``--resume`` finds the
                results of a run with other settings.
        """
        metrics = self.folder / "metrics.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            _lock(self.folder.resolve())
            unfinished = list(self.folder.glob("*/last.ckpt"))
            if self.settings.resume:
                if metrics.is_file():
                    self.refuse_other_run(metrics, _read_json(metrics).get("run"))
                    say(f"{metrics}: this run has finished; nothing is left to do")
                    sys.exit()
                if unfinished:
                    return
                say(f"--resume: nothing to resume in {self.folder}; starting anew")
            pictures = filter(is_own_picture, self.folder.glob("*.png"))
            others = (self.folder / name for name in ("metrics.txt", "examples.json"))
            for path in (metrics, *others, *pictures, *unfinished):
                path.unlink(missing_ok=True)
        except OSError as error:
            message = f"--output-dir {self.folder}: cannot write there ({error.strerror}); name another folder"
            raise UserError(message) from error

    def refuse_other_run(self, path: Path, earlier: Any) -> None:
        """Raise UserError unless ``earlier``, the record in ``path``, is of a run with the settings of this one."""
        try:
            arguments = dict(earlier["arguments"])
            corpus, checkpoint = earlier["fingerprint"], earlier["task2_checkpoint"]
        except (LookupError, TypeError, ValueError) as error:  # not a record of this version
            raise UserError(f"--resume: {path} cannot be read; start anew without --resume") from error
        differing = [
            f"--{name.replace('_', '-')} {arguments.get(name)} (now {value})"
            for name, value in self.record["arguments"].items()
            if name not in WITHOUT_INFLUENCE and arguments.get(name) != value
        ]
        differing += ["another corpus"] if corpus != self.record["fingerprint"] else []
        differing += ["another task 2 checkpoint"] if checkpoint != self.record["task2_checkpoint"] else []
        if differing:
            raise UserError(f"--resume: {path} is of a run with {', '.join(differing)}; start anew without --resume")

    @rank_zero_only
    def write_metrics(self, title: str, results: dict[str, dict]) -> None:
        """Write ``results`` (a dict of numbers per model) and the record to metrics.json and metrics.txt; print them.

        This ends the run: metrics.json is written last, and nothing remains from which it could be resumed.
        """
        self.write_table(title, results)
        metrics = results | {"run": self.record | {"seconds": seconds()}}
        write_atomically(self.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        for finished in self.folder.glob("*/last.ckpt"):
            finished.unlink()

    @rank_zero_only
    def write_table(self, title: str, results: dict[str, dict]) -> None:
        """Write and print metrics.txt: a row per model, headed by what was measured on which corpus."""
        clips = ", ".join(f"{count} {name}" for name, count in self.record["clips"].items())
        corpus = f"{self.record['corpus']} ({clips} clips, {self.record['speakers']} speakers)"
        keys = dict.fromkeys(key for row in results.values() for key in row)
        # An accuracy, its interval and its number of clips share one cell.
        columns = [key for key in keys if not key.endswith(("_ci95", "_clips"))]
        table = [["", *columns], *([name, *(_cell(row, key) for key in columns)] for name, row in results.items())]
        head = [title, f"Corpus: {corpus}, seed {self.record['seed']}", ""]
        text = "\n".join([*head, *align(table), "", f"{seconds()} s", ""])
        write_atomically(self.folder / "metrics.txt", text)
        say(f"\n{text}\nWritten to {self.folder}/")


def _cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if f"{key}_ci95" in row:
        low, high = row[f"{key}_ci95"]
        return f"{value:.4f} [{low:.3f}, {high:.3f}] n={row[key.removesuffix('_acc') + '_clips']}"
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (TypeError, ValueError):
        return {}


def seconds() -> float:
    """Seconds since the start of the process."""
    return round(time.monotonic() - STARTED, 1)


@functools.cache  # once per process
def _lock(folder: Path) -> None:
    """Hold ``folder`` until the process ends, however it ends."""
    if fcntl is None:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UserError(f"--output-dir {folder}: another run is writing there; name another folder") from error
    # A loader process may outlive a killed run by seconds and must not keep the lock. Its own children find the list
    # empty: by then the number may belong to another file.
    held = [descriptor]

    def release() -> None:
        while held:
            os.close(held.pop())

    os.register_at_fork(after_in_child=release)

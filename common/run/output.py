"""One run of a task: its output folder, the record of its circumstances, metrics.json and metrics.txt."""

import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from common.run.cli import Settings
from common.run.console import UserError, align, measures, say, score
from common.run.files import is_own_picture, write_atomically
from common.run.process import rank_zero_only

started = time.monotonic()  # of the run, see ``begin``
LIBRARIES = ("torch", "torchaudio", "pytorch-lightning", "scikit-learn")
NOT_RECORDED = ("resume", "task1_checkpoint", "task2_checkpoint")  # encoders are recorded by their weights
WITHOUT_INFLUENCE = ("--output-dir", "--num-workers", "--logger", "--quiet")  # on the results; --resume may change them


class Run:
    """The settings and the folder of a run, and its ``record``: what is stored with metrics and in checkpoints.

    Args:
        facts: what the data are, see ``common.data.SpokenDigits.describe``.
        parameters: number of parameters of each encoder.
        pretrained, supervised: what task 2 and task 1 trained, if the task reads it; their weights decide its results.
    """

    def __init__(
        self,
        settings: Settings,
        facts: dict[str, Any],
        parameters: dict[str, int],
        pretrained: nn.Module | None = None,
        supervised: nn.Module | None = None,
    ) -> None:
        self.settings, self.folder = settings, settings.output_dir
        arguments = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
        self.record = facts | {
            "seed": settings.seed,
            "arguments": {name: value for name, value in arguments.items() if name not in NOT_RECORDED},
            "task1_checkpoint": weights_digest(supervised) if supervised else None,
            "task2_checkpoint": weights_digest(pretrained) if pretrained else None,
            "parameters": parameters,
            "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        }

    def open(self) -> None:
        """Make the folder, lock it until the process ends, and delete the stale results of an earlier run.

        With ``--resume`` they stay, and if this very run has finished already, the process ends with exit code 0.

        Raises:
            UserError: the folder cannot be written, another run is writing there, or ``--resume`` finds another run.
        """
        metrics = self.folder / "metrics.json"
        if self.settings.resume and metrics.is_file():  # in each of several processes: one that went on would wait
            self.refuse_other_run(metrics, _earlier_record(metrics))
            rank_zero_only(say)(f"{metrics}: this run has finished; nothing is left to do")
            sys.exit()
        self._prepare_folder()

    @rank_zero_only
    def _prepare_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
            _lock(self.folder.resolve())
            unfinished = list(self.folder.glob("*/last.ckpt"))
            if self.settings.resume:
                if unfinished:
                    return
                say(f"--resume: nothing to resume in {self.folder}; starting anew")
            pictures = filter(is_own_picture, self.folder.glob("*.png"))
            texts = (self.folder / name for name in ("metrics.json", "metrics.txt", "map.json"))
            for path in (*texts, *pictures, *unfinished):
                path.unlink(missing_ok=True)
        except OSError as error:
            message = f"--output-dir {self.folder}: cannot write there ({error.strerror}); name another folder"
            raise UserError(message) from error

    def refuse_other_run(self, path: Path, earlier: Any) -> None:
        """Raise UserError unless ``earlier``, the record in ``path``, is of a run with these settings and inputs."""
        try:
            before = _what_decides(earlier)
        except (AttributeError, LookupError, TypeError) as error:  # not a record of this version
            raise UserError(f"--resume: {path} cannot be read; start anew without --resume") from error
        now = _what_decides(self.record)
        differing = [f"{name} {before.get(name)} (now {now[name]})" for name in now if before.get(name) != now[name]]
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
        """Write and print metrics.txt: a table of models and measures, headed by what was measured on which corpus."""
        clips = ", ".join(f"{count} {name}" for name, count in self.record["clips"].items())
        corpus = f"{self.record['corpus']} ({clips} clips, {self.record['speakers']} speakers)"
        keys = measures(results)
        table = [["", *keys], *([name, *(score(row, key) for key in keys)] for name, row in results.items())]
        if len(keys) > len(results):
            table = [list(column) for column in zip(*table, strict=True)]
        head = [title, f"Corpus: {corpus}, seed {self.record['seed']}"]
        if any("worst_speaker_acc" in row for row in results.values()):
            head.append("Accuracy [95% interval over speakers] n=clips, accuracy of the worst speaker and who that is")
        head.append("")
        text = "\n".join([*head, *align(table), "", f"{seconds()} s", ""])
        write_atomically(self.folder / "metrics.txt", text)
        say(f"\n{text}\nWritten to {self.folder}/")


def _earlier_record(metrics: Path) -> Any:
    try:
        return json.loads(metrics.read_text())["run"]
    except (LookupError, TypeError, ValueError):
        return None


def _what_decides(record: dict[str, Any]) -> dict[str, Any]:
    """What the results of a run depend on: its flags and input files."""
    arguments = {f"--{name.replace('_', '-')}": value for name, value in record["arguments"].items()}
    inputs = {
        "corpus": record["fingerprint"],
        "split": record["split"],
        "task 1's encoders": record["task1_checkpoint"],
        "task 2's encoders": record["task2_checkpoint"],
    }
    return {name: value for name, value in (arguments | inputs).items() if name not in WITHOUT_INFLUENCE}


def weights_digest(module: nn.Module) -> str:
    """A short text that changes with the weights."""
    weights = b"".join(value.cpu().numpy().tobytes() for value in module.state_dict().values())
    return hashlib.sha256(weights).hexdigest()[:16]


def begin() -> None:
    """Count the seconds of a run from now on, and let go of the folders of earlier ones in this process.

    In a notebook one process runs several scripts.
    """
    global started
    started = time.monotonic()
    for release in _held:
        release()
    _held.clear()
    _lock.cache_clear()


def seconds() -> float:
    """Seconds since the start of the run."""
    return round(time.monotonic() - started, 1)


_held: list[Callable[[], None]] = []


@functools.cache  # once per run
def _lock(folder: Path) -> None:
    """Hold ``folder`` until the process ends, however it ends."""
    if sys.platform == "win32":
        return
    import fcntl

    held = [os.open(folder, os.O_RDONLY)]

    def release() -> None:
        while held:  # once: in the children of a child the number may be that of another file
            os.close(held.pop())

    os.register_at_fork(after_in_child=release)  # a loader process may outlive a killed run by seconds
    try:
        fcntl.flock(held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        release()
        raise UserError(f"--output-dir {folder}: another run is writing there; name another folder") from error
    _held.append(release)

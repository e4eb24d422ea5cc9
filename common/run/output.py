"""One run of a task: its output folder, the record of its circumstances, metrics.json and metrics.txt."""

import hashlib
import io
import json
import platform
import textwrap
import zipfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import nn

from common.run import PICTURE_MARK, WIDTH, UserError, is_main_process, read_json, say, seconds, table, write_atomically
from common.run.cli import Settings

MAX_BYTES = 64_000_000  # of a checkpoint, uncompressed; twenty times what the tasks write
LIBRARIES = ("torch", "torchaudio", "pytorch-lightning", "scikit-learn")
NOT_RECORDED = ("resume", "task1_checkpoint", "task2_checkpoint")  # encoders are recorded by their weights
WITHOUT_INFLUENCE = ("output_dir", "num_workers", "logger", "quiet")  # on the results; --resume may change them


class Run:
    """The settings and the folder of a run, and its ``record``: what is stored with metrics and in checkpoints.

    Within the ``with`` block the folder is locked. Entering it deletes the stale results of an earlier run; with
    ``--resume`` they stay, and ``finished`` tells whether this very run has written its metrics already.

    Args:
        facts: what the data are, see ``common.data.SpokenDigits.describe``.
        parameters: number of parameters of each encoder.
        pretrained, supervised: what task 2 and task 1 trained, if the task reads it; their weights decide its results.

    Raises:
        UserError: on entering, if the folder cannot be written, another run is writing there, or ``--resume`` finds
            another run.
    """

    def __init__(
        self,
        settings: Settings,
        facts: dict[str, Any],
        parameters: dict[str, int],
        pretrained: nn.Module | None = None,
        supervised: nn.Module | None = None,
    ) -> None:
        self.settings, self.folder, self.finished = settings, settings.output_dir, False
        self.lock = filelock.FileLock(self.folder / ".lock", timeout=0)
        arguments = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
        self.record = facts | {
            "seed": settings.seed,
            "arguments": {name: value for name, value in arguments.items() if name not in NOT_RECORDED},
            "task1_checkpoint": weights_digest(supervised) if supervised else None,
            "task2_checkpoint": weights_digest(pretrained) if pretrained else None,
            "parameters": parameters,
            "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        }

    def __enter__(self) -> "Run":
        metrics = self.folder / "metrics.json"
        if self.settings.resume and metrics.is_file():  # in each of several processes: one that went on would wait
            self.refuse_other_run(metrics, read_json(metrics, {}).get("run"))
            say(f"{metrics}: this run has finished; nothing is left to do")
            self.finished = True
        elif is_main_process():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.lock.acquire()
                self._clear_folder()
            except filelock.Timeout as error:
                raise UserError(f"--output-dir {self.folder}: another run is writing there; name another") from error
            except OSError as error:
                reason = f"cannot write there ({error.strerror})"
                raise UserError(f"--output-dir {self.folder}: {reason}; name another folder") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.lock.is_locked:
            Path(self.lock.lock_file).unlink(missing_ok=True)
            self.lock.release()

    def _clear_folder(self) -> None:
        """Delete the results of an earlier run, unless this one continues it."""
        unfinished = list(self.folder.glob("*/last.ckpt"))
        if self.settings.resume and unfinished:
            return
        if self.settings.resume:
            say(f"--resume: nothing to resume in {self.folder}; starting anew")
        pictures = [path for path in self.folder.glob("*.png") if PICTURE_MARK in path.read_bytes()[:256]]
        texts = [self.folder / name for name in ("metrics.json", "metrics.txt", "map.json")]
        for path in (*texts, *pictures, *unfinished):
            path.unlink(missing_ok=True)

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

    def write_metrics(self, title: str, results: dict[str, dict]) -> None:
        """Write ``results`` (a dict of numbers per model) and the record to metrics.json and metrics.txt; print them.

        metrics.json is written last, and nothing remains from which the training could be resumed.
        """
        self.write_table(title, results)
        metrics = results | {"run": self.record | {"seconds": seconds()}}
        write_atomically(self.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        for finished in self.folder.glob("*/last.ckpt") if is_main_process() else ():
            finished.unlink()

    def write_table(self, title: str, results: dict[str, dict]) -> None:
        """Write and print metrics.txt: a table of models and measures, headed by what was measured on which corpus."""
        clips = ", ".join(f"{count} {name}" for name, count in self.record["clips"].items())
        corpus = f"{self.record['corpus']} ({clips} clips, {self.record['speakers']} speakers)"
        head = [title, *textwrap.wrap(f"Corpus: {corpus}, seed {self.record['seed']}", WIDTH)]
        if any("worst_speaker_acc" in row for row in results.values()):
            head.append("Accuracy [95% interval over speakers] n=clips, accuracy of the worst speaker and who that is")
        text = "\n".join([*head, "", *table(results), "", f"{seconds()} s", ""])
        write_atomically(self.folder / "metrics.txt", text)
        say(f"\n{text}\nWritten to {self.folder}/")


def _what_decides(record: dict[str, Any]) -> dict[str, Any]:
    """What the results of a run depend on: its flags and input files."""
    flags = {k: value for k, value in record["arguments"].items() if k not in WITHOUT_INFLUENCE}
    return {f"--{name.replace('_', '-')}": value for name, value in flags.items()} | {
        "corpus": record["fingerprint"],
        "split": record["split"],
        "task 1's encoders": record["task1_checkpoint"],
        "task 2's encoders": record["task2_checkpoint"],
    }


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a complete checkpoint or none, so that the earlier one can be read whenever a run ends.

    Raises:
        UserError: the disk is full.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    write_atomically(path, content.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds. Raises errors of many kinds if it is none, or is larger than any of ours.

    It is read with ``weights_only=True``, so that it cannot run code, and a small file cannot fill the memory.
    """
    with zipfile.ZipFile(path) as file:
        if sum(part.file_size for part in file.infolist()) > MAX_BYTES:
            raise ValueError("larger than any checkpoint of these tasks")
    return torch.load(path, map_location="cpu", weights_only=True)


def store_temperature(path: Path, temperature: float) -> None:
    """Add the temperature of a classifier to its ``best.ckpt``, for ``common.voice``."""
    save_checkpoint(read_checkpoint(path) | {"temperature": temperature}, path)


def weights_digest(module: nn.Module) -> str:
    """A short text that changes with the weights."""
    weights = b"".join(value.cpu().numpy().tobytes() for value in module.state_dict().values())
    return hashlib.sha256(weights).hexdigest()[:16]

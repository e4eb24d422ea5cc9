"""Fetch the AudioMNIST clips a run needs, and no others, from the corpus's git repository.

A shallow, blob-less clone brings only the list of files; the clips then come in groups, one request each. They arrive
in a temporary clone beside the destination, are checked there and are renamed into place one by one. A clip in the
destination is therefore always whole, a broken-off download costs one group at most, and the next call goes on from it.

The repository counts as untrusted: no hook, filter or link of it takes effect and only files named like clips are kept.
"""

import json
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import soundfile
from tqdm import tqdm

from common.run.console import UserError, printable, progress_bar

try:
    from resource import RLIMIT_AS, prlimit
except ImportError:  # only Linux limits a process that runs already
    prlimit = None

Result = TypeVar("Result")

DEFAULT_ADDRESS = "https://github.com/soerenab/AudioMNIST"
METADATA = "data/audioMNIST_meta.txt"
MARKER = "DOWNLOADED.txt"
CLIP_NAME = re.compile(r"data/([0-9]{2})/[0-9]_\1_[0-9]{1,2}\.wav")

GROUP_FILES = 512  # a speaker and the metadata, some 16 MB: little to lose, and 60 requests bring the whole corpus
MAX_FILE_BYTES = 1_000_000  # ten times the longest clip
MAX_ENTRIES = 200_000  # six times what the corpus holds
MAX_LISTING_BYTES = 150 * MAX_ENTRIES
MAX_STAGED_BYTES = 3_000_000_000  # on the disk at a time; a server that leaves nothing out sends the corpus, 1 GB
MAX_MEMORY_BYTES = 4_000_000_000  # of addresses, for each of git's processes

REACH_SECONDS = 15
CLONE_SECONDS = 600
GROUP_SECONDS = 900
ATTEMPTS = 2  # for each request
PAUSE_SECONDS = 2
POLL_SECONDS = 0.1

# What git says of a line or a server that may work the next moment, unlike a wrong address or a missing network.
PASSING = re.compile(r"reset|disconnect|hung up|closed|empty reply|early EOF|error: (429|5\d\d)", re.IGNORECASE)

# The host is part of the name because a process id says nothing on another machine that shares the disk.
STAGING_PREFIX = f".AudioMNIST.{platform.node()}."

WAY_OUT = "set AUDIOMNIST_URL to another copy, or download the repository by hand and pass --data-dir"

GIT_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.symlinks": "false",
    "core.fsmonitor": "false",
    "core.sparseCheckout": "true",
    "core.sparseCheckoutCone": "false",
    "credential.helper": "",
    "gc.auto": "0",  # packing would go on in the background, in a folder that is about to vanish
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "http.lowSpeedLimit": "1000",  # bytes per second, over the seconds below: the line counts as dead
    "http.lowSpeedTime": "60",
    "core.bigFileThreshold": "4m",  # what is larger goes through to the disk instead of into the memory
    "pack.threads": "2",  # each may take hundreds of megabytes of addresses
}
GIT_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh") + " -oBatchMode=yes",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_ALLOW_PROTOCOL": "file:https:http:ssh:git",
}
# A program that git itself started, such as a hook, has these set for the repository it was started from.
GIT_LEFT_OUT = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}


class DownloadError(UserError):
    """The clips could not be fetched. The message shows no password."""

    def __init__(self, message: str):
        super().__init__(_without_password(printable(message)))


def is_managed(root: Path) -> bool:
    """Tell whether `fetch` filled `root`, so that a clip it lacks may be fetched rather than be an error."""
    return (Path(root) / MARKER).is_file()


def fetch(clips: Iterable, root: Path, address: str | None = None) -> int:
    """Fetch those of `clips` (speaker, digit, repetition) that `root` lacks; return how many there were."""
    root = Path(root).resolve()
    try:
        missing = _missing(clips, root)
        if missing:
            _fetch(missing, root, address or os.environ.get("AUDIOMNIST_URL") or DEFAULT_ADDRESS)
    except OSError as error:
        reason = error.strerror or error
        raise DownloadError(f"could not fetch the clips into {root}: {reason}; is it writable, with room?") from error
    return _count_clips(missing)


def _missing(clips: Iterable, root: Path) -> list[str]:
    wanted = dict.fromkeys(f"data/{clip.speaker}/{clip.digit}_{clip.speaker}_{clip.repetition}.wav" for clip in clips)
    for path in wanted:
        if not CLIP_NAME.fullmatch(path):
            raise DownloadError(f"{path} is not named like an AudioMNIST clip, data/07/3_07_21.wav for example")
    return [path for path in [METADATA, *wanted] if not (root / path).is_file()]


def _count_clips(paths: list[str]) -> int:
    return len(paths) - (METADATA in paths)


def _fetch(missing: list[str], root: Path, address: str) -> None:
    if shutil.which("git") is None:
        raise DownloadError("git was not found: install git, or download AudioMNIST by hand and pass --data-dir")
    if Path(address).exists():
        address = Path(address).resolve().as_uri()  # from a bare path git would copy the whole history, clips and all
    root.parent.mkdir(parents=True, exist_ok=True)
    # Beside `root`, so that `root` appears with the first clips and not before; but clips are renamed into place, which
    # must not cross from one file system to another.
    place = root if root.is_mount() or not os.access(root.parent, os.W_OK) else root.parent
    _remove_abandoned(place)
    staging = place / f"{STAGING_PREFIX}{os.getpid()}.partial"
    staging.mkdir(parents=True)
    try:
        clone = _clone(address, staging)
        _check_listing(clone, missing, address)
        with progress_bar("Downloading AudioMNIST", _count_clips(missing), "clips") as bar:
            for start in range(0, len(missing), GROUP_FILES):
                group = missing[start : start + GROUP_FILES]
                _check_out(clone, group, address)
                _mark(root, staging, address)
                _move_in(clone, group, root, address)
                bar.update(_count_clips(group))
    finally:
        _remove_abandoned(place)  # ours, and once more others: a killed process's git may have written on for a moment


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)


def _remove_abandoned(place: Path) -> None:
    """Remove the temporary clones of processes that were killed before they could do it themselves."""
    for staging in place.glob(f"{STAGING_PREFIX}*.partial"):
        process_id = staging.name.removeprefix(STAGING_PREFIX).removesuffix(".partial")
        # A clone under our own id, before and after the work, is an earlier process's: containers reuse low numbers.
        if process_id.isdecimal() and (int(process_id) == os.getpid() or not _is_running(int(process_id))):
            shutil.rmtree(staging, ignore_errors=True)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)  # signal 0 only asks
    except OSError as error:
        return isinstance(error, PermissionError)  # then it is there and somebody else's
    return True


def _clone(address: str, staging: Path) -> Path:
    """Clone the repository without its files."""
    clone = staging / "clone"
    # A short question first, so that a wrong address or a missing network shows within seconds.
    reach = ["ls-remote", "--", address, "HEAD"]
    if not _retried(lambda: _git(reach, REACH_SECONDS, f"could not reach {address}"), PASSING):
        raise DownloadError(f"there is no git repository with files at {address}: {WAY_OUT}")
    options = ["--quiet", "--depth=1", "--filter=blob:none", "--no-checkout", "--no-tags", "--template="]

    def copy() -> None:
        shutil.rmtree(clone, ignore_errors=True)
        command = ["clone", *options, "--", address, str(clone)]
        _git(command, CLONE_SECONDS, f"could not clone {address}", filled=staging)

    _retried(copy, PASSING)
    # This file outranks every .gitattributes: without it the repository could call for a filter that the user has set
    # up for other work, or for the conversion of line ends inside the audio.
    (clone / ".git/info").mkdir(exist_ok=True)
    (clone / ".git/info/attributes").write_text("* -text -filter -ident -working-tree-encoding\n")
    return clone


def _check_listing(clone: Path, wanted: list[str], address: str) -> None:
    """Check that the repository has everything wanted, as regular files."""
    # A few kilobytes of folders nested in one another can list billions of files, all of which a checkout would hold
    # in memory: hence the limit, at which the reading stops.
    listing = _git(["ls-tree", "-r", "-z", "HEAD"], CLONE_SECONDS, f"could not list {address}", clone)
    entries = listing.decode("utf-8", "replace").split("\0")[:-1]
    if len(entries) > MAX_ENTRIES or len(listing) >= MAX_LISTING_BYTES:
        raise DownloadError(f"{address} lists more than {MAX_ENTRIES} files, so it is not AudioMNIST: {WAY_OUT}")
    modes = {path: kind.split()[0] for kind, _, path in (entry.partition("\t") for entry in entries)}
    absent = [path for path in wanted if path not in modes]
    if absent:
        shortage = f"lacks {len(absent)} of the {len(wanted)} files wanted, the first {absent[0]}"
        raise DownloadError(f"{address} {shortage}: {WAY_OUT}")
    for path in wanted:
        if modes[path] not in ("100644", "100755"):
            raise DownloadError(f"{path} in {address} is a link and not a file, which is refused: {WAY_OUT}")


def _retried(action: Callable[[], Result], worth: re.Pattern = re.compile("")) -> Result:
    """Do it again after a failure, if its message is ``worth`` that; the last one counts."""
    for _ in range(ATTEMPTS - 1):
        try:
            return action()
        except DownloadError as error:
            if not worth.search(str(error)):
                raise
            tqdm.write(f"AudioMNIST: {error} (trying again)", file=sys.stderr)
            time.sleep(PAUSE_SECONDS)
    return action()


def _check_out(clone: Path, group: list[str], address: str) -> None:
    """Bring one group of files into the clone, in one request."""
    (clone / ".git/info/sparse-checkout").write_text("".join(f"/{path}\n" for path in group))
    packs = set((clone / ".git/objects/pack").iterdir())

    def check_out() -> None:
        # Without these each attempt starts afresh, whatever was moved away, half written or locked by a killed git.
        (clone / ".git/index").unlink(missing_ok=True)
        (clone / ".git/index.lock").unlink(missing_ok=True)
        # Unlike `checkout -- PATHS`, this asks once for all the blobs that the sparse patterns let through.
        problem = f"could not fetch {len(group)} files from {address}"
        _git(["read-tree", "--reset", "-u", "HEAD"], GROUP_SECONDS, problem, clone)

    _retried(check_out)
    for pack in set((clone / ".git/objects/pack").iterdir()) - packs:
        pack.unlink()  # the same clips in git's own form: 60 groups of them would need room for the corpus once more


def _move_in(clone: Path, group: list[str], root: Path, address: str) -> None:
    """Move the sound files of a group to their places, and complain of the others only then."""
    bad = [path for path in group if not _is_sound(clone / path)]
    for path in group:
        if path not in bad:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (clone / path).replace(root / path)
    if bad:
        raise DownloadError(f"{bad[0]} in {address} is damaged ({len(bad)} such in {len(group)} files): {WAY_OUT}")


def _mark(root: Path, staging: Path, address: str) -> None:
    origin = f"Downloaded from {_without_password(address)}; may hold only the clips that runs needed so far.\n"
    (staging / MARKER).write_text(origin, encoding="utf-8")
    root.mkdir(exist_ok=True)
    (staging / MARKER).replace(root / MARKER)


def _is_sound(path: Path) -> bool:
    """Check a file of the clone without following a link, reading a big file or unpacking compressed audio."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= MAX_FILE_BYTES:
            return False
        if path.suffix != ".wav":
            return bool(json.loads(path.read_bytes()))
        with soundfile.SoundFile(path) as clip:
            return clip.format in ("WAV", "WAVEX") and len(clip.read(dtype="int16")) > 0
    except (FileNotFoundError, ValueError, RecursionError, soundfile.SoundFileError):
        return False


def _git(
    arguments: list[str], seconds: float, problem: str, clone: Path | None = None, filled: Path | None = None
) -> bytes:
    """Run git, which may ask the user nothing, and return what it printed.

    It is killed when its time is up, or when the folder that it fills (``filled`` or ``clone``) has grown too large.
    """
    command = ["git", *(part for setting in GIT_SETTINGS.items() for part in ("-c", "=".join(setting)))]
    if clone:  # named outright, lest a broken clone make git turn to a repository in a folder above
        command += [f"--git-dir={clone / '.git'}", f"--work-tree={clone}"]
    environment = {name: value for name, value in os.environ.items() if name not in GIT_LEFT_OUT} | GIT_ENVIRONMENT
    causes: list[str] = []  # of its end, the first counts
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            command + arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            # A session of its own has no terminal to ask at, and its helpers (git-remote-https) can be killed with it.
            start_new_session=True,
        )
        if prlimit:
            with suppress(OSError, ValueError):  # it has ended, or the user's own limit is lower
                prlimit(process.pid, RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        over = threading.Event()
        watch = threading.Thread(target=_watch, args=(process, seconds, filled or clone, over, causes))
        watch.start()
        try:
            output = process.stdout.read(MAX_LISTING_BYTES)
            if len(output) == MAX_LISTING_BYTES:
                return output
            process.wait()
        finally:
            over.set()
            _kill(process)
            watch.join()
            process.wait()
            process.stdout.close()
        complaints.seek(0)
        lines = complaints.read(100_000).decode("utf-8", "replace").split("\n")
    if process.returncode == 0:
        return output
    # The first line is the cause, told by the innermost program; the later ones only say who gave up because of it.
    told = [line for line in lines if line.strip() and not line.lower().startswith(("warning:", "hint:", "remote:"))]
    cause = [*causes, *told, f"git ended with {process.returncode}"][0][:300]
    raise DownloadError(f"{problem}: {cause}; check the network and its proxy settings, {WAY_OUT}")


def _watch(
    process: subprocess.Popen, seconds: float, folder: Path | None, over: threading.Event, causes: list[str]
) -> None:
    deadline = time.monotonic() + seconds
    while not over.wait(POLL_SECONDS):
        if time.monotonic() >= deadline:
            causes.append(f"no answer within {seconds:g} seconds")
        elif folder and _size(folder) > MAX_STAGED_BYTES:
            causes.append(f"more than {MAX_STAGED_BYTES / 1e9:g} GB came, so it is not AudioMNIST")
        if causes:
            _kill(process)
            return


def _size(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):  # which passes over folders that vanish
        for name in names:
            with suppress(OSError):
                size += (Path(place) / name).lstat().st_size
    return size


def _kill(process: subprocess.Popen) -> None:
    if process.returncode is None:  # not yet waited for, so its number cannot belong to anything else
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

"""Fetch the AudioMNIST clips that a run needs, and no others, from the corpus's git repository.

A shallow clone without file contents brings the list of files; the clips follow by sparse checkouts, in groups of one
request each. The clone is a temporary folder beside the destination, and each file is checked there and then renamed
into place. So a clip in the destination is always whole, an interruption costs one group at most, and the next call
fetches only what is missing. Git verifies what it receives; the repository's own filters and links take no effect.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

import soundfile
from tqdm import tqdm

from common.corpus.clips import Clip
from common.run.console import UserError, progress_bar

DEFAULT_ADDRESS = "https://github.com/soerenab/AudioMNIST"
METADATA = "data/audioMNIST_meta.txt"
MARKER = "DOWNLOADED.txt"
CLIP_PATH = re.compile(r"data/([0-9]{2})/[0-9]_\1_[0-9]{1,2}\.wav")
MAX_FILE_BYTES = 1_000_000  # ten times the longest clip
GROUP_FILES = 512  # one speaker, about 16 MB: little to lose, and 60 requests bring the whole corpus
REACH_SECONDS, COMMAND_SECONDS, PAUSE_SECONDS = 15, 900, 2
ABANDONED_SECONDS = 3600  # the longest time between two changes of a temporary folder is that of three commands
# What git says of a connection or server that may work the next time, unlike a wrong address or a missing network.
PASSING = re.compile(r"reset|disconnect|hung up|closed|terminated|[Ee]mpty reply|early EOF|too slow|error: (429|5\d\d)")
PASSWORD = re.compile(r"(?<=://)[^/\s]*@")
ADVICE = "set AUDIOMNIST_URL to another copy, or download the repository by hand and pass --data-dir"

# No hooks, no links, no background work in a clone that will be removed. A connection that brings less than 1000 bytes
# per second over a minute is given up.
GIT_SETTINGS = (
    "core.hooksPath=/dev/null core.symlinks=false core.fsmonitor=false submodule.recurse=false credential.helper= "
    "core.sparseCheckout=true core.sparseCheckoutCone=false gc.auto=0 maintenance.auto=false "
    "http.lowSpeedLimit=1000 http.lowSpeedTime=60"
)
GIT_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    # ControlPersist: an ssh that waits in the background for further connections would keep git's output open.
    "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh") + " -oBatchMode=yes -oControlPersist=no",
    "GIT_ALLOW_PROTOCOL": "file:https:http:ssh:git",
}
# Git sets these for the programs that it starts, such as hooks: they name the caller's repository.
GIT_LEFT_OUT = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}


class DownloadError(UserError):
    """The clips could not be fetched. The message shows no password."""

    def __init__(self, message: str) -> None:
        super().__init__(PASSWORD.sub("", message))


def is_managed(root: Path) -> bool:
    """Whether `fetch` filled ``root``, so that a missing clip may be fetched and is no error."""
    return (root / MARKER).is_file()


def downloaded_commit(root: Path) -> str | None:
    """The hash of the commit that all clips in ``root`` come from; None if that is not recorded."""
    marker = (root / MARKER).read_text(errors="replace") if is_managed(root) else ""
    match = re.search(r", commit ([0-9a-f]{40,64});", marker)
    return match[1] if match else None


def fetch(clips: Iterable[Clip], root: Path, address: str | None = None) -> int:
    """Fetch those of ``clips`` that ``root`` lacks, and the metadata, and return the number of clips fetched.

    Args:
        root: created with the first clips, each of which becomes ``data/SS/D_SS_R.wav`` in it.
        address: URL or local path of the git repository; by default AUDIOMNIST_URL, or else GitHub's.

    Raises:
        DownloadError: git, the network or the repository failed, or ``root`` cannot be written. What arrived stays.
    """
    wanted = dict.fromkeys(f"data/{clip.speaker}/{clip.digit}_{clip.speaker}_{clip.repetition}.wav" for clip in clips)
    for path in wanted:
        if not CLIP_PATH.fullmatch(path):
            raise DownloadError(f"{path} is not named like a clip of AudioMNIST, for example data/07/3_07_21.wav")
    try:
        missing = [path for path in [METADATA, *wanted] if not (root / path).is_file()]
        if missing:
            _fetch(missing, root.resolve(), address or os.environ.get("AUDIOMNIST_URL") or DEFAULT_ADDRESS)
    except OSError as error:
        raise DownloadError(f"cannot write to {root} ({error.strerror or error}); free space or allow it") from error
    return len(missing) - (METADATA in missing)


def _fetch(missing: list[str], root: Path, address: str) -> None:
    if shutil.which("git") is None:
        raise DownloadError("git was not found; install git, or download AudioMNIST by hand and pass --data-dir")
    root.parent.mkdir(parents=True, exist_ok=True)
    # In `root` only if files cannot be renamed from the folder above: `root` is to appear with the first clips.
    parent = root if root.is_mount() or not os.access(root.parent, os.W_OK) else root.parent
    for abandoned in parent.glob(".AudioMNIST.*.partial"):
        with suppress(FileNotFoundError):  # another process removes it at the same time
            if time.time() - abandoned.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(".partial", ".AudioMNIST.", parent, ignore_cleanup_errors=True) as clone:
        _fetch_through(Path(clone), missing, root, address)


def _fetch_through(clone: Path, missing: list[str], root: Path, address: str) -> None:
    commit = _clone(clone, address, missing)
    if is_managed(root) and downloaded_commit(root) != commit:
        commit = "unknown"  # as the clips that are there already come from another one
    marker = f"Downloaded from {address}, commit {commit}; may hold only the clips that runs needed so far.\n"
    with progress_bar("Downloading AudioMNIST", len(missing), "files") as bar:
        for start in range(0, len(missing), GROUP_FILES):
            group = missing[start : start + GROUP_FILES]
            (clone / ".git/info/sparse-checkout").write_text("".join(f"/{path}\n" for path in group))
            # Unlike `checkout -- PATHS`, this asks once for the contents of all files that the sparse patterns name.
            command = [f"--git-dir={clone}/.git", f"--work-tree={clone}", "read-tree", "--reset", "-u", "HEAD"]
            _git(command, f"could not fetch {len(group)} files from {address}")
            (clone / MARKER).write_text(PASSWORD.sub("", marker))
            damaged = [path for path in group if not _is_sound(clone / path)]
            for path in [MARKER, *group]:
                if path not in damaged:
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    (clone / path).replace(root / path)
            if damaged:
                raise DownloadError(f"{address} has {len(damaged)} damaged files, the first {damaged[0]}; {ADVICE}")
            bar.update(len(group))


def _clone(clone: Path, address: str, wanted: list[str]) -> str:
    """Clone the repository without file contents, check that it has everything wanted, and return its commit's hash."""
    # A short question first, so that a wrong address or a missing network shows within seconds.
    reach = ["ls-remote", "--exit-code", "--", address, "HEAD"]
    _git(reach, f"found no git repository with files at {address}", REACH_SECONDS)
    # Without --no-local, git would copy the whole history of a repository on this disk.
    options = ["--depth=1", "--filter=blob:none", "--no-checkout", "--no-tags", "--no-local", "--template=", "--quiet"]
    _git(["clone", *options, "--", address, str(clone)], f"could not clone {address}")
    # This file outranks every .gitattributes: without it the repository could call for a filter that the user has
    # installed for other work, or for the conversion of line ends inside the audio.
    (clone / ".git/info").mkdir(exist_ok=True)
    (clone / ".git/info/attributes").write_text("* -text -filter -ident -working-tree-encoding\n")
    folders = dict.fromkeys(path.rpartition("/")[0] + "/" for path in wanted)  # a short command, unlike all the paths
    listing = _git([f"--git-dir={clone}/.git", "ls-tree", "-z", "HEAD", *folders], f"could not list {address}")
    files = {entry.partition("\t")[2] for entry in listing.split("\0") if entry.startswith(("100644 ", "100755 "))}
    absent = [path for path in wanted if path not in files]
    if absent:
        count = f"{len(absent)} of the {len(wanted)} files"
        raise DownloadError(f"{address} lacks {count}, or has links instead, the first {absent[0]}; {ADVICE}")
    return _git([f"--git-dir={clone}/.git", "rev-parse", "HEAD"], f"could not read {address}").strip()


def _is_sound(path: Path) -> bool:
    if not path.is_file() or not 0 < path.stat().st_size <= MAX_FILE_BYTES:
        return False
    try:
        with soundfile.SoundFile(path) as clip:
            return clip.format in ("WAV", "WAVEX") and 0 < clip.frames == len(clip.read(dtype="int16"))
    except soundfile.SoundFileError:
        return path.suffix != ".wav"


def _git(arguments: list[str], problem: str, seconds: float = COMMAND_SECONDS, attempts: int = 2) -> str:
    """Run git, once more if it fails for a reason that may pass, and return what it printed."""
    command = ["git", *(part for setting in GIT_SETTINGS.split() for part in ("-c", setting)), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in GIT_LEFT_OUT} | GIT_ENVIRONMENT
    # In a session of its own it has no terminal to ask at, and its helpers can be killed with it.
    with Popen(
        command, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, errors="replace", start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except TimeoutExpired as error:
            raise DownloadError(f"{problem} within {seconds:g} seconds; check the network, {ADVICE}") from error
        finally:
            if process.returncode is None:  # not waited for yet, so its number cannot belong to another process
                with suppress(PermissionError):  # macOS raises it if the group has just ended
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode == 0:
        return output
    # The first line is the cause; the later ones only say which programs gave up because of it.
    lines = [line for line in errors.splitlines() if not line.lower().startswith(("warning:", "hint:", "remote:"))]
    cause = [*filter(str.strip, lines), f"git ended with {process.returncode}"][0][:300]
    failure = DownloadError(f"{problem}: {cause}; check the network and its proxy settings, {ADVICE}")
    if attempts == 1 or not PASSING.search(cause):
        raise failure
    tqdm.write(f"AudioMNIST: {failure} (trying again)", file=sys.stderr)
    time.sleep(PAUSE_SECONDS)
    return _git(arguments, problem, seconds, attempts - 1)

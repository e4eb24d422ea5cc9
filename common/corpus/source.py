"""Which corpus a run uses: a folder of the user's, AudioMNIST (downloaded if need be), or synthetic speech.

Of AudioMNIST only the clips that a run needs are fetched from the corpus's git repository. A shallow clone without file
contents comes first; the clips follow by sparse checkouts, in groups of one request each. The clone is a temporary
folder beside the destination, and each clip is checked there and then renamed into place. So a clip in the destination
is always whole, an interruption costs one group at most, and the next call fetches only what is missing.
"""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

import soundfile

from common.corpus import SYNTHETIC_MARKER, SYNTHETIC_NAME, Clip, Corpus, audiomnist_names, open_folder
from common.corpus.working import working_folder
from common.run import UserError, progress_bar, shortened

AUDIOMNIST_DIR = Path("data/AudioMNIST")
DEFAULT_ADDRESS = "https://github.com/soerenab/AudioMNIST"
MARKER = "DOWNLOADED.txt"
GROUP_FILES = 512  # one speaker, about 16 MB: little to lose, and 60 requests bring the whole corpus
REACH_SECONDS, COMMAND_SECONDS, PAUSE_SECONDS = 15, 900, 2
PASSWORD = re.compile(r"(?<=://)[^/\s]*@")

# No links, no stored passwords, no background work in a clone that will be removed. A connection that brings less than
# 1000 bytes per second over a minute is given up.
GIT_SETTINGS = (
    "core.symlinks=false core.sparseCheckout=true core.sparseCheckoutCone=false credential.helper= "
    "maintenance.auto=false http.lowSpeedLimit=1000 http.lowSpeedTime=60"
)
GIT_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh") + " -oBatchMode=yes",
}
# Git sets these for the programs that it starts, such as hooks: they name the caller's repository.
GIT_LEFT_OUT = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"}


def find_corpus(data_dir: Path | None, dataset: str, ratio: float, seed: int) -> Corpus:
    """The clips of ``data_dir``, or of ``dataset`` where there is none, reduced to a fraction of ``ratio``.

    Args:
        dataset: "audiomnist": data/AudioMNIST if the user has filled it, else a download of the clips that ``ratio``
            needs. "synthetic": speech by espeak-ng. "auto": AudioMNIST, or else (announced) synthetic speech.

    Raises:
        UserError: no such folder, no clips in it, or no AudioMNIST where it was asked for by name.
    """
    if data_dir is not None:
        return open_folder(data_dir).take(ratio, seed)
    synthetic_speech = Corpus(SYNTHETIC_NAME, audiomnist_names(), None).take(ratio, seed)
    if dataset == "synthetic":
        return synthetic_speech
    # What the user put there is the corpus; a download holds only the clips that runs have needed so far.
    if any(AUDIOMNIST_DIR.glob("[!.]*")) and not is_managed(AUDIOMNIST_DIR):
        corpus = open_folder(AUDIOMNIST_DIR)
        if corpus.name == SYNTHETIC_NAME and dataset == "audiomnist":
            raise UserError(f"--dataset audiomnist: {AUDIOMNIST_DIR} holds synthetic speech; move it away")
        return corpus.take(ratio, seed)
    wanted = Corpus("AudioMNIST", audiomnist_names(), AUDIOMNIST_DIR / "data").take(ratio, seed)
    try:
        fetch(wanted.clips, AUDIOMNIST_DIR)
    except DownloadError as error:
        if dataset == "audiomnist":
            raise
        announcement = f"""
!!  AudioMNIST is not available: {error}
!!  This run uses SYNTHETIC SPEECH (espeak-ng) instead. Its numbers are not AudioMNIST numbers.
!!  With a copy of AudioMNIST: --data-dir DIR. To choose synthetic speech: --dataset synthetic.
"""
        print("!" * 100 + announcement + "!" * 100, file=sys.stderr)
        return synthetic_speech
    return wanted


class DownloadError(UserError):
    """The clips could not be fetched. The message shows no password."""

    def __init__(self, problem: str) -> None:
        advice = "run again to continue, set AUDIOMNIST_URL to another copy, or pass one with --data-dir"
        super().__init__(PASSWORD.sub("", f"download from {_address()}: {problem}; {advice}"))


def is_managed(root: Path) -> bool:
    """Whether `fetch` filled ``root``, so that a missing clip may be fetched and is no error."""
    return (root / MARKER).is_file()


def downloaded_commit(root: Path) -> str | None:
    """The hash of the commit that all clips in ``root`` come from; None if that is not recorded."""
    text = (root / MARKER).read_text("utf-8", "replace") if is_managed(root) else ""
    match = re.search(r", commit ([0-9a-f]{40,64});", text)
    return match[1] if match else None


def fetch(clips: Iterable[Clip], root: Path) -> int:
    """Fetch those of ``clips`` that ``root`` lacks, as ``data/SS/D_SS_R.wav`` in it, and return their number.

    They come from the git repository at AUDIOMNIST_URL, or else from GitHub's.

    Raises:
        UserError: ``root`` holds files that were not downloaded.
        DownloadError: git, the network or the repository failed, or ``root`` cannot be written. What arrived stays.
    """
    missing = [path for path in (f"data/{clip.path}" for clip in clips) if not (root / path).is_file()]
    others = any(root.glob("[!.]*")) and not is_managed(root)
    if (missing and others) or (root / SYNTHETIC_MARKER).exists():
        raise UserError(f"{root} holds other files, which a download must not mix with; name a new folder")
    if missing:
        if shutil.which("git") is None:
            raise DownloadError("git was not found, install it")
        try:
            # In `root`, which is to appear with the first clips, only if files cannot be renamed from the folder above.
            root = root.resolve()
            root.parent.mkdir(parents=True, exist_ok=True)
            above = not root.is_mount() and os.access(root.parent, os.W_OK)
            with working_folder(root.parent if above else root) as clone:
                _fetch(missing, root, clone)
        except OSError as error:
            raise DownloadError(f"cannot write to {root} ({error.strerror}), free space or allow it") from error
    return len(missing)


def _fetch(missing: list[str], root: Path, clone: Path) -> None:
    # A short question first, so that a wrong address or a missing network shows within seconds.
    _git("ls-remote", "--exit-code", "--", _address(), "HEAD", seconds=REACH_SECONDS)
    _git("clone", "--depth=1", "--filter=blob:none", "--no-checkout", "--quiet", "--", _address(), str(clone))
    commit = _git("-C", str(clone), "rev-parse", "HEAD").strip()
    if is_managed(root) and downloaded_commit(root) != commit:
        commit = "unknown"  # as the clips that are there already come from another one
    marker = f"Downloaded from {_address()}, commit {commit}; may hold only the clips that runs needed so far.\n"
    (clone / ".git/info").mkdir(exist_ok=True)
    with progress_bar("Downloading AudioMNIST", len(missing), "clips") as bar:
        for start in range(0, len(missing), GROUP_FILES):
            group = missing[start : start + GROUP_FILES]
            (clone / ".git/info/sparse-checkout").write_text("".join(f"/{path}\n" for path in group))
            # Unlike `checkout -- PATHS`, this asks once for the contents of all files that the sparse patterns name.
            command = ("-C", str(clone), "read-tree", "--reset", "-u", "HEAD")
            try:
                _git(*command)
            except DownloadError:  # among many requests a connection may break
                time.sleep(PAUSE_SECONDS)
                _git(*command)
            damaged = [path for path in group if not _is_sound(clone / path)]
            if damaged:
                raise DownloadError(f"{len(damaged)} clips are missing or damaged there, the first {damaged[0]}")
            (clone / MARKER).write_text(PASSWORD.sub("", marker), "utf-8")
            for path in (MARKER, *group):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (clone / path).replace(root / path)
            bar.update(len(group))


def _address() -> str:
    return os.environ.get("AUDIOMNIST_URL") or DEFAULT_ADDRESS


def _is_sound(path: Path) -> bool:
    try:
        with soundfile.SoundFile(path) as clip:
            return 0 < clip.frames == len(clip.read(dtype="int16"))
    except soundfile.SoundFileError:
        return False


def _git(*arguments: str, seconds: float = COMMAND_SECONDS) -> str:
    """Run git and return what it printed."""
    command = ["git", *(part for setting in GIT_SETTINGS.split() for part in ("-c", setting)), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in GIT_LEFT_OUT} | GIT_ENVIRONMENT
    # In a session of its own it has no terminal to ask at, and its helpers can be killed with it.
    with Popen(
        command, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, errors="replace", start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except TimeoutExpired as error:
            raise DownloadError(f"no answer within {seconds:g} seconds, check the network") from error
        finally:
            if process.returncode is None:  # not waited for yet, so its number cannot belong to another process
                with suppress(PermissionError):  # macOS raises it if the group has just ended
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if "unknown option" in errors:  # --filter
        raise DownloadError(f"git 2.19 or newer is needed, and this is {_git('--version').strip()}")
    if process.returncode != 0:
        problem = shortened(errors, 300) or f"git ended with {process.returncode}"
        raise DownloadError(f"{problem}; check the network and its proxy settings")
    return output

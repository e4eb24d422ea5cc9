"""Which corpus a run uses: a folder of the user's, AudioMNIST (downloaded if need be), or synthetic speech."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from common.corpus import SYNTHETIC_NAME, Clip, Corpus, audiomnist_names, open_folder, speaker_names, split_clips
from common.run import UserError, printable, progress_bar, shortened

AUDIOMNIST_DIR = Path("data/AudioMNIST")
ANNOUNCEMENT = """!!  AudioMNIST is not available: {}
!!  This run uses SYNTHETIC SPEECH (espeak-ng) instead. Its numbers are not AudioMNIST numbers.
!!  With a copy of AudioMNIST: --data-dir DIR. To choose synthetic speech: --dataset synthetic."""

# A download is a sparse partial clone: git fetches the contents of just the files that its patterns name. A larger
# ratio adds patterns. Git's index tells what has arrived, so that an interrupted download goes on where it ended.
REMOTE = "audiomnist"
PATTERNS = Path(".git/info/sparse-checkout")
HEADER = "# The clips of AudioMNIST that runs have needed so far\n"  # tells our clone from one of the user's
GROUP = 2000  # clips, some 64 MB, are one request, and what an interruption may cost
REACH_SECONDS, COMMAND_SECONDS = 15, 900
# No links, hooks, submodules, stored passwords or background work. A file that a killed git has begun is not taken for
# one that the user added. A connection that brings less than 1000 bytes per second over a minute is given up.
GIT_SETTINGS = (
    "core.sparseCheckout=true core.sparseCheckoutCone=false core.symlinks=false core.autocrlf=false credential.helper= "
    f"core.hooksPath={os.devnull} submodule.recurse=false maintenance.auto=false protocol.ext.allow=never "
    "sparse.expectFilesOutsideOfPatterns=true http.lowSpeedLimit=1000 http.lowSpeedTime=60"
)
# Git sets these for the programs that it starts, such as hooks: they name the caller's repository.
GIT_LEFT_OUT = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"}


class DownloadError(UserError):
    """The clips could not be fetched. The message shows no address, which may hold a password."""

    def __init__(self, problem: str) -> None:
        problem = shortened(re.sub(r"\S+://\S+", "(address)", problem), 300)
        advice = "run again to continue, set AUDIOMNIST_URL to another address, or pass a copy with --data-dir"
        super().__init__(f"download of AudioMNIST: {problem}; {advice}")


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
    if _is_users_own(AUDIOMNIST_DIR):
        return open_folder(AUDIOMNIST_DIR).take(ratio, seed)
    wanted = Corpus("AudioMNIST", audiomnist_names(), AUDIOMNIST_DIR / "data").take(ratio, seed)
    try:
        fetch(wanted.clips, AUDIOMNIST_DIR)
        return wanted
    except DownloadError as error:
        if dataset == "audiomnist":
            raise
        print(f"{'!' * 100}\n{ANNOUNCEMENT.format(error)}\n{'!' * 100}", file=sys.stderr)
    return synthetic_speech


def downloaded_commit(root: Path) -> str | None:
    """The hash of the commit from which ``fetch`` brought the clips in ``root``; None for others."""
    return _git(root, "rev-parse", "HEAD").strip() if _checked_out(root) else None


def fetch(clips: Sequence[Clip], root: Path) -> int:
    """Fetch those of ``clips`` that ``root`` lacks, as ``data/SS/D_SS_R.wav`` in it, and return their number.

    Raises:
        UserError: ``root`` holds files that were not downloaded.
        DownloadError: git, the network or the repository failed. What arrived stays, and the next call goes on.
    """
    if _is_users_own(root):
        raise UserError(f"{root} holds other files, which a download must not mix with; name a new folder")
    missing = sorted({f"data/{clip.path}" for clip in clips} - _checked_out(root))
    if missing:
        # A short question first, so that a wrong address or a missing network shows within seconds.
        _git(Path(), "ls-remote", "--exit-code", REMOTE, "HEAD", seconds=REACH_SECONDS)
        (root / PATTERNS).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".git/download.flock"):  # another run may be downloading
            _fetch(missing, root)
    return len(missing)


def _fetch(missing: list[str], root: Path) -> None:
    for left_by_killed_git in (root / ".git").rglob("*.lock"):
        left_by_killed_git.unlink()
    if not _is_download(root):
        (root / PATTERNS).write_text(HEADER)
    _git(root, "init", "--quiet", "--template=")
    if not _git(root, "for-each-ref"):  # no commit: it has the names of all files, without their contents
        _git(root, "fetch", "--quiet", "--depth=1", "--filter=blob:none", "--no-tags", REMOTE, "HEAD")
        _git(root, "update-ref", "HEAD", "FETCH_HEAD")
    there = _checked_out(root)
    with progress_bar("Downloading AudioMNIST", len(missing), "clips") as bar:
        for start in range(0, len(missing), GROUP):
            group = missing[start : start + GROUP]
            there.update(group)
            (root / PATTERNS).write_text(HEADER + "".join(f"/{pattern}\n" for pattern in _patterns(there)))
            # Unlike `checkout -- PATHS`, this asks once for the contents of all files that the patterns name.
            _git(root, "read-tree", "--reset", "-u", "HEAD")
            if lacking := sorted(set(group) - _checked_out(root)):
                raise DownloadError(f"{len(lacking)} clips are not there, or are links, the first {lacking[0]}")
            bar.update(len(group))


def _checked_out(root: Path) -> set[str]:
    """Paths of the files that a download has brought completely, as far as nobody removed them afterwards."""
    begun = _is_download(root) and (root / ".git/index").exists()
    listing = _git(root, "ls-files", "-t", "--stage", "-z").split("\0") if begun else []
    # "H" is checked out, "S" is left out. 100644 is a file, and 120000 a link.
    paths = [entry.partition("\t")[2] for entry in listing if entry.startswith("H 100")]
    return {path for path in paths if (root / path).is_file()}


def _patterns(paths: set[str]) -> list[str]:
    """Git compares each file with each pattern, which takes time: a folder is named if all its clips are wanted."""
    count = Counter(path.rpartition("/")[0] for path in paths)
    whole = {folder for folder in count if count[folder] == 500}
    return sorted({f"{folder}/" for folder in whole} | {path for path in paths if path.rpartition("/")[0] not in whole})


def _is_download(root: Path) -> bool:
    return (root / PATTERNS).is_file() and (root / PATTERNS).read_text().startswith(HEADER)


def _is_users_own(root: Path) -> bool:
    return not _is_download(root) and (any(root.glob("[!.]*")) or (root / ".git/HEAD").exists())


def _git(folder: Path, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
    """Run git in ``folder`` and return what it printed; its remote REMOTE is the repository of AudioMNIST."""
    address = os.environ.get("AUDIOMNIST_URL") or "https://github.com/soerenab/AudioMNIST"
    if Path(address).exists():
        address = str(Path(address).resolve())  # git looks for it from ``folder``
    settings = [
        part for setting in (*GIT_SETTINGS.split(), f"remote.{REMOTE}.url={address}") for part in ("-c", setting)
    ]
    environment = {name: value for name, value in os.environ.items() if name not in GIT_LEFT_OUT}
    ssh = f"{os.environ.get('GIT_SSH_COMMAND', 'ssh')} -oBatchMode=yes"
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "GIT_SSH_COMMAND": ssh}
    # Never the repository that ``folder`` is in; and the kind of hash that AudioMNIST has, whatever git's default is.
    environment |= {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent), "GIT_DEFAULT_HASH": "sha1"}
    command = ["git", "-C", str(folder), *settings, *arguments]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, errors="replace", timeout=seconds
        )
    except FileNotFoundError as error:
        raise DownloadError("git was not found, install it") from error
    except subprocess.TimeoutExpired as error:
        raise DownloadError(f"no answer within {seconds:g} seconds, check the network") from error
    if done.returncode != 0:
        raise DownloadError(f"{done.stderr or f'git ended with {done.returncode}'}; check the network and its proxy")
    return done.stdout


def show(data_dir: Path | None, dataset: str, ratio: float, seed: int, fold: int | None) -> None:
    """Print the clips and speakers of each set; nothing is decoded."""
    corpus = find_corpus(data_dir, dataset, ratio, seed)
    print(f"{corpus.name}: {len(corpus.clips)} clips")
    for name, rows in split_clips(corpus.clips, seed, fold)._asdict().items():
        speakers = speaker_names([corpus.clips[i] for i in rows])
        print(printable(f"{name}: {len(rows)} clips, {len(speakers)} speakers from {speakers[0]} to {speakers[-1]}"))

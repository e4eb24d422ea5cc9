"""The download is tested with small git repositories made here: nothing leaves the machine."""

import http.server
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import soundfile

from common.corpus import Clip, source
from common.corpus.source import MARKER, DownloadError, downloaded_commit, is_managed
from common.run import UserError

NUMBERS = itertools.product(("01", "02"), range(3), range(4))
CLIPS = [Clip(speaker, digit, i, f"{speaker}/{digit}_{speaker}_{i}.wav") for speaker, digit, i in NUMBERS]
WRITER = {f"GIT_{role}_{item}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for item in ("NAME", "EMAIL")}
PLAIN_GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]} | WRITER


def git(folder: Path, *arguments: str, given: str = "") -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, env=PLAIN_GIT, input=given, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def publish(folder: Path) -> str:
    """Commit all files of a folder and return its address, at which it answers as GitHub does."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message=corpus")
    git(folder, "config", "uploadpack.allowFilter", "true")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    return folder.as_uri()


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path) -> Path:
    """The user's git settings: empty, whatever those of the developer are. And all the time a busy machine needs."""
    for name in [name for name in os.environ if name.startswith("GIT_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUDIOMNIST_URL", "")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(source, "REACH_SECONDS", 300)
    monkeypatch.setattr(source, "PAUSE_SECONDS", 0)
    return tmp_path / "gitconfig"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, write_tones) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_tones(folder / "data", ("01", "02"), range(3), 4)
    (folder / "README.md").write_text("A file that nobody asked for.\n")
    publish(folder)
    return folder


@pytest.fixture
def altered(corpus, tmp_path) -> Path:
    """A copy of the corpus to be altered and published."""
    return shutil.copytree(corpus, tmp_path / "altered")


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "AudioMNIST"


def fetch(clips: list[Clip], root: Path, address: str) -> int:
    os.environ["AUDIOMNIST_URL"] = address
    return source.fetch(clips, root)


def temporary_folders(root: Path) -> list[Path]:
    return list(root.parent.glob(".audio-tasks-partial-*"))


def check_holds(root: Path, clips: list[Clip], corpus: Path) -> None:
    """Check that these clips are there byte for byte, and nothing else but what belongs to every download."""
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}
    assert files == {f"data/{clip.path}" for clip in clips} | {MARKER}
    assert all((root / path).read_bytes() == (corpus / path).read_bytes() for path in files - {MARKER})
    assert temporary_folders(root) == []


def check_fails(clips: list[Clip], root: Path, address: str, *parts: str) -> None:
    """Check that a fetch fails with these parts in a message of one line, and leaves nothing temporary."""
    with pytest.raises(DownloadError) as caught:
        fetch(clips, root, address)
    message = str(caught.value)
    assert "\n" not in message and "secret" not in message
    assert [part for part in parts if part not in message] == []
    assert temporary_folders(root) == []


# --- what is fetched


def test_fetches_only_the_missing_clips_in_groups_of_one_request(root, corpus, monkeypatch, tmp_path):
    monkeypatch.setattr(source, "GROUP_FILES", 5)
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))  # requests for files are those of ``git fetch``
    assert not is_managed(root)
    assert fetch(CLIPS[3:10], root, corpus.as_uri()) == 7
    check_holds(root, CLIPS[3:10], corpus)
    assert is_managed(root) and (tmp_path / "trace").read_text().count("built-in: git fetch") == 2
    before = (root / "data" / CLIPS[3].path).stat().st_mtime_ns
    assert fetch(CLIPS, root, corpus.as_uri()) == len(CLIPS) - 7
    check_holds(root, CLIPS, corpus)
    assert (root / "data" / CLIPS[3].path).stat().st_mtime_ns == before


def test_needs_no_git_when_nothing_is_missing(corpus, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert fetch(CLIPS, corpus, "/nowhere") == 0
    assert not is_managed(corpus)  # it remains the user's own


def test_takes_a_local_path_or_a_server_that_cannot_leave_files_out(root, altered):
    git(altered, "config", "uploadpack.allowFilter", "false")
    for number, address in enumerate((os.path.relpath(altered), altered.as_uri()), start=1):
        fetch(CLIPS[:number], root, address)
        check_holds(root, CLIPS[:number], altered)


def test_records_the_commit_if_all_clips_come_from_one(root, altered):
    assert downloaded_commit(root) is None
    for number in (1, 2):
        fetch(CLIPS[:number], root, altered.as_uri())
        assert altered.as_uri() in (root / MARKER).read_text()
        assert downloaded_commit(root) == git(altered, "rev-parse", "HEAD")
    git(altered, "commit", "--allow-empty", "--message=later")
    fetch(CLIPS[:3], root, altered.as_uri())
    assert downloaded_commit(root) is None


# --- interruptions and faults


@pytest.fixture
def faulty_git(root, tmp_path, monkeypatch) -> Path:
    """A file for shell commands that git runs in place of its own once the first group of clips has arrived."""
    monkeypatch.setattr(source, "GROUP_FILES", 5)
    program, git = tmp_path / "faulty/git", shutil.which("git")
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\n"
        f'case "$*" in *read-tree*) if [ -e "{root}" ]; then . "{program}.fault"; fi;; esac\n'
        f'exec {git} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program.with_name("git.fault")


def test_what_came_before_a_lasting_fault_stays_and_no_password_is_shown(root, corpus, settings, faulty_git):
    address = "http://user:secret@host/AudioMNIST"
    settings.write_text(f'[url "{corpus.as_uri()}"]\n\tinsteadOf = {address}\n')
    faulty_git.write_text(f"echo 'fatal: could not read from {address}' >&2; exit 128\n")
    check_fails(CLIPS, root, address, "could not read from http://host/AudioMNIST", "run again to continue")
    check_holds(root, CLIPS[:5], corpus)
    faulty_git.write_text("")
    assert fetch(CLIPS, root, address) == len(CLIPS) - 5
    check_holds(root, CLIPS, corpus)
    assert "http://host/AudioMNIST, commit" in (root / MARKER).read_text()


def test_goes_on_after_being_killed(root, corpus, faulty_git):
    faulty_git.write_text("kill -9 $PPID; exit 1\n")
    program = f"""
from pathlib import Path
from common.corpus import source
source.GROUP_FILES, source.REACH_SECONDS = 5, 300
source.fetch([source.Clip(*clip) for clip in {[*map(tuple, CLIPS)]}], Path({str(root)!r}))
"""
    environment = os.environ | {"AUDIOMNIST_URL": corpus.as_uri()}
    ended = subprocess.run([sys.executable, "-c", program], cwd=Path(source.__file__).parents[2], env=environment)
    assert ended.returncode == -signal.SIGKILL
    faulty_git.write_text("")
    [folder] = temporary_folders(root)
    assert fetch(CLIPS[:6], root, corpus.as_uri()) == 1  # the first group of five had arrived
    assert temporary_folders(root) == [folder]  # a process at work might need it
    os.utime(folder, (0, 0))
    assert fetch(CLIPS, root, corpus.as_uri()) == len(CLIPS) - 6
    check_holds(root, CLIPS, corpus)


@pytest.mark.parametrize("name", ["SYNTHETIC.txt", "data/01/mine.wav"])
def test_a_folder_with_other_files_is_refused(root, corpus, name):
    (root / name).parent.mkdir(parents=True)
    (root / name).touch()
    with pytest.raises(UserError, match=f"^{root} holds other files, which a download must not mix with"):
        fetch(CLIPS, root, str(corpus))
    assert [path for path in root.rglob("*") if path.is_file()] == [root / name]


def test_two_fetch_at_once(root, corpus, monkeypatch):
    monkeypatch.setattr(source, "GROUP_FILES", 5)
    with ThreadPoolExecutor() as pool:
        list(pool.map(fetch, [CLIPS] * 2, [root] * 2, [corpus.as_uri()] * 2))
    check_holds(root, CLIPS, corpus)


# --- repositories and surroundings that are not as they should be


@pytest.mark.parametrize(
    "address",
    ["http://user:secret@127.0.0.1:1", "ext::touch ran", "--upload-pack=touch ran", "/nowhere/AudioMNIST", "empty"],
)
def test_names_an_address_without_a_repository(root, monkeypatch, tmp_path, address):
    git(tmp_path, "init", "--quiet", "empty")
    monkeypatch.chdir(tmp_path)
    check_fails(CLIPS, root, address, f"download from {address.replace('user:secret@', '')}: ", "AUDIOMNIST_URL")
    assert not (tmp_path / "ran").exists()


def test_gives_up_a_server_that_does_not_answer(root, monkeypatch):
    monkeypatch.setattr(source, "REACH_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check_fails(CLIPS, root, f"http://127.0.0.1:{silent.getsockname()[1]}/", "no answer within 1 seconds")


def test_asks_for_no_password(root, settings, monkeypatch, tmp_path):
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

    program = tmp_path / "ask"
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/asked'\necho answer\n")
    program.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(program))
    monkeypatch.setenv("SSH_ASKPASS", str(program))
    settings.write_text(f"[credential]\n\thelper = {program}\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        check_fails(CLIPS, root, f"http://127.0.0.1:{server.server_port}/AudioMNIST", "prompts disabled")
        server.shutdown()
    assert not (tmp_path / "asked").exists()


def test_names_clips_that_the_repository_lacks_or_has_in_pieces(root, altered, monkeypatch):
    monkeypatch.setattr(source, "GROUP_FILES", 4)
    (altered / "data" / CLIPS[4].path).write_bytes(b"RIFF is all there is of it")
    (altered / "data" / CLIPS[5].path).write_bytes(b"")
    (altered / "data" / CLIPS[6].path).unlink()
    soundfile.write(altered / "data" / CLIPS[7].path, [], 16_000)
    check_fails(CLIPS, root, publish(altered), f"4 clips are missing or damaged there, the first data/{CLIPS[4].path}")
    check_holds(root, CLIPS[:4], altered)


@pytest.mark.parametrize("linked", [CLIPS[1].path, "01"])
def test_follows_no_links(root, altered, tmp_path, linked):
    (altered / "data" / linked).rename(tmp_path / "outside")
    (altered / "data" / linked).symlink_to(tmp_path / "outside")
    check_fails(CLIPS[:3], root, publish(altered), f"missing or damaged there, the first data/{linked}")
    assert not root.exists()


def test_says_that_git_is_absent(root, monkeypatch):
    monkeypatch.setenv("PATH", "")
    check_fails(CLIPS, root, "", "git was not found", "--data-dir")


def test_names_a_folder_that_cannot_be_written(corpus, tmp_path):
    (tmp_path / "file").write_text("in the way")
    check_fails(CLIPS, tmp_path / "file/AudioMNIST", corpus.as_uri(), "cannot write", str(tmp_path / "file"))

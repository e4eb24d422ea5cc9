"""The download is tested with small git repositories made here: nothing leaves the machine."""

import errno
import http.server
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import soundfile

from common.corpus import download
from common.corpus.clips import Clip
from common.corpus.download import MARKER, METADATA, DownloadError, downloaded_commit, fetch, is_managed

NUMBERS = itertools.product(("01", "02"), range(3), range(4))
CLIPS = [Clip(speaker, digit, i, f"data/{speaker}/{digit}_{speaker}_{i}.wav") for speaker, digit, i in NUMBERS]
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
    monkeypatch.delenv("AUDIOMNIST_URL", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(download, "REACH_SECONDS", 300)
    return tmp_path / "gitconfig"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, write_tones) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_tones(folder / "data", ("01", "02"), range(3), 4)
    (folder / METADATA).write_text('{"01": {"gender": "male"}}')
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


@pytest.fixture
def trace(monkeypatch, tmp_path) -> Path:
    """A file in which git notes each command; requests for files are those of ``git fetch``."""
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    return tmp_path / "trace"


def temporary_folders(root: Path) -> list[Path]:
    return [*root.parent.glob(".AudioMNIST.*"), *root.glob(".AudioMNIST.*")]


def check_holds(root: Path, clips: list[Clip], corpus: Path) -> None:
    """Check that these clips are there byte for byte, and nothing else but what belongs to every download."""
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}
    assert files == {clip.path for clip in clips} | {METADATA, MARKER}
    assert all((root / path).read_bytes() == (corpus / path).read_bytes() for path in files - {MARKER})
    assert temporary_folders(root) == []


def check_fails(clips: list[Clip], root: Path, address: str | None, *parts: str) -> None:
    """Check that a fetch fails with these parts in a message of one line, and leaves nothing temporary."""
    with pytest.raises(DownloadError) as caught:
        fetch(clips, root, address)
    message = str(caught.value)
    assert "\n" not in message and "secret" not in message
    assert [part for part in parts if part not in message] == []
    assert temporary_folders(root) == []


# --- what is fetched


def test_fetches_only_the_wanted_clips_in_one_request(root, corpus, trace):
    assert not is_managed(root)
    assert fetch([*CLIPS[3:15], CLIPS[3]], root, corpus.as_uri()) == 12
    check_holds(root, CLIPS[3:15], corpus)
    assert is_managed(root)
    assert trace.read_text().count("built-in: git fetch") == 1


def test_needs_no_git_when_nothing_is_missing(corpus, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert fetch(CLIPS, corpus) == 0
    assert not is_managed(corpus)  # it remains the user's own


def test_extends_what_is_there(root, corpus):
    fetch(CLIPS[:5], root, corpus.as_uri())
    before = (root / CLIPS[0].path).stat().st_mtime_ns
    assert fetch(CLIPS, root, corpus.as_uri()) == len(CLIPS) - 5
    check_holds(root, CLIPS, corpus)
    assert (root / CLIPS[0].path).stat().st_mtime_ns == before


def test_fetches_in_groups(root, corpus, monkeypatch, trace):
    monkeypatch.setattr(download, "GROUP_FILES", 5)
    fetch(CLIPS, root, corpus.as_uri())
    check_holds(root, CLIPS, corpus)
    assert trace.read_text().count("built-in: git fetch") == 5


def test_takes_a_local_path_from_the_environment(root, corpus, monkeypatch, trace):
    monkeypatch.setenv("AUDIOMNIST_URL", os.path.relpath(corpus))
    fetch(CLIPS[:2], root)
    check_holds(root, CLIPS[:2], corpus)
    assert trace.read_text().count("built-in: git fetch") == 1


def test_works_with_a_server_that_cannot_leave_files_out(root, altered):
    git(altered, "config", "uploadpack.allowFilter", "false")
    fetch(CLIPS[:5], root, altered.as_uri())
    check_holds(root, CLIPS[:5], altered)


def test_records_the_commit_if_all_clips_come_from_one(root, altered):
    assert downloaded_commit(root) is None
    for number in (1, 2):
        fetch(CLIPS[:number], root, altered.as_uri())
        assert altered.as_uri() in (root / MARKER).read_text()
        assert downloaded_commit(root) == git(altered, "rev-parse", "HEAD")
    git(altered, "commit", "--allow-empty", "--message=later")
    fetch(CLIPS[:3], root, altered.as_uri())
    assert downloaded_commit(root) is None


@pytest.mark.parametrize("fields", [("../../x", 0, 0), ("1", 0, 0), ("01", "*", 0), ("01", 0, "0\n")])
def test_refuses_a_name_that_is_not_a_clips(root, corpus, fields):
    check_fails([Clip(*fields, "")], root, corpus.as_uri(), "not named like")


# --- interruptions and faults


class GitOverHttp(http.server.BaseHTTPRequestHandler):
    """Answers as a git server does, unless ``server.fault(number of the request)`` names a fault."""

    def do_GET(self):
        fault = self.server.fault(next(self.server.numbers))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if isinstance(fault, int):
            return self.send_error(fault)
        path, _, query = self.path.partition("?")
        request = {
            "GIT_PROJECT_ROOT": self.server.folder,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        answer = subprocess.run(["git", "http-backend"], env=PLAIN_GIT | request, input=body, capture_output=True)
        head, _, content = answer.stdout.partition(b"\r\n\r\n")
        self.send_response(200)
        self.send_header("Content-Type", head.decode().partition("Content-Type: ")[2].splitlines()[0])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault else content)
        if fault == "stalled":
            self.server.stalled.set()
            self.connection.settimeout(30)
            with suppress(ConnectionError):
                self.rfile.read(1)  # returns when the program at the other end has ended
            self.server.closed.set()

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def git_server(corpus):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), GitOverHttp)
    server.folder, server.numbers, server.fault = str(corpus.parent), itertools.count(), lambda number: None
    server.stalled, server.closed = threading.Event(), threading.Event()
    server.address = f"http://user:secret@127.0.0.1:{server.server_port}/{corpus.name}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_goes_on_after_being_killed(root, corpus, git_server):
    git_server.fault = lambda number: "stalled" if is_managed(root) else None
    program = f"""
from pathlib import Path
from common.corpus import download
download.GROUP_FILES, download.REACH_SECONDS = 5, 300
download.fetch([download.Clip(*clip) for clip in {[*map(tuple, CLIPS)]}], Path({str(root)!r}), {git_server.address!r})
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(download.__file__).parents[2])
    assert git_server.stalled.wait(timeout=120)
    process.kill()
    process.wait()
    [folder] = temporary_folders(root)
    assert fetch(CLIPS[:5], root, corpus.as_uri()) == 1  # the first group had four clips and the metadata
    assert temporary_folders(root) == [folder]  # a process at work might need it
    os.utime(folder, (0, 0))
    assert fetch(CLIPS, root, corpus.as_uri()) == len(CLIPS) - 5
    check_holds(root, CLIPS, corpus)


def test_two_fetch_at_once(root, corpus, monkeypatch):
    monkeypatch.setattr(download, "GROUP_FILES", 5)
    with ThreadPoolExecutor() as pool:
        list(pool.map(fetch, [CLIPS] * 2, [root] * 2, [corpus.as_uri()] * 2))
    check_holds(root, CLIPS, corpus)


def test_an_interrupt_stops_git(root, git_server):
    git_server.fault = lambda number: "stalled"

    def interrupt():
        git_server.stalled.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            fetch(CLIPS, root, git_server.address)
    finally:
        signal.signal(signal.SIGINT, before)
    assert git_server.closed.wait(timeout=60)
    assert temporary_folders(root) == []


def test_gives_up_a_server_that_does_not_answer(root, git_server, monkeypatch):
    monkeypatch.setattr(download, "REACH_SECONDS", 1)
    git_server.fault = lambda number: "stalled"
    check_fails(CLIPS, root, git_server.address, "no git repository with files", "within 1 seconds")
    # On a busy machine git may not even have connected.
    assert git_server.closed.wait(timeout=60) or not git_server.stalled.is_set()


def test_a_fault_in_any_one_request_is_made_up_for(git_server, corpus, tmp_path, capsys):
    for number in itertools.count():
        git_server.numbers, git_server.fault = itertools.count(), {number: ("cut", 503)[number % 2]}.get
        root = tmp_path / str(number) / "AudioMNIST"
        fetch(CLIPS[:3], root, git_server.address)
        check_holds(root, CLIPS[:3], corpus)
        told = capsys.readouterr().err
        assert "secret" not in told + (root / MARKER).read_text()
        if "trying again" not in told:
            break
        assert told.count("trying again") == 1
    assert number > 5  # it is the number of requests


@pytest.mark.parametrize(
    ("fault", "message"), [("cut", "closed"), ("stalled", "too slow"), (401, "Authentication failed"), (503, "503")]
)
def test_what_came_before_a_lasting_fault_stays(root, git_server, corpus, monkeypatch, fault, message):
    faults = itertools.chain(["cut"], itertools.repeat(fault))

    def fail_after_the_first_group(number):
        if not is_managed(root):
            return None
        # Not before, because a busy machine may need seconds for what is no fault.
        monkeypatch.setattr(download, "GIT_SETTINGS", f"{download.GIT_SETTINGS} http.lowSpeedTime=1")
        return next(faults)

    git_server.fault = fail_after_the_first_group
    monkeypatch.setattr(download, "GROUP_FILES", 5)
    check_fails(CLIPS, root, git_server.address, "could not fetch 5 files", message)
    check_holds(root, CLIPS[:4], corpus)
    git_server.fault = lambda number: None
    assert fetch(CLIPS, root, git_server.address) == len(CLIPS) - 4


def test_asks_for_no_password(root, git_server, settings, monkeypatch, tmp_path):
    program = tmp_path / "ask"
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/asked'\necho answer\n")
    program.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(program))
    monkeypatch.setenv("SSH_ASKPASS", str(program))
    settings.write_text(f"[credential]\n\thelper = {program}\n")
    git_server.fault = lambda number: 401
    check_fails(CLIPS, root, git_server.address.replace("user:secret@", ""), "prompts disabled")
    assert not (tmp_path / "asked").exists()


# --- repositories and surroundings that are not as they should be


@pytest.mark.parametrize(
    "address",
    ["http://user:secret@127.0.0.1:1", "ext::touch ran", "--upload-pack=touch ran", "/nowhere/AudioMNIST", "empty"],
)
def test_names_an_address_without_a_repository(root, settings, monkeypatch, tmp_path, capsys, address):
    git(tmp_path, "init", "--quiet", "empty")
    settings.write_text("[protocol]\n\tallow = always\n")
    monkeypatch.chdir(tmp_path)
    check_fails(CLIPS, root, address, f"no git repository with files at {address.replace('user:secret@', '')}")
    assert not (tmp_path / "ran").exists()
    assert "trying again" not in capsys.readouterr().err  # it would fail again


def test_names_a_proxy_that_does_not_answer(root, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:1")
    check_fails(CLIPS, root, "http://audiomnist.invalid/AudioMNIST", "127.0.0.1 port 1", "proxy settings")


def test_names_what_the_repository_lacks(root, corpus):
    wanted = [*CLIPS[:3], Clip("01", 9, 0, ""), Clip("60", 0, 0, "")]
    check_fails(wanted, root, corpus.as_uri(), "lacks 2 of the 6 files", "data/01/9_01_0.wav")
    assert not root.exists()


def test_keeps_the_whole_clips_beside_damaged_ones(root, altered):
    (altered / CLIPS[1].path).write_bytes(b"RIFF is all there is of it")
    soundfile.write(altered / CLIPS[2].path, [], 16_000)
    (altered / CLIPS[3].path).write_bytes(b"")
    soundfile.write(altered / CLIPS[4].path, [0.1] * 1000, 16_000, format="FLAC")
    soundfile.write(altered / CLIPS[5].path, [0.1] * 500_000, 16_000)
    check_fails(CLIPS[:8], root, publish(altered), "5 damaged files", CLIPS[1].path)
    check_holds(root, [CLIPS[0], *CLIPS[6:8]], altered)


@pytest.mark.parametrize("linked", [CLIPS[1].path, METADATA, "data/01"])
def test_refuses_links(root, altered, tmp_path, linked):
    (altered / linked).rename(tmp_path / "outside")
    (altered / linked).symlink_to(tmp_path / "outside")
    check_fails(CLIPS[:3], root, publish(altered), linked, "links")
    assert not root.exists()


@pytest.mark.parametrize("name", ["..", ".git", ".GIT"])
def test_refuses_names_that_lead_elsewhere(root, altered, tmp_path, name):
    blob = git(altered, "hash-object", "-w", "--stdin", given="#!/bin/sh\n")
    folder = git(altered, "mktree", given=f"100755 blob {blob}\tescaped.wav\n")
    tree = git(altered, "mktree", given=f"{git(altered, 'ls-tree', 'HEAD')}\n040000 tree {folder}\t{name}\n")
    git(altered, "update-ref", "HEAD", git(altered, "commit-tree", tree, "-m", "hostile"))
    check_fails(CLIPS[:2], root, altered.as_uri(), f"invalid path '{name}/escaped.wav'")
    assert not root.exists() and not list(tmp_path.rglob("escaped.wav"))


def test_runs_no_hooks_and_no_filters(root, altered, settings, tmp_path):
    for name in ("post-checkout", "post-index-change", "reference-transaction", "smudge"):
        (tmp_path / name).write_text('#!/bin/sh\ntouch "$0.ran"\ncat\n')
        (tmp_path / name).chmod(0o755)
    (altered / ".gitattributes").write_text("*.wav text eol=crlf filter=spy ident\n")
    address = publish(altered)
    settings.write_text(f'[core]\n\thooksPath = {tmp_path}\n[filter "spy"]\n\tsmudge = {tmp_path}/smudge\n')
    subprocess.run(["git", "clone", "--quiet", address, tmp_path / "control"], check=True)
    marks = {path.name: path.unlink() for path in tmp_path.glob("*.ran")}
    assert {"smudge.ran", "post-checkout.ran"} <= set(marks)  # or the rest would show nothing
    fetch(CLIPS[:2], root, address)
    check_holds(root, CLIPS[:2], altered)
    assert list(tmp_path.glob("*.ran")) == []


def test_works_in_a_git_hook(root, corpus, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere/index"))
    fetch(CLIPS[:2], root, corpus.as_uri())
    check_holds(root, CLIPS[:2], corpus)
    assert not (tmp_path / "elsewhere").exists()


def test_works_in_a_destination_that_is_a_mount(root, corpus, git_server, monkeypatch):
    root.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == root)
    git_server.fault = lambda number: None if list(root.glob(".AudioMNIST.*")) else 403
    fetch(CLIPS[:2], root, git_server.address)
    check_holds(root, CLIPS[:2], corpus)


def test_says_that_git_is_absent(root, monkeypatch):
    monkeypatch.setenv("PATH", "")
    check_fails(CLIPS, root, None, "install git", "--data-dir")


def test_names_a_full_disk(root, corpus, monkeypatch):
    def fail(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    check_fails(CLIPS, root, corpus.as_uri(), "No space left on device", str(root))


def test_names_a_folder_that_cannot_be_written(corpus, tmp_path):
    (tmp_path / "file").write_text("in the way")
    check_fails(CLIPS, tmp_path / "file/AudioMNIST", corpus.as_uri(), "cannot write", str(tmp_path / "file"))

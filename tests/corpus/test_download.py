"""The download is tested against small git repositories made here: nothing leaves the machine."""

import errno
import http.server
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.corpus import download
from common.corpus.download import METADATA, DownloadError, fetch, is_managed
from common.run.console import UserError


@dataclass(frozen=True)
class Clip:
    speaker: str
    digit: int
    repetition: int

    @property
    def path(self) -> str:
        return f"data/{self.speaker}/{self.digit}_{self.speaker}_{self.repetition}.wav"


CLIPS = [Clip(speaker, digit, repetition) for speaker in ("01", "02") for digit in range(3) for repetition in range(4)]


def tone(frequency: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(4800) / 48000)


def write_corpus(folder: Path) -> None:
    for number, clip in enumerate(CLIPS):
        (folder / clip.path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / clip.path, tone(200 + 20 * number), 48000, subtype="PCM_16")
    (folder / METADATA).write_text(json.dumps({"01": {"gender": "male"}, "02": {"gender": "female"}}))
    (folder / "README.md").write_text("A file that nobody asked for.\n")


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgSign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def serve(corpus: Path, bare: Path) -> str:
    """Commit a folder and return the address of a bare copy that answers as GitHub does."""
    git(corpus, "init", "--quiet")
    git(corpus, "add", "--all", "--force")
    git(corpus, "commit", "--quiet", "--message=corpus")
    git(corpus, "clone", "--quiet", "--bare", ".", str(bare))
    git(bare, "config", "uploadpack.allowFilter", "true")
    git(bare, "config", "uploadpack.allowAnySHA1InWant", "true")
    return bare.as_uri()


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch, tmp_path):
    """Keep the developer's git settings and proxies out, and the waiting short."""
    for name in [name for name in os.environ if name.startswith("GIT_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("AUDIOMNIST_URL", raising=False)
    (tmp_path / "gitconfig").write_text("[safe]\n\tdirectory = *\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def address(corpus, tmp_path_factory) -> str:
    return serve(corpus, tmp_path_factory.mktemp("server") / "corpus.git")


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "AudioMNIST"


def files_in(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


def check_holds(root: Path, clips: list[Clip], corpus: Path) -> None:
    """Check that these clips are there byte for byte, and beside them only what belongs to every download."""
    assert files_in(root) == {clip.path for clip in clips} | {METADATA, "DOWNLOADED.txt"}
    for path in [METADATA, *(clip.path for clip in clips)]:
        assert (root / path).read_bytes() == (corpus / path).read_bytes()
    assert temporary_clones(root) == []


def temporary_clones(root: Path) -> list[Path]:
    return [*root.parent.glob(".AudioMNIST.*.partial"), *root.glob(".AudioMNIST.*.partial")]


def error_of(*arguments, **options) -> str:
    """Run a fetch that must fail, and return its message, which must be one line."""
    with pytest.raises(DownloadError) as caught:
        fetch(*arguments, **options)
    assert isinstance(caught.value, UserError)
    message = str(caught.value)
    assert message.strip() and len(message.splitlines()) == 1
    return message


def check_closed(connection: socket.socket) -> None:
    """Check that the other end, which is git's helper, is gone: the system closes a dead process's connections."""
    connection.settimeout(5)
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass


def git_starts(trace: Path) -> list[list[str]]:
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    return [event["argv"] for event in events if event["event"] == "start"]


def test_fetches_the_wanted_clips_only_in_one_request(root, corpus, address, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(tmp_path / "trace"))
    wanted = CLIPS[3:15]
    assert not is_managed(root)
    assert fetch(wanted, root, address) == len(wanted)
    check_holds(root, wanted, corpus)
    assert is_managed(root)
    assert address in (root / "DOWNLOADED.txt").read_text()
    requests = [command for command in git_starts(tmp_path / "trace") if "fetch" in command]
    assert len(requests) == 1


def test_does_not_call_git_when_nothing_is_missing(root, corpus, address, monkeypatch, tmp_path):
    fetch(CLIPS[:2], root, address)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert fetch(CLIPS[:2], root, address) == 0


def test_leaves_a_copy_made_by_hand_unmarked(corpus, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert fetch(CLIPS, corpus) == 0
    assert not is_managed(corpus)


def test_extends_what_is_there(root, corpus, address):
    fetch(CLIPS[:5], root, address)
    before = (root / CLIPS[0].path).stat().st_mtime_ns
    assert fetch(CLIPS, root, address) == len(CLIPS) - 5
    check_holds(root, CLIPS, corpus)
    assert (root / CLIPS[0].path).stat().st_mtime_ns == before


def test_repeats_a_clip_asked_for_twice_only_once(root, corpus, address):
    assert fetch([CLIPS[0], CLIPS[0]], root, address) == 1
    check_holds(root, CLIPS[:1], corpus)


def test_fetches_in_groups_that_take_little_room(root, corpus, address, monkeypatch):
    monkeypatch.setattr(download, "GROUP_FILES", 5)
    staged, packs = [], []
    move_in = download._move_in

    def look(clone, group, *others):
        staged.append({path.relative_to(clone).as_posix() for path in clone.glob("data/**/*") if path.is_file()})
        packs.append(len(list((clone / ".git/objects/pack").glob("*.pack"))))
        assert staged[-1] == set(group)
        move_in(clone, group, *others)

    monkeypatch.setattr(download, "_move_in", look)
    assert fetch(CLIPS, root, address) == len(CLIPS)
    check_holds(root, CLIPS, corpus)
    assert [len(group) for group in staged] == [5] * 5
    assert packs == [1] * 5  # the one with the file list


def test_shows_progress_on_stderr(root, address, capsys):
    fetch(CLIPS[:3], root, address)
    shown = capsys.readouterr()
    assert shown.err == "Downloading AudioMNIST: 3 clips\n"
    assert shown.out == ""


def test_takes_the_address_from_the_environment(root, corpus, address, monkeypatch):
    monkeypatch.setenv("AUDIOMNIST_URL", address)
    fetch(CLIPS[:2], root)
    check_holds(root, CLIPS[:2], corpus)


def test_fetches_no_more_from_a_local_path(root, corpus, address, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(tmp_path / "trace"))
    fetch(CLIPS[:2], root, address.removeprefix("file://"))
    check_holds(root, CLIPS[:2], corpus)
    assert len([command for command in git_starts(tmp_path / "trace") if "fetch" in command]) == 1


def test_works_with_a_server_that_cannot_leave_the_clips_out(root, corpus, monkeypatch):
    monkeypatch.setattr(download, "GROUP_FILES", 2)
    fetch(CLIPS[:5], root, str(corpus / ".git"))
    check_holds(root, CLIPS[:5], corpus)


def test_tries_a_group_again(root, corpus, address, monkeypatch):
    run_git = download._git
    attempts = []

    def fail_once(arguments, seconds, problem, clone=None, **options):
        if arguments[0] == "read-tree":
            attempts.append(arguments)
            if len(attempts) == 1:
                (clone / ".git/index.lock").touch()  # as git leaves it when it is killed
                raise DownloadError("the line broke")
        return run_git(arguments, seconds, problem, clone, **options)

    monkeypatch.setattr(download, "_git", fail_once)
    fetch(CLIPS, root, address)
    check_holds(root, CLIPS, corpus)
    assert len(attempts) == 2


def test_works_when_called_from_a_git_hook(root, corpus, address, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere/index"))
    fetch(CLIPS[:2], root, address)
    check_holds(root, CLIPS[:2], corpus)
    assert not (tmp_path / "elsewhere").exists()


def start_fetch(root: Path, address: str, before: str = "") -> subprocess.Popen:
    """Fetch all clips in a process of its own, with groups of two files."""
    script = f"""
import os, time
from pathlib import Path
from types import SimpleNamespace
from common.corpus import download
download.GROUP_FILES = 2
{textwrap.dedent(before)}
clips = [SimpleNamespace(speaker=s, digit=d, repetition=r) for s in ("01", "02") for d in range(3) for r in range(4)]
download.fetch(clips, Path({str(root)!r}), {address!r})
"""
    environment = os.environ | {"PYTHONPATH": str(Path(download.__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=True)


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_goes_on_after_being_killed(root, corpus, address):
    slowly = """
        move_in = download._move_in
        def slow(*arguments):
            move_in(*arguments)
            time.sleep(0.3)
        download._move_in = slow
        """
    process = start_fetch(root, address, slowly)
    wait_for(lambda: len(list(root.glob("data/*/*.wav"))) >= 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = list(root.glob("data/*/*.wav"))
    assert 0 < len(kept) < len(CLIPS)
    for path in kept:
        assert path.read_bytes() == (corpus / path.relative_to(root)).read_bytes()
    assert temporary_clones(root)
    assert fetch(CLIPS, root, address) == len(CLIPS) - len(kept)
    check_holds(root, CLIPS, corpus)


def test_two_processes_fetch_at_once(root, corpus, address):
    processes = [start_fetch(root, address) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    check_holds(root, CLIPS, corpus)


@pytest.mark.parametrize("parent_is_writable", [True, False])
def test_works_beside_the_destination_or_else_in_it(root, corpus, address, monkeypatch, parent_is_writable):
    root.mkdir()
    places = []
    clone = download._clone
    monkeypatch.setattr(os, "access", lambda path, mode: parent_is_writable)
    monkeypatch.setattr(download.shutil, "which", lambda name: name)  # it asks `os.access` as well
    monkeypatch.setattr(download, "_clone", lambda *given: places.append(given[1].parent) or clone(*given))
    fetch(CLIPS[:2], root, address)
    assert places == [root.parent if parent_is_writable else root]
    check_holds(root, CLIPS[:2], corpus)


def test_leaves_nothing_when_the_first_clips_fail(root, address, monkeypatch):
    """A folder without clips would look like the user's own, and that is not downloaded into."""
    run_git = download._git

    def fail(arguments, *others, **options):
        if arguments[0] == "read-tree":
            raise DownloadError("the line broke")
        return run_git(arguments, *others, **options)

    monkeypatch.setattr(download, "_git", fail)
    assert "the line broke" in error_of(CLIPS[:2], root, address)
    assert not root.exists()
    assert temporary_clones(root) == []


def test_leaves_the_clone_of_a_running_process_alone(root, address):
    theirs = root.parent / f"{download.STAGING_PREFIX}{os.getppid()}.partial"
    ours = root.parent / f"{download.STAGING_PREFIX}{os.getpid()}.partial"
    elsewhere = root.parent / ".AudioMNIST.another-machine.999999.partial"
    for staging in (theirs, ours, elsewhere):
        staging.mkdir()
    fetch(CLIPS[:1], root, address)
    assert theirs.is_dir() and elsewhere.is_dir()
    assert not ours.exists()


def test_names_what_the_repository_lacks(root, address):
    message = error_of([*CLIPS[:3], Clip("01", 9, 0), Clip("60", 0, 0)], root, address)
    assert "lacks 2 of the 6 files" in message
    assert "data/01/9_01_0.wav" in message
    assert not root.exists()


@pytest.mark.parametrize("clip", [Clip("../../x", 0, 0), Clip("1", 0, 0), Clip("01", "*", 0), Clip("01", 0, "0\n")])
def test_refuses_a_name_that_is_no_clip(root, address, clip):
    assert "not named like" in error_of([clip], root, address)
    assert not root.exists()


def test_keeps_the_whole_clips_beside_a_damaged_one(root, corpus, tmp_path):
    broken = tmp_path / "corpus"
    write_corpus(broken)
    (broken / CLIPS[1].path).write_bytes(b"RIFF is all there is of it")
    soundfile.write(broken / CLIPS[2].path, np.zeros(0), 48000, subtype="PCM_16")
    (broken / CLIPS[3].path).write_bytes(b"")
    soundfile.write(broken / CLIPS[4].path, tone(300), 48000, format="FLAC")
    soundfile.write(broken / CLIPS[5].path, np.zeros(download.MAX_FILE_BYTES), 48000, subtype="PCM_16")
    message = error_of(CLIPS[:8], root, serve(broken, tmp_path / "broken.git"))
    assert CLIPS[1].path in message
    assert "5 such" in message
    check_holds(root, [CLIPS[0], *CLIPS[6:8]], broken)


def test_leaves_the_audio_as_it_was_stored(root, tmp_path):
    """Line ends and filters that the repository asks for, and that the user's settings know, change nothing."""
    altered = tmp_path / "corpus"
    write_corpus(altered)
    (altered / ".gitattributes").write_text("*.wav text eol=crlf filter=spy ident\n")
    address = serve(altered, tmp_path / "altered.git")
    with (tmp_path / "gitconfig").open("a") as settings:
        settings.write(f'[filter "spy"]\n\tsmudge = touch {tmp_path / "spied"} && cat\n')
    fetch(CLIPS[:2], root, address)
    stored = subprocess.run(["git", "show", f"HEAD:{CLIPS[0].path}"], cwd=altered, capture_output=True, check=True)
    assert (root / CLIPS[0].path).read_bytes() == stored.stdout
    assert not (tmp_path / "spied").exists()


def test_runs_no_hook_of_the_user(root, corpus, address, tmp_path):
    hooks = tmp_path / "template/hooks"
    hooks.mkdir(parents=True)
    for name in ("post-index-change", "reference-transaction", "post-checkout"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/hooked'\n")
        (hooks / name).chmod(0o755)
    with (tmp_path / "gitconfig").open("a") as settings:
        settings.write(f"[init]\n\ttemplateDir = {hooks.parent}\n[core]\n\thooksPath = {hooks}\n")
    git(tmp_path, "init", "--quiet", "control")
    git(tmp_path / "control", "commit", "--quiet", "--allow-empty", "--message=control")
    assert (tmp_path / "hooked").exists()  # or the rest would show nothing
    (tmp_path / "hooked").unlink()
    fetch(CLIPS[:2], root, address)
    check_holds(root, CLIPS[:2], corpus)
    assert not (tmp_path / "hooked").exists()


def test_refuses_a_link(root, tmp_path):
    outside = tmp_path / "outside.wav"
    soundfile.write(outside, tone(300), 48000)
    linked = tmp_path / "corpus"
    write_corpus(linked)
    (linked / CLIPS[1].path).unlink()
    (linked / CLIPS[1].path).symlink_to(outside)
    before = outside.read_bytes()
    message = error_of(CLIPS[:3], root, serve(linked, tmp_path / "linked.git"))
    assert CLIPS[1].path in message and "link" in message
    assert not root.exists()
    assert outside.read_bytes() == before


def test_refuses_a_linked_folder(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    linked = tmp_path / "corpus"
    write_corpus(linked)
    (linked / "data/01").rename(linked / "elsewhere")
    (linked / "data/01").symlink_to(outside)
    assert CLIPS[0].path in error_of(CLIPS[:3], root, serve(linked, tmp_path / "linked.git"))
    assert not root.exists()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("limit", ["MAX_ENTRIES", "MAX_LISTING_BYTES"])
def test_refuses_a_repository_of_too_many_files(root, address, monkeypatch, limit):
    monkeypatch.setattr(download, limit, 10)
    assert "lists more than" in error_of(CLIPS[:1], root, address)
    assert not root.exists()


def test_stops_reading_a_listing_without_end(root, corpus, tmp_path):
    """Thirty folders in one another, each naming the next one twice, list a billion files in a few kilobytes."""
    bomb = tmp_path / "bomb"
    bomb.mkdir()
    git(bomb, "init", "--quiet")

    def store(*arguments: str, given: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=bomb, input=given, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    tree = store("mktree", given=f"100644 blob {store('hash-object', '-w', '--stdin', given='boom')}\tfile\n")
    for _ in range(30):
        tree = store("mktree", given=f"040000 tree {tree}\ta\n040000 tree {tree}\tb\n")
    git(bomb, "update-ref", "HEAD", store_commit(bomb, tree))
    started = time.monotonic()
    assert "lists more than" in error_of(CLIPS[:1], root, bomb.as_uri())
    assert time.monotonic() - started < 20


def store_commit(folder: Path, tree: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, "commit-tree", tree, "-m", "bomb"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_says_that_git_is_absent(root, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    message = error_of(CLIPS[:1], root)
    assert "install git" in message and "--data-dir" in message


def test_gives_up_on_a_server_that_never_answers(root, monkeypatch):
    monkeypatch.setattr(download, "REACH_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        started = time.monotonic()
        message = error_of(CLIPS[:1], root, f"http://127.0.0.1:{port}/AudioMNIST")
        assert time.monotonic() - started < 60
        assert "no answer within 1 seconds" in message
        check_closed(server.accept()[0])
    assert not root.exists()


def test_an_interrupt_stops_git_as_well(root):
    # A shell that runs the tests in the background may have told its children to ignore interrupts.
    heed = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.stderr.close()"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        process = start_fetch(root, f"http://127.0.0.1:{server.getsockname()[1]}/AudioMNIST", heed)
        connection = server.accept()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0
        check_closed(connection)
    assert temporary_clones(root) == []


def test_names_a_refused_connection(root):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    message = error_of(CLIPS[:1], root, f"http://user:secret@127.0.0.1:{port}/AudioMNIST")
    assert "could not reach" in message and f"port {port}" in message
    assert "--data-dir" in message and "proxy" in message
    assert "secret" not in message


def test_names_an_unusable_proxy(root, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "127.0.0.1 port 9" in error_of(CLIPS[:1], root, "http://audiomnist.invalid/AudioMNIST")


@pytest.mark.parametrize("address", ["ext::touch ran", "--upload-pack=touch ran", "/nowhere/AudioMNIST"])
def test_refuses_an_address_that_is_none(root, monkeypatch, tmp_path, address):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "gitconfig").open("a") as settings:
        settings.write("[protocol]\n\tallow = always\n")
    assert "could not reach" in error_of(CLIPS[:1], root, address)
    assert not (tmp_path / "ran").exists()


def test_names_an_empty_repository(root, tmp_path):
    git(tmp_path, "init", "--quiet", "--bare", "empty.git")
    assert "no git repository with files" in error_of(CLIPS[:1], root, str(tmp_path / "empty.git"))


@pytest.fixture
def web_server():
    """A web server that answers every request with one status, and a page that is no repository."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(self.server.status)
            if self.server.status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="corpus"')
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Please accept our terms</html>")

        do_CONNECT = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_asks_for_no_password(root, web_server, monkeypatch, tmp_path):
    program = tmp_path / "ask"
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/asked'\necho answer\n")
    program.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(program))
    monkeypatch.setenv("SSH_ASKPASS", str(program))
    with (tmp_path / "gitconfig").open("a") as settings:
        settings.write(f'[credential "http://127.0.0.1:{web_server.server_port}"]\n\thelper = {program}\n')
    web_server.status = 401
    message = error_of(CLIPS[:1], root, f"http://127.0.0.1:{web_server.server_port}/AudioMNIST")
    assert "prompts disabled" in message
    assert not (tmp_path / "asked").exists()


def test_names_a_page_that_is_no_repository(root, web_server):
    web_server.status = 200
    message = error_of(CLIPS[:1], root, f"http://127.0.0.1:{web_server.server_port}/AudioMNIST")
    assert "no git repository" in message


def test_reports_a_full_disk(root, address, monkeypatch):
    replace = os.replace

    def full(source, target, **options):
        if str(target).endswith(".wav"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target, **options)

    monkeypatch.setattr(os, "replace", full)
    message = error_of(CLIPS[:2], root, address)
    assert "No space left on device" in message and str(root) in message
    assert temporary_clones(root) == []


def test_reports_a_place_that_cannot_be_written(address, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "could not fetch the clips into" in error_of(CLIPS[:1], tmp_path / "file", address)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_names_a_proxy_that_asks_for_credentials(root, web_server, monkeypatch, scheme):
    web_server.status = 407
    monkeypatch.setenv(f"{scheme}_proxy", f"http://user:secret@127.0.0.1:{web_server.server_port}")
    message = error_of(CLIPS[:1], root, f"{scheme}://audiomnist.invalid/AudioMNIST")
    assert "407" in message and "proxy" in message and "secret" not in message


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes the certificate")
def test_names_a_certificate_that_is_not_trusted(root, web_server, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=127.0.0.1"]
    command = ["openssl", "req", "-x509", *kind, "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    web_server.socket = context.wrap_socket(web_server.socket, server_side=True)
    web_server.status = 200
    web_server.handle_error = lambda *_: None
    message = error_of(CLIPS[:1], root, f"https://127.0.0.1:{web_server.server_port}/AudioMNIST")
    assert "certificate" in message


# --- lines and servers that fail on the way


def send(
    handler: http.server.BaseHTTPRequestHandler, content: bytes, length: int | None = None, **headers: str
) -> None:
    handler.send_response(200)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(content)


class GitOverHttp(http.server.BaseHTTPRequestHandler):
    """Answers as a git server does, but for the faults of its server: {number of the request or None: fault}."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = {
            "GIT_PROJECT_ROOT": self.server.folder,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        answer = subprocess.run(["git", "http-backend"], env=os.environ | request, input=body, capture_output=True)
        head, _, content = answer.stdout.partition(b"\r\n\r\n")
        kind = dict(line.split(": ") for line in head.decode().splitlines())["Content-Type"]
        faults, number = self.server.faults, self.server.requests
        self.server.requests += 1
        fault = faults.get(number) or faults.get(None)
        half = content[: len(content) // 2]
        if fault is None:
            send(self, content, len(content), Content_Type=kind)
        elif isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Location", self.path)
            self.send_header("WWW-Authenticate", 'Basic realm="corpus"')
            self.end_headers()
        elif fault == "garbage":
            send(self, os.urandom(len(content)), len(content), Content_Type=kind)
        elif fault == "endless":
            send(self, b"", Content_Type=kind)
            while not self.server.over.is_set():
                self.wfile.write(b"003f" + bytes(100_000))
        else:
            send(self, half, len(content), Content_Type=kind)
            if fault == "reset":
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            while fault in ("stalled", "trickle") and not self.server.over.wait(0.1):
                self.wfile.write(b"0" if fault == "trickle" else b"")

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def git_server(corpus, address):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), GitOverHttp)
    repository = Path(address.removeprefix("file://"))
    server.folder, server.faults, server.requests, server.over = str(repository.parent), {}, 0, threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}/{repository.name}"
    server.handle_error = lambda *_: None  # it is told here whenever git has gone
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def test_a_fault_in_any_one_request_is_made_up_for(git_server, corpus, tmp_path, capsys):
    for number in itertools.count():
        git_server.faults, git_server.requests = {number: ("reset", "cut", 503)[number % 3]}, 0
        root = tmp_path / str(number) / "AudioMNIST"
        fetch(CLIPS[:3], root, git_server.address)
        check_holds(root, CLIPS[:3], corpus)
        told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Downloading")]
        if git_server.requests <= number:
            assert not told and number >= 5
            return
        assert len(told) == 1 and told[0].endswith("(trying again)")


FAULTS = {
    "reset": "reset",
    "cut": "closed",
    "stalled": "too slow",
    "trickle": "too slow",
    "garbage": "",
    302: "",
    401: "prompts disabled",
    403: "403",
    503: "503",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_came_before_a_lasting_fault_stays_and_the_next_fetch_goes_on(
    root, git_server, corpus, monkeypatch, fault, capfd
):
    move_in = download._move_in

    def then_fail(*arguments):
        move_in(*arguments)
        git_server.faults = {None: fault}
        # Not before: a busy machine may need seconds for what is no fault.
        patch.setitem(download.GIT_SETTINGS, "http.lowSpeedTime", "1")

    with monkeypatch.context() as patch:
        patch.setattr(download, "_move_in", then_fail)
        patch.setattr(download, "GROUP_FILES", 5)  # the metadata and four clips
        message = error_of(CLIPS, root, git_server.address)
    assert "could not fetch 5 files" in message and FAULTS[fault].lower() in message.lower(), message
    assert capfd.readouterr().err.count("(trying again)") == download.ATTEMPTS - 1
    check_holds(root, CLIPS[:4], corpus)
    git_server.faults = {}
    assert fetch(CLIPS, root, git_server.address) == len(CLIPS) - 4
    check_holds(root, CLIPS, corpus)


def test_names_a_redirection_in_a_circle(root, git_server):
    git_server.faults = {None: 302}
    assert "redirects" in error_of(CLIPS[:1], root, git_server.address)
    assert git_server.requests < 100


def test_an_endless_answer_does_not_fill_the_memory(root, git_server, monkeypatch):
    git_server.faults = {None: "endless"}
    monkeypatch.setattr(download, "MAX_MEMORY_BYTES", 300_000_000)
    monkeypatch.setattr(download, "REACH_SECONDS", 120)  # a busy machine takes its time to fill even that
    assert "memory" in error_of(CLIPS[:1], root, git_server.address)
    assert not root.exists()


# --- repositories that are after something


def test_a_small_request_does_not_fill_the_disk(root, tmp_path, monkeypatch):
    """A hundred megabytes of one letter are a hundred kilobytes on the line."""
    bomb = tmp_path / "corpus"
    write_corpus(bomb)
    (bomb / CLIPS[0].path).write_bytes(b"a" * 100_000_000)
    address = serve(bomb, tmp_path / "bomb.git")
    monkeypatch.setattr(download, "MAX_STAGED_BYTES", 30_000_000)
    monkeypatch.setattr(download, "POLL_SECONDS", 0.001)
    assert "0.03 GB came, so it is not AudioMNIST" in error_of(CLIPS[:3], root, address)
    assert not root.exists() and temporary_clones(root) == []


def test_an_endless_list_of_files_does_not_fill_the_disk(root, address, monkeypatch):
    monkeypatch.setattr(download, "MAX_STAGED_BYTES", 100)
    monkeypatch.setattr(download, "POLL_SECONDS", 0.001)
    message = error_of(CLIPS[:3], root, address)
    assert "could not clone" in message and "so it is not AudioMNIST" in message
    assert temporary_clones(root) == []


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", "data"])
def test_names_that_lead_elsewhere_write_nothing_there(root, corpus, address, tmp_path, name):
    """Beside the corpus, a folder that is called like the one above or like git's own; or a second one of its name."""
    hostile = tmp_path / "hostile"
    git(tmp_path, "clone", "--quiet", address, str(hostile))

    def store(*arguments: str, given: str = "") -> str:
        done = subprocess.run(["git", *arguments], cwd=hostile, input=given, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    blob = store("hash-object", "-w", "--stdin", given="#!/bin/sh\n")
    folder = store("mktree", given=f"100755 blob {blob}\tescaped.wav\n")
    entries = store("ls-tree", "HEAD")
    tree = store("mktree", given=f"{entries}\n040000 tree {folder}\t{name}\n")
    git(hostile, "update-ref", "HEAD", store_commit(hostile, tree))
    try:
        fetch(CLIPS[:2], root, hostile.as_uri())
    except DownloadError as error:
        assert "\n" not in str(error) and not root.exists()
    else:
        check_holds(root, CLIPS[:2], corpus)
    assert not list(tmp_path.rglob("escaped.wav")) and temporary_clones(root) == []

"""The download is tested with small git repositories made here: nothing leaves the machine."""

import http.server
import itertools
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from common.corpus import Clip, source
from common.corpus.source import DownloadError, downloaded_commit
from common.run import UserError

NUMBERS = itertools.product(("01", "02"), range(3), range(4))
CLIPS = [Clip(speaker, digit, i, f"{speaker}/{digit}_{speaker}_{i}.wav") for speaker, digit, i in NUMBERS]
WRITER = {f"GIT_{role}_{item}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for item in ("NAME", "EMAIL")}
PLAIN_GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]} | WRITER


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, env=PLAIN_GIT, capture_output=True, text=True, check=True).stdout.strip()


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
    monkeypatch.setattr(source, "GROUP", 5)
    return tmp_path / "gitconfig"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, write_tones) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_tones(folder / "data", ("01", "02"), range(3), 4)
    (folder / "README.md").write_text("A file that nobody asked for.\n")
    publish(folder)
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "AudioMNIST"


def fetch(clips: list[Clip], root: Path, address: str) -> int:
    os.environ["AUDIOMNIST_URL"] = address
    return source.fetch(clips, root)


def check_holds(root: Path, clips: list[Clip], corpus: Path) -> None:
    """Check that these clips are there byte for byte, and no other file."""
    files = {path.relative_to(root).as_posix() for path in root.glob("[!.]*/**/*") if path.is_file()}
    assert files == {f"data/{clip.path}" for clip in clips}
    assert all((root / path).read_bytes() == (corpus / path).read_bytes() for path in files)


def check_fails(clips: list[Clip], root: Path, address: str, *parts: str) -> None:
    """Check that a fetch fails with these parts in a message of one line."""
    with pytest.raises(DownloadError) as caught:
        fetch(clips, root, address)
    message = str(caught.value)
    assert "\n" not in message and "secret" not in message
    assert [part for part in parts if part not in message] == []


def test_fetches_only_the_missing_clips_in_groups_of_one_request(root, corpus, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))  # requests for files are those of ``git fetch``
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "of another repository"))
    git(tmp_path, "init", "--quiet")  # the corpus lies in a repository with a remote of its own
    git(tmp_path, "remote", "add", "origin", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert downloaded_commit(root) is None and downloaded_commit(corpus) is None
    assert fetch(CLIPS[3:10], root, corpus.as_uri()) == 7
    check_holds(root, CLIPS[3:10], corpus)
    assert (tmp_path / "trace").read_text().count("built-in: git fetch") == 3, "names, 5 files, and 2"
    before = (root / "data" / CLIPS[3].path).stat().st_mtime_ns
    monkeypatch.setattr(source, "GROUP", 100)
    assert fetch(CLIPS, root, corpus.as_uri()) == len(CLIPS) - 7
    check_holds(root, CLIPS, corpus)
    assert (root / "data" / CLIPS[3].path).stat().st_mtime_ns == before
    assert (tmp_path / "trace").read_text().count("built-in: git fetch") == 4
    assert fetch(CLIPS[:9], root, "/nowhere") == 0, "no address is asked"
    assert downloaded_commit(root) == git(corpus, "rev-parse", "HEAD")
    assert not (tmp_path / ".git/index").exists(), "the other repository is left alone"
    (root / ".git/HEAD").unlink()
    with pytest.raises(DownloadError, match="not a git repository"):
        downloaded_commit(root)


def test_all_clips_stay_of_one_commit_and_a_removed_one_comes_back(root, corpus, tmp_path):
    changed = shutil.copytree(corpus, tmp_path / "changed")
    address, before = changed.as_uri(), git(changed, "rev-parse", "HEAD")
    fetch(CLIPS[:2], root, os.path.relpath(changed))
    (changed / "data" / CLIPS[4].path).write_bytes(b"another sound")
    publish(changed)
    (root / "data" / CLIPS[0].path).unlink()
    assert fetch(CLIPS[:6], root, address) == 5
    check_holds(root, CLIPS[:6], corpus)
    assert downloaded_commit(root) == before


def test_one_pattern_stands_for_all_clips_of_a_speaker():
    """Git compares each file with each pattern."""
    names = [f"data/{clip.path}" for clip in source.audiomnist_names()]
    assert source._patterns(set(names[:1001])) == ["data/01/", "data/02/", names[1000]]


@pytest.mark.parametrize("moment", ["init", "fetch", "read-tree"])
def test_goes_on_where_git_was_killed(root, corpus, tmp_path, monkeypatch, moment):
    """It leaves locks, and a file that it had begun to write."""
    program, begun = tmp_path / "faulty/git", root / "data" / CLIPS[6].path
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
if [ -e {root}/data ] || [ {moment} != read-tree ]; then case " $* " in *" {moment} "*)
    [ {moment} = init ] || touch "{root}/.git/index.lock" "{root}/.git/shallow.lock"
    [ {moment} = read-tree ] && echo begun > "{begun}"
    kill -9 $$
esac; fi
exec {shutil.which("git")} "$@"
"""
    )
    program.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        check_fails(CLIPS, root, corpus.as_uri(), "git ended with -9", "run again to continue")
    there = 5 if moment == "read-tree" else 0  # the first group of five had arrived
    assert fetch(CLIPS[:7], root, corpus.as_uri()) == 7 - there
    check_holds(root, CLIPS[:7], corpus)


@pytest.mark.parametrize("name", ["SYNTHETIC.txt", "data/01/mine.wav"])
def test_a_folder_with_other_files_is_refused(root, corpus, name):
    (root / name).parent.mkdir(parents=True)
    (root / name).touch()
    with pytest.raises(UserError, match=f"^{root} holds other files, which a download must not mix with"):
        fetch(CLIPS, root, str(corpus))
    assert [path for path in root.rglob("*") if path.is_file()] == [root / name]


@pytest.mark.parametrize(
    "address",
    ["http://user:secret@127.0.0.1:1", "ext::touch ran", "--upload-pack=touch ran", "/nowhere/AudioMNIST", "empty"],
)
def test_an_address_without_a_repository_is_one_line_and_leaves_nothing(root, monkeypatch, tmp_path, address):
    git(tmp_path, "init", "--quiet", "empty")
    monkeypatch.chdir(tmp_path)
    check_fails(CLIPS, root, address, "download of AudioMNIST: ", "AUDIOMNIST_URL", "--data-dir")
    assert not (tmp_path / "ran").exists() and not root.exists()
    assert "secret" not in str(DownloadError(f"fatal: cannot read '{address}'")), "not all programs leave it out"


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


@pytest.mark.parametrize("linked", [CLIPS[1].path, "01"])
def test_links_are_refused_and_clips_that_the_repository_lacks_are_named(root, corpus, tmp_path, linked):
    altered = shutil.copytree(corpus, tmp_path / "altered")
    (altered / "data" / linked).rename(tmp_path / "outside")
    (altered / "data" / linked).symlink_to(tmp_path / "outside")
    check_fails(CLIPS[:3], root, publish(altered), f"clips are not there, or are links, the first data/{linked}")
    assert not any(path.is_symlink() for path in root.rglob("*"))


def test_says_that_git_is_absent(root, monkeypatch):
    monkeypatch.setenv("PATH", "")
    check_fails(CLIPS, root, "", "git was not found", "--data-dir")

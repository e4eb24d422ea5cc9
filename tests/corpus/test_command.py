"""The command line of ``python -m common.data``: show, fetch and synthesize."""

from pathlib import Path

import pytest

from common.corpus import SYNTHETIC_NAME, open_folder, source


@pytest.fixture
def command(run_here, tmp_path, monkeypatch, capsys):
    """A function that runs ``python -m common.data`` in an empty folder and returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: str) -> str:
        run_here("common/data.py", *flags)
        return capsys.readouterr().out

    return run


def test_show_describes_the_clips_and_the_split(command, write_tones):
    write_tones(Path("tones"), ["2", "10", "1", "9", "b"], digits=[0, 4, 9], repetitions=5)
    assert command("show", "--data-dir", "tones").splitlines() == [
        "tones: 75 clips",
        "train: 48 clips, 4 speakers from 1 to b",
        "val: 12 clips, 4 speakers from 1 to b",
        "test: 15 clips, 1 speakers from 9 to 9",
    ]
    assert [path.name for path in Path().iterdir()] == ["tones"], "nothing is cached"


def test_show_describes_synthetic_speech_and_a_published_fold(command):
    shown = command("--dataset", "synthetic", "--ratio", "0.01", "--fold", "1")
    assert SYNTHETIC_NAME in shown and "test: 60 clips, 12 speakers from 05 to 60" in shown


def test_show_downloads_nothing(command):
    assert "python -m common.data fetch" in command()
    assert list(Path().iterdir()) == []


def test_fetch_downloads_the_clips_of_the_ratio_into_the_folder(command, monkeypatch):
    monkeypatch.setattr(source, "fetch", lambda clips, root: len(clips))
    assert command("fetch", "here", "--ratio", "0.01").startswith("300 clips fetched; here holds the 300")
    assert "data/AudioMNIST holds the 300" in command("fetch", "--ratio", "0.01")


def test_synthesize_writes_a_corpus_that_names_itself_synthetic(command):
    pytest.importorskip("espeakng_loader")
    assert "AudioMNIST holds 60 clips" in command("synthesize", "AudioMNIST", "--ratio", "0.002")
    corpus = open_folder(Path("AudioMNIST"))
    assert corpus.name == open_folder(Path("AudioMNIST/data")).name == SYNTHETIC_NAME and len(corpus.clips) == 60


def test_synthetic_speech_is_not_mixed_with_other_files(command, write_tones):
    pytest.importorskip("espeakng_loader")
    write_tones(Path("corpus/data"), ["01"])
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit, match="corpus holds other files, which synthetic speech must not mix with; name"):
        command("synthesize", "corpus", "--ratio", "0.002")
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    "flags, message",
    [
        (["synthesize"], "synthesize: name the folder"),
        (["--dataset", "synthetic", "--ratio", "0.0001"], "raise --ratio"),
        (["fetch", "--ratio", "0.001"], "/nonexistent/AudioMNIST"),
    ],
)
def test_what_cannot_be_done_is_one_line(command, flags, message):
    with pytest.raises(SystemExit) as caught:
        command(*flags)
    line = str(caught.value)
    assert line.startswith("data.py: error: ") and message in line and "\n" not in line

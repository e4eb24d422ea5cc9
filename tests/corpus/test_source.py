"""Which corpus a run uses, and the command line of ``python -m common.data``. Nothing is downloaded."""

from pathlib import Path

import pytest

from common.corpus import SYNTHETIC_NAME, audiomnist_names, source
from common.corpus.source import AUDIOMNIST_DIR, find_corpus
from common.run import UserError

SPEAKERS = ["01", "02", "03"]


@pytest.fixture(autouse=True)
def empty_folder_without_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOMNIST_URL", str(tmp_path / "no repository"))


@pytest.fixture
def downloads(monkeypatch) -> list[list]:
    """Downloads succeed; the list holds the clips that each of them was asked for."""
    calls = []
    monkeypatch.setattr(source, "fetch", lambda clips, root: calls.append(list(clips)) or len(clips))
    return calls


@pytest.fixture
def command(run_here, downloads, capsys):
    """A function that runs ``python -m common.data`` in an empty folder and returns what it prints."""

    def run(*flags: str) -> str:
        run_here("common/data.py", *flags)
        return capsys.readouterr().out

    return run


def find(data_dir=None, dataset="auto", ratio=1.0, seed=42):
    return find_corpus(data_dir, dataset, ratio, seed)


def test_data_dir_comes_first(write_tones, downloads):
    write_tones(AUDIOMNIST_DIR / "data", SPEAKERS, digits=[1])
    write_tones(Path("mine"), ["07", "08", "09"], digits=[1])
    corpus = find(Path("mine"))
    assert corpus.name == "mine" and {clip.speaker for clip in corpus.clips} == {"07", "08", "09"}
    assert downloads == []


@pytest.mark.parametrize("dataset", ["auto", "audiomnist"])
@pytest.mark.parametrize("below", ["", "data"])
def test_the_users_own_copy_of_audiomnist_comes_before_a_download(write_tones, downloads, dataset, below):
    write_tones(AUDIOMNIST_DIR / below, SPEAKERS, digits=[1, 2])
    (AUDIOMNIST_DIR / ".git/info").mkdir(parents=True)  # also if it is a clone
    (AUDIOMNIST_DIR / ".git/info/sparse-checkout").write_text("/data/\n")
    corpus = find(dataset=dataset)
    assert corpus.name == "AudioMNIST" and len(corpus.clips) == 12
    assert len(find(dataset=dataset, ratio=0.5).clips) == 6
    assert downloads == []


def test_hidden_files_are_no_copy_of_audiomnist_and_others_are_named(downloads):
    AUDIOMNIST_DIR.mkdir(parents=True)
    (AUDIOMNIST_DIR / ".DS_Store").touch()
    (AUDIOMNIST_DIR / "notes.txt").touch()
    with pytest.raises(UserError, match=r"^data/AudioMNIST: no clips in it; expected files like"):
        find(ratio=0.01)
    (AUDIOMNIST_DIR / "notes.txt").unlink()
    assert find(ratio=0.01).name == "AudioMNIST" and len(downloads) == 1


@pytest.mark.parametrize("dataset", ["auto", "audiomnist"])
def test_only_the_clips_of_the_ratio_are_downloaded(downloads, dataset):
    corpus = find(dataset=dataset, ratio=0.01, seed=3)
    assert corpus.name == "AudioMNIST" and list(corpus.clips) == downloads[0] and corpus.root == AUDIOMNIST_DIR / "data"
    assert corpus.clips == find(dataset="synthetic", ratio=0.01, seed=3).clips
    find(dataset=dataset, ratio=0.05, seed=3)
    assert [len(clips) for clips in downloads] == [300, 1500] and set(downloads[0]) < set(downloads[1])
    assert set(downloads[1]) < set(audiomnist_names())


def test_without_a_network_synthetic_speech_is_used_and_announced(capsys):
    corpus = find(ratio=0.01)
    assert corpus.name == SYNTHETIC_NAME and corpus.root is None and len(corpus.clips) == 300
    message = capsys.readouterr().err
    assert "no repository" in message and "SYNTHETIC SPEECH" in message and "not AudioMNIST numbers" in message
    assert "!" * 80 in message and list(Path().iterdir()) == []


def test_audiomnist_asked_for_by_name_is_not_replaced_by_synthetic_speech(capsys):
    with pytest.raises(UserError, match="no repository") as caught:
        find(dataset="audiomnist", ratio=0.01)
    assert "\n" not in str(caught.value) and capsys.readouterr().err == ""


def test_show_describes_the_clips_and_the_split(command, write_tones):
    write_tones(Path("tones"), ["2", "10", "1", "9", "b"], digits=[0, 4, 9], repetitions=5)
    assert command("--data-dir", "tones").splitlines() == [
        "tones: 75 clips",
        "train: 48 clips, 4 speakers from 1 to b",
        "val: 12 clips, 4 speakers from 1 to b",
        "test: 15 clips, 1 speakers from 9 to 9",
    ]
    shown = command("--dataset", "synthetic", "--ratio", "0.01", "--fold", "1")
    assert SYNTHETIC_NAME in shown and "test: 60 clips, 12 speakers from 05 to 60" in shown
    assert [path.name for path in Path().iterdir()] == ["tones"], "nothing is downloaded or cached"

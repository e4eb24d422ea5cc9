"""Which corpus a run uses: the user's own folder, AudioMNIST, or synthetic speech that is announced as such."""

from pathlib import Path

import pytest

from common.corpus import SYNTHETIC_MARKER, SYNTHETIC_NAME, audiomnist_names, source
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

    def fetch(clips, root):
        assert root == AUDIOMNIST_DIR
        calls.append(list(clips))
        (root / "data").mkdir(parents=True, exist_ok=True)
        (root / source.MARKER).touch()

    monkeypatch.setattr(source, "fetch", fetch)
    return calls


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
    corpus = find(dataset=dataset)
    assert corpus.name == "AudioMNIST" and len(corpus.clips) == 12
    assert len(find(dataset=dataset, ratio=0.5).clips) == 6
    assert downloads == []


def test_hidden_files_are_no_copy_of_audiomnist_and_others_are_named_without_a_flag(downloads):
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
    (clips,) = downloads
    assert len(clips) == 300 and set(clips) <= set(audiomnist_names())
    assert corpus.clips == find(dataset="synthetic", ratio=0.01, seed=3).clips
    assert corpus.name == "AudioMNIST" and list(corpus.clips) == clips and corpus.root == AUDIOMNIST_DIR / "data"


def test_an_earlier_download_is_extended_and_not_taken_for_the_whole_corpus(downloads, write_tones):
    find(ratio=0.01)
    write_tones(AUDIOMNIST_DIR / "data", SPEAKERS, digits=[1])
    corpus = find(ratio=0.05)
    assert [len(clips) for clips in downloads] == [300, 1500] and len(corpus.clips) == 1500
    assert set(downloads[0]) <= set(downloads[1])


def test_without_a_network_synthetic_speech_is_used_and_announced(capsys):
    corpus = find(ratio=0.01)
    assert corpus.name == SYNTHETIC_NAME and corpus.root is None and len(corpus.clips) == 300
    message = capsys.readouterr().err
    assert "no repository" in message and "SYNTHETIC SPEECH" in message and "not AudioMNIST numbers" in message
    assert "!" * 80 in message


def test_audiomnist_asked_for_by_name_is_not_replaced_by_synthetic_speech(capsys):
    with pytest.raises(UserError, match="no repository"):
        find(dataset="audiomnist", ratio=0.01)
    assert capsys.readouterr().err == ""


def test_synthetic_speech_asked_for_by_name_is_used_beside_a_copy_of_audiomnist(write_tones, downloads, capsys):
    write_tones(AUDIOMNIST_DIR / "data", SPEAKERS, digits=[1])
    corpus = find(dataset="synthetic", ratio=0.01)
    assert corpus.name == SYNTHETIC_NAME and len(corpus.clips) == 300
    assert downloads == [] and capsys.readouterr().err == ""


def test_synthetic_speech_in_the_folder_of_audiomnist_keeps_its_name(write_tones):
    write_tones(AUDIOMNIST_DIR / "data", SPEAKERS, digits=[1])
    (AUDIOMNIST_DIR / SYNTHETIC_MARKER).touch()
    assert find().name == SYNTHETIC_NAME
    with pytest.raises(UserError, match="--dataset audiomnist: data/AudioMNIST holds synthetic speech"):
        find(dataset="audiomnist")

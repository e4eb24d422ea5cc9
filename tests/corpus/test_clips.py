"""Which clips a folder holds, and that a smaller ratio takes a balanced subset of them."""

import random
from collections import Counter
from pathlib import Path

import pytest

from common.corpus import SYNTHETIC_NAME, Clip, Corpus, audiomnist_names, open_folder, speaker_names
from common.run import UserError

AUDIOMNIST = Corpus("AudioMNIST", audiomnist_names(), None)


def touch(folder: Path, *names: str) -> Path:
    """Make empty files, which are enough because listing a corpus reads no audio."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def paths(corpus: Corpus) -> list[str]:
    return [clip.path for clip in corpus.clips]


def test_speakers_are_in_natural_order_and_equal_numbers_have_a_fixed_one():
    names = ["001", "01", "1", "002", "02", "2", "02b", "10", "b", "s9", "s10"]
    shuffled = random.Random(0).sample(names, len(names))
    assert speaker_names([Clip(name, 0, 0, "") for name in shuffled]) == names


@pytest.mark.parametrize("seed", [0, 42])
def test_a_smaller_ratio_takes_a_subset_of_exactly_its_size(seed):
    smaller: set[Clip] = set()
    for ratio in (0.003, 0.01, 0.05, 0.25, 0.5, 1.0):
        clips = AUDIOMNIST.take(ratio, seed).clips
        assert len(clips) == round(ratio * 30_000) and clips == AUDIOMNIST.take(ratio, seed).clips
        assert list(clips) == sorted(clips), "the order of the corpus is kept"
        assert smaller <= set(clips)
        smaller = set(clips)


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_small_ratios_take_every_speaker_and_digit_equally(seed):
    one_percent, ten_percent = (AUDIOMNIST.take(ratio, seed).clips for ratio in (0.01, 0.1))
    assert Counter(Counter(clip.speaker for clip in one_percent).values()) == {5: 60}
    assert Counter(Counter(clip.digit for clip in one_percent).values()) == {30: 10}
    assert Counter(Counter((clip.speaker, clip.digit) for clip in ten_percent).values()) == {5: 600}


def test_a_ratio_that_leaves_no_clips_is_refused():
    with pytest.raises(UserError, match="--ratio 1e-09 leaves none of the 30000 clips"):
        AUDIOMNIST.take(1e-9, 42)


@pytest.mark.parametrize("below", ["", "data", "recordings"])
@pytest.mark.parametrize("folders", [("2/", "10/", "jean-luc/"), ("", "", "")])
def test_clips_lie_in_a_folder_per_speaker_or_in_one_for_all(tmp_path, below, folders):
    two, ten, jean_luc = folders
    listed = [f"{two}7_2_0.WAV", f"{two}7_2_49.wav", f"{ten}0_10_3.wav", f"{jean_luc}9_jean-luc_10.wav"]
    touch(tmp_path / below, *listed)
    corpus = open_folder(tmp_path)
    assert paths(corpus) == listed and corpus.clips[2] == Clip("10", 0, 3, listed[2])
    assert corpus.root == tmp_path / below and corpus.ignored == 0


@pytest.mark.parametrize("speakers", [["anna_b", "ben"], ["speaker_1", "speaker_2", "speaker_10"], ["_", "__a"]])
def test_names_may_contain_underscores(tmp_path, speakers):
    touch(tmp_path, *(f"{digit}_{speaker}_1.wav" for speaker in speakers for digit in (0, 7)))
    corpus = open_folder(tmp_path)
    assert speaker_names(corpus.clips) == speakers and corpus.ignored == 0


def test_of_two_files_for_one_clip_the_one_in_the_speakers_folder_counts(tmp_path):
    touch(tmp_path, "01/7_01_3.wav", "7_01_3.wav", "7_01_4.wav", "7_theo_03.wav", "7_theo_3.wav", "02/7_02_0.wav")
    corpus = open_folder(tmp_path)
    assert paths(corpus) == ["01/7_01_3.wav", "7_01_4.wav", "02/7_02_0.wav", "7_theo_03.wav"] and corpus.ignored == 2


@pytest.mark.parametrize("layout", ["01/", ""])
def test_other_wav_files_are_counted_and_ignored(tmp_path, capsys, layout):
    (tmp_path / layout / "folder").mkdir(parents=True)
    touch(tmp_path / layout, "0_01_0.wav", "0_01_1.wav")
    touch(tmp_path / layout, "._0_01_0.wav", "notes.txt", "10_01_0.wav", "0_01.wav", "0__1.wav", "0_01_01.wav")
    touch(tmp_path, "01/0_02_7.wav")
    corpus = open_folder(tmp_path)
    assert [clip[:3] for clip in corpus.clips] == [("01", 0, 0), ("01", 0, 1)] and corpus.ignored == 5
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "Ignored 5 .wav files" in told and str(tmp_path) in told


def test_a_folder_without_clips_or_of_another_kind_is_named_in_one_line(tmp_path):
    touch(tmp_path, "file", "empty/notes.txt")
    problems = {"nowhere": "no such folder", "file": "no such folder", "empty": "no clips"}
    for name, problem in problems.items():
        with pytest.raises(UserError, match=f"^{tmp_path / name}: {problem}") as caught:
            open_folder(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_the_folder_of_a_repository_that_holds_most_is_taken_and_links_are_followed(tmp_path, capsys):
    touch(tmp_path / "elsewhere", "7_a_0.wav", "7_b_20261101.wav")
    touch(tmp_path / "mine", "7_stray_1.wav")
    (tmp_path / "mine/data").symlink_to(tmp_path / "elsewhere")
    corpus = open_folder(tmp_path / "mine")
    assert [clip[:3] for clip in corpus.clips] == [("a", 7, 0), ("b", 7, 20261101)]
    assert f"Using the 2 clips in {corpus.root}, not the 1 in {tmp_path / 'mine'}\n" in capsys.readouterr().err


def test_one_name_written_in_two_ways_is_one_speaker(tmp_path):
    composed, combining = "\u00e9", "e\u0301"
    touch(tmp_path, f"0_{composed}_0.wav", f"0_{combining}_2.wav", f"{combining}/0_{composed}_3.wav")
    touch(tmp_path, "1/0_01_0.wav", "0_01_1.wav")  # a speaker is named by the file
    assert speaker_names(open_folder(tmp_path).clips) == ["01", composed]


@pytest.mark.parametrize("names", [("0_B_0.wav", "0_b_1.wav"), ("Anna/0_Anna_0.wav", "ANNA/0_ANNA_0.wav")])
def test_names_that_differ_only_in_letter_case_are_refused(tmp_path, names):
    with pytest.raises(UserError, match=r"the speakers (B and b|ANNA and Anna) differ only in letter case"):
        open_folder(touch(tmp_path, "0_a_0.wav", *names))


def test_a_file_that_may_be_a_copy_is_no_new_speaker(tmp_path):
    names = ("7_anna_3", "7_anna_3_2", "7_anna_3_2_1", "7_ben_1_0", "7_eve_1", "eve/7_eve_2")
    touch(tmp_path, *(f"{name}.wav" for name in names))
    corpus = open_folder(tmp_path)
    assert speaker_names(corpus.clips) == ["anna", "ben_1", "eve"] and corpus.ignored == 2


@pytest.mark.parametrize("given", ["AudioMNIST", "AudioMNIST/data", "link", "."])
def test_synthetic_speech_is_never_called_audiomnist(tmp_path, given, monkeypatch):
    touch(tmp_path / "AudioMNIST", "SYNTHETIC.txt", "data/01/7_01_3.wav")
    (tmp_path / "link").symlink_to(tmp_path / "AudioMNIST/data")
    monkeypatch.chdir(tmp_path / "AudioMNIST/data" if given == "." else tmp_path)
    assert open_folder(Path(given)).name == SYNTHETIC_NAME


def test_the_order_of_the_directory_listing_does_not_matter(tmp_path, monkeypatch):
    """Neither for the clips, nor for which of two files for one clip counts."""
    touch(tmp_path, "1/0_1_0.wav", "1/0_1_00.wav", "02/3_02_3.wav", "02/3_02_03.wav", "7_1_1.wav", "7_1_01.wav")
    iterdir, expected = Path.iterdir, open_folder(tmp_path)
    for order in (sorted, lambda entries: sorted(entries, reverse=True)):
        monkeypatch.setattr(Path, "iterdir", lambda path, order=order: iter(order(iterdir(path))))
        assert open_folder(tmp_path) == expected

"""Which clips there are, and that the three sets never share what they must not share."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common.corpus import synthetic
from common.corpus.clips import (
    SYNTHETIC_NAME,
    Clip,
    Corpus,
    audiomnist_names,
    open_folder,
    speaker_names,
    split_clips,
    systematic_sample,
)
from common.run.console import UserError

AUDIOMNIST = Corpus("AudioMNIST", audiomnist_names(), None)
RATIOS = (0.003, 0.01, 0.05, 0.25, 0.5, 1.0)

# From the paper (arXiv:1807.03418), written down a second time.
GROUPS = {
    1: {4, 11, 12, 15, 21, 27, 31, 41, 44, 47, 50, 59},
    2: {5, 13, 18, 22, 26, 32, 33, 42, 45, 51, 52, 60},
    3: {1, 6, 7, 16, 19, 23, 28, 34, 35, 46, 53, 56},
    4: {2, 8, 9, 17, 24, 29, 36, 37, 39, 48, 54, 57},
    5: {3, 10, 14, 20, 25, 30, 38, 40, 43, 49, 55, 58},
}


def named_clips(speakers, digits=range(10), repetitions=10) -> tuple[Clip, ...]:
    return tuple(
        Clip(str(speaker), digit, repetition, f"{speaker}/{digit}_{speaker}_{repetition}.wav")
        for speaker in speakers
        for digit in digits
        for repetition in range(repetitions)
    )


def heard(clips, rows) -> set[str]:
    return {clips[i].speaker for i in rows}


def numbers(speakers) -> set[int]:
    return {int(speaker) for speaker in speakers}


def touch(folder: Path, *names: str) -> Path:
    """Empty files: listing a corpus reads no audio."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


# --- the split


@pytest.mark.parametrize("ratio", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("fold", [None, 3])
def test_every_clip_is_in_exactly_one_set_and_no_test_speaker_in_another(ratio, fold):
    clips = AUDIOMNIST.take(ratio, 42).clips
    split = split_clips(clips, 42, fold)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(len(clips)))
    assert not heard(clips, split.test) & (heard(clips, split.train) | heard(clips, split.val))
    assert all(np.array_equal(rows, np.sort(rows)) for rows in split)


@pytest.mark.parametrize(
    "names, expected",
    [
        ([f"{i:02d}" for i in range(1, 61)], [f"{i:02d}" for i in range(41, 61)]),
        ([f"{i:02d}" for i in range(1, 41)], [f"{i:02d}" for i in range(28, 41)]),
        (["a", "b", "c"], ["c"]),
        (["a", "b", "c", "d", "e"], ["e"]),
        ([str(i) for i in range(1, 13)], ["9", "10", "11", "12"]),
        (["s10", "s9", "s2"], ["s10"]),
        (["10", "2", "1", "3"], ["10"]),
    ],
)
def test_the_last_third_of_the_speakers_in_natural_order_is_the_test(names, expected):
    clips = named_clips(names, repetitions=5)
    split = split_clips(clips, 0)
    assert heard(clips, split.test) == set(expected)
    assert heard(clips, split.train) == set(names) - set(expected)


def test_speaker_2_comes_before_speaker_10():
    assert speaker_names(named_clips(["10", "2", "1", "02b"])) == ["1", "2", "02b", "10"]


def test_names_that_are_equal_as_numbers_have_one_order_in_every_process(repository):
    """The order of a set of strings changes with each start of Python unless the hash seed is fixed."""
    script = (
        "from common.corpus.clips import Clip, speaker_names\n"
        "print(speaker_names([Clip(n, 0, 0, '') for n in ('1', '01', '001', '0001', '2', '02', '002', '0002')]))"
    )
    orders = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=repository,
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(orders) == 1


def test_train_and_validation_are_80_to_20_for_each_speaker_and_digit():
    clips = AUDIOMNIST.clips
    split = split_clips(clips, 42)
    for rows, share in ((split.train, 40), (split.val, 10)):
        counts = Counter((clips[i].speaker, clips[i].digit) for i in rows)
        assert len(counts) == 400 and set(counts.values()) == {share}


@pytest.mark.parametrize("repetitions", [1, 2, 3, 7])
def test_with_few_repetitions_each_speaker_still_gives_a_fifth_to_validation(repetitions):
    clips = named_clips(range(1, 10), repetitions=repetitions)
    split = split_clips(clips, 5)
    val = Counter(clips[i].speaker for i in split.val)
    assert all(abs(val[str(speaker)] - 2 * repetitions) <= 1 for speaker in range(1, 7))
    assert len(split.val) == pytest.approx(0.2 * 60 * repetitions, abs=1)


def test_the_split_is_fixed_by_the_seed():
    clips = AUDIOMNIST.take(0.1, 0).clips
    again = [split_clips(clips, seed) for seed in (1, 1, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(again[0], again[1], strict=True))
    assert not np.array_equal(again[0].val, again[2].val)
    assert np.array_equal(again[0].test, again[2].test)


def test_validation_repetitions_are_chosen_at_random():
    clips = AUDIOMNIST.clips
    chosen = Counter(clips[i].repetition for i in split_clips(clips, 42).val)
    assert len(chosen) == 50 and max(chosen.values()) < 130, "80 of each are expected"


class _Listing(list):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_corpus_and_split_do_not_depend_on_the_order_of_the_directory_listing(tmp_path, monkeypatch):
    clips = named_clips(["1", "02", "10", "b"], digits=(0, 3, 9), repetitions=4)
    touch(tmp_path, *(clip.path for clip in clips), "1/0_1_00.wav", "1/0_1_000.wav", "02/3_02_01.wav")
    real_scandir, real_listdir, seen = os.scandir, os.listdir, set()
    for seed in range(8):
        shuffle = random.Random(seed).sample

        def scandir(path, shuffle=shuffle):
            entries = sorted(real_scandir(path), key=lambda entry: entry.name)
            return _Listing(shuffle(entries, len(entries)))

        def listdir(path, shuffle=shuffle):
            names = sorted(real_listdir(path))
            return shuffle(names, len(names))

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", scandir)
            patch.setattr(os, "listdir", listdir)
            corpus = open_folder(tmp_path)
        split = split_clips(corpus.clips, 42)
        seen.add(json.dumps([corpus.clips, corpus.ignored, [rows.tolist() for rows in split]]))
    assert len(seen) == 1
    assert [clip.speaker for clip in corpus.clips[::12]] == ["1", "02", "10", "b"]


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_systematic_sample_takes_its_fraction_of_every_stratum(fraction):
    speaker, digit = np.repeat(np.arange(7), 100), np.tile(np.repeat(np.arange(10), 10), 7)
    mask = systematic_sample(speaker, digit, fraction, seed=3)
    for s in range(7):
        for d in range(10):
            assert mask[(speaker == s) & (digit == d)].sum() == 10 * fraction


@pytest.mark.parametrize(
    "clips", [named_clips(["1", "2"]), named_clips(["1", "2", "3"], digits=[0], repetitions=1), ()]
)
def test_too_few_clips_to_split_are_refused_in_one_line(clips):
    with pytest.raises(UserError, match="--ratio") as caught:
        split_clips(clips, 42)
    assert "\n" not in str(caught.value)


# --- ratio


@pytest.mark.parametrize("seed", [0, 42])
def test_a_smaller_ratio_takes_a_subset_of_exactly_its_size(seed):
    smaller = set()
    for ratio in RATIOS:
        clips = AUDIOMNIST.take(ratio, seed).clips
        assert len(clips) == round(ratio * 30_000)
        assert list(clips) == sorted(clips), "the corpus's order is kept"
        assert smaller <= set(clips), f"{ratio} lacks clips of the ratio before"
        smaller = set(clips)


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_one_percent_of_audiomnist_has_every_speaker_and_digit_equally(seed):
    clips = AUDIOMNIST.take(0.01, seed).clips
    assert Counter(Counter(clip.speaker for clip in clips).values()) == {5: 60}
    assert Counter(Counter(clip.digit for clip in clips).values()) == {30: 10}
    split = split_clips(clips, seed)
    assert numbers(heard(clips, split.train)) == set(range(1, 41)), "each training speaker has a clip to train on"
    assert [len(rows) for rows in split] == [160, 40, 100]


def test_ten_percent_of_audiomnist_has_five_clips_of_each_speaker_and_digit():
    clips = AUDIOMNIST.take(0.1, 7).clips
    assert Counter(Counter((clip.speaker, clip.digit) for clip in clips).values()) == {5: 600}


def test_the_choice_of_clips_is_fixed_by_the_seed():
    first, again, other = (AUDIOMNIST.take(0.05, seed).clips for seed in (3, 3, 4))
    assert first == again and first != other


@pytest.mark.parametrize("ratio", [1e-9, 1e-4])
def test_a_ratio_that_leaves_too_few_clips_is_refused_in_one_line(ratio):
    with pytest.raises(UserError, match="--ratio") as caught:
        split_clips(AUDIOMNIST.take(ratio, 42).clips, 42)
    assert "\n" not in str(caught.value)


# --- the published folds


def test_the_five_test_sets_part_the_sixty_speakers():
    tests = [heard(AUDIOMNIST.clips, split_clips(AUDIOMNIST.clips, 0, fold).test) for fold in range(1, 6)]
    assert sum(map(len, tests)) == 60 and numbers(set.union(*tests)) == set(range(1, 61))


@pytest.mark.parametrize("fold, test, val", [(1, 2, 1), (2, 3, 2), (3, 4, 3), (4, 5, 4), (5, 1, 5)])
def test_folds_are_those_of_the_paper(fold, test, val):
    clips = AUDIOMNIST.take(0.01, 42).clips
    split = split_clips(clips, 42, fold)
    assert numbers(heard(clips, split.test)) == GROUPS[test]
    assert numbers(heard(clips, split.val)) == GROUPS[val]
    assert numbers(heard(clips, split.train)) == set(range(1, 61)) - GROUPS[test] - GROUPS[val]


@pytest.mark.parametrize("names", [range(1, 61), [f"{i:02d}" for i in range(1, 60)], [f"{i:02d}" for i in range(62)]])
def test_folds_of_other_speakers_are_refused(names):
    with pytest.raises(UserError, match="--fold") as caught:
        split_clips(named_clips(names, repetitions=1), 42, 1)
    assert "\n" not in str(caught.value)


# --- folders


@pytest.mark.parametrize("below", ["", "data", "AudioMNIST/data"])
def test_the_folder_may_be_the_corpus_or_hold_it(tmp_path, below):
    touch(tmp_path / below, "01/7_01_3.wav", "02/0_02_49.WAV", "02/audioMNIST_meta.txt")
    corpus = open_folder(tmp_path)
    assert corpus.clips == (Clip("01", 7, 3, "01/7_01_3.wav"), Clip("02", 0, 49, "02/0_02_49.WAV"))
    assert all((corpus.root / clip.path).is_file() for clip in corpus.clips)


def test_other_files_are_counted_and_left_alone(tmp_path, capsys):
    touch(tmp_path, "01/0_01_0.wav", "01/0_01_1.wav", "audioMNIST_meta.txt")
    ignored = [
        "01/notes.txt",
        "01/0_02_7.wav",  # another speaker's name
        "01/10_01_0.wav",
        "01/0_01_x.wav",
        "01/0_01_2.mp3",
        "01/x0_01_2.wav",
        "01/.0_01_3.wav.partial",
        "01/0_01_01.wav",  # repetition 1 once more
    ]
    touch(tmp_path, *ignored)
    (tmp_path / "01/folder").mkdir()
    corpus = open_folder(tmp_path)
    assert [clip[:3] for clip in corpus.clips] == [("01", 0, 0), ("01", 0, 1)]
    assert corpus.ignored == len(ignored)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{len(ignored)} files" in told and "01/.0_01_3.wav.partial" in told


def test_links_that_lead_to_themselves_are_survived(tmp_path):
    touch(tmp_path, "01/0_01_0.wav")
    for name in ("loop", "01/loop", "01/0_01_1.wav"):
        (tmp_path / name).symlink_to(tmp_path / name)
    corpus = open_folder(tmp_path)
    assert len(corpus.clips) == 2 and corpus.ignored == 1, "the one that is named as a clip is skipped when it is read"


def test_a_folder_that_cannot_be_listed_is_an_error_of_one_line(tmp_path):
    touch(tmp_path, "01/0_01_0.wav")
    (tmp_path / "far").symlink_to("x" * 300)  # asking for it is an error, even for root
    with pytest.raises(UserError, match=r"cannot list .*far") as caught:
        open_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_link_to_a_clip_is_a_clip(tmp_path):
    touch(tmp_path, "elsewhere.wav", "01/0_01_0.wav")
    (tmp_path / "01/0_01_1.wav").symlink_to(tmp_path / "elsewhere.wav")
    assert len(open_folder(tmp_path).clips) == 2


@pytest.mark.parametrize("missing", [True, False])
def test_a_missing_or_empty_folder_names_the_flag_in_one_line(tmp_path, missing):
    folder = tmp_path / "nowhere" if missing else tmp_path
    with pytest.raises(UserError, match="--data-dir.*" + ("no such folder" if missing else "no clips")) as caught:
        open_folder(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_names_the_flag(tmp_path):
    touch(tmp_path, "file")
    with pytest.raises(UserError, match="--data-dir"):
        open_folder(tmp_path / "file")


# --- clips of all speakers in one folder


def flat_names(speakers, repetitions=2) -> list[str]:
    return [f"{digit}_{speaker}_{i}.wav" for speaker in speakers for digit in (0, 7) for i in range(repetitions)]


@pytest.mark.parametrize("below", ["", "recordings", "data"])
def test_clips_may_lie_in_one_folder(tmp_path, below):
    touch(tmp_path / "fsdd" / below, *flat_names(["theo", "jackson", "anna.b", "jean-luc"]))
    corpus = open_folder(tmp_path / "fsdd")
    assert speaker_names(corpus.clips) == ["anna.b", "jackson", "jean-luc", "theo"]
    assert corpus.clips[4] == Clip("jackson", 0, 0, "0_jackson_0.wav")
    assert len(corpus.clips) == 16 and corpus.ignored == 0 and corpus.name == "fsdd"
    assert all((corpus.root / clip.path).is_file() for clip in corpus.clips)


@pytest.mark.parametrize("speakers", [["anna_b", "ben"], ["speaker_1", "speaker_2", "speaker_10"], ["_", "__a"]])
def test_names_may_hold_underscores(tmp_path, speakers):
    touch(tmp_path, *flat_names(speakers))
    corpus = open_folder(tmp_path)
    assert speaker_names(corpus.clips) == speakers and corpus.ignored == 0


@pytest.mark.parametrize("first", ["0_anna_3.wav", "anna/0_anna_3.wav"])
def test_what_may_be_a_copy_of_another_speakers_clip_is_left_alone(tmp_path, first, capsys):
    touch(tmp_path, first, "0_anna_3_2.wav", "0_anna_3_2_1.wav", "0_annabel_3.wav")
    corpus = open_folder(tmp_path)
    assert speaker_names(corpus.clips) == ["anna", "annabel"] and corpus.ignored == 2
    assert "0_anna_3_2.wav" in capsys.readouterr().err


def test_a_folder_may_hold_clips_both_ways_and_none_counts_twice(tmp_path):
    touch(tmp_path, "01/7_01_3.wav", "7_01_3.wav", "7_01_4.wav", "7_theo_03.wav", "7_theo_3.wav", "02/7_02_0.wav")
    corpus = open_folder(tmp_path)
    paths = ["01/7_01_3.wav", "7_01_4.wav", "02/7_02_0.wav", "7_theo_03.wav"]
    assert [clip.path for clip in corpus.clips] == paths and corpus.ignored == 2


def test_other_files_beside_flat_clips_are_counted(tmp_path):
    ignored = ["notes.txt", "7_theo.wav", "10_theo_1.wav", "7_theo_1.flac", "._7_theo_1.wav", "7__1.wav"]
    touch(tmp_path, "7_theo_1.wav", *ignored)
    (tmp_path / "folder").mkdir()
    corpus = open_folder(tmp_path)
    assert len(corpus.clips) == 1 and corpus.ignored == len(ignored)


@pytest.mark.filterwarnings("ignore:.*fork")
def test_hostile_things_among_flat_clips_are_skipped_by_name(tmp_path, write_tones, monkeypatch):
    from common.corpus.cache import open_cache

    monkeypatch.chdir(tmp_path)
    for path in write_tones(tmp_path / "by speaker", ["anna", "ben"], digits=[7]).glob("*/*.wav"):
        path.rename(touch(tmp_path / "flat", path.name) / path.name)
    folder = tmp_path / "flat"
    (folder / "7_eve_0.wav").mkdir()
    os.mkfifo(folder / "7_eve_1.wav")
    (folder / "7_eve_2.wav").symlink_to("nowhere")
    (folder / "7_eve_3.wav").symlink_to(folder / "7_eve_3.wav")
    (folder / "7_eve_4.wav").symlink_to("x" * 300)
    (folder / "7_eve_5.wav").symlink_to("/dev/zero")
    (folder / "7_eve_6.wav").symlink_to(folder / "7_anna_0.wav")
    cached = open_cache(open_folder(folder), tmp_path / "cache")
    assert sorted(cached.skipped) == [f"7_eve_{i}.wav" for i in range(6)]
    assert [clip.path for clip in cached.clips] == [
        *(f"7_{who}_{i}.wav" for who in ("anna", "ben") for i in (0, 1)),
        "7_eve_6.wav",
    ]


@pytest.mark.filterwarnings("ignore:.*fork")
def test_task_1_trains_on_named_speakers_in_one_folder(tmp_path, write_tones, run_here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["anna_maria", "ben", "carl.2"]
    for path in write_tones(tmp_path / "by speaker", names, digits=[0, 7], repetitions=5).glob("*/*.wav"):
        path.rename(touch(tmp_path / "mine/recordings", path.name) / path.name)
    run_here("task1.py", "--data-dir", "mine", "--epochs", "1", "--batch-size", "8", "--num-workers", "0")
    run = json.loads((tmp_path / "task1_supervised/metrics.json").read_text())["run"]
    assert run["corpus"] == "mine" and run["train_speakers"] == names[:2]
    assert run["clips"] == {"train": 16, "val": 4, "test": 10}


@pytest.mark.parametrize("count, tested", [(3, 1), (4, 1), (6, 2), (7, 2)])
def test_named_speakers_are_split_like_numbered_ones(tmp_path, count, tested):
    names = ["anna", "ben", "carl", "dora", "eve", "fred", "gina"][:count]
    clips = open_folder(touch(tmp_path, *flat_names(names, repetitions=5))).clips
    split = split_clips(clips, 42)
    assert heard(clips, split.test) == set(names[-tested:])
    assert heard(clips, split.train) == heard(clips, split.val) == set(names[:-tested])


# --- names


@pytest.mark.parametrize("below", ["", "data"])
def test_a_corpus_is_named_after_its_folder(tmp_path, below):
    touch(tmp_path / "my digits" / below, "01/7_01_3.wav")
    assert open_folder(tmp_path / "my digits").name == "my digits"


def test_a_corpus_whose_name_is_no_line_of_text_gets_one(tmp_path):
    touch(tmp_path / "my\ndigits\x1b[31m\udcff", "01/7_01_3.wav")
    assert open_folder(tmp_path / "my\ndigits\x1b[31m\udcff").name == "my digits?[31m?"


@pytest.fixture
def synthetic_corpus(tmp_path) -> Path:
    """Written by common.synthetic, but in a folder with a misleading name."""
    folder = touch(tmp_path / "AudioMNIST", synthetic.MARKER, "data/01/7_01_3.wav")
    return folder


@pytest.mark.parametrize("named", ["AudioMNIST", "AudioMNIST/data", "."])
def test_synthetic_speech_is_never_called_audiomnist(tmp_path, synthetic_corpus, named):
    assert open_folder(tmp_path / named).name == SYNTHETIC_NAME


def test_synthetic_speech_is_recognised_from_inside_its_folder(synthetic_corpus, monkeypatch):
    monkeypatch.chdir(synthetic_corpus / "data")
    assert open_folder(Path()).name == SYNTHETIC_NAME


def test_synthetic_speech_is_recognised_behind_a_link(tmp_path, synthetic_corpus):
    (tmp_path / "link").symlink_to(synthetic_corpus / "data")
    assert open_folder(tmp_path / "link").name == SYNTHETIC_NAME

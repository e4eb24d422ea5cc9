"""The three sets never share what they must not share, and each is balanced."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from common.corpus import Clip, Corpus, audiomnist_names, split_clips
from common.run import UserError

AUDIOMNIST = Corpus("AudioMNIST", audiomnist_names(), None)

# From the paper (arXiv:1807.03418), written down a second time.
GROUPS = {
    1: {4, 11, 12, 15, 21, 27, 31, 41, 44, 47, 50, 59},
    2: {5, 13, 18, 22, 26, 32, 33, 42, 45, 51, 52, 60},
    3: {1, 6, 7, 16, 19, 23, 28, 34, 35, 46, 53, 56},
    4: {2, 8, 9, 17, 24, 29, 36, 37, 39, 48, 54, 57},
    5: {3, 10, 14, 20, 25, 30, 38, 40, 43, 49, 55, 58},
}


def named_clips(speakers, digits=range(10), repetitions=10) -> list[Clip]:
    return [Clip(str(name), digit, i, "") for name, digit, i in product(speakers, digits, range(repetitions))]


def speakers_in(clips, rows) -> set[str]:
    return {clips[row].speaker for row in rows}


@pytest.mark.parametrize("ratio", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("fold", [None, 3])
def test_every_clip_is_in_exactly_one_set_and_no_test_speaker_in_another(ratio, fold):
    clips = AUDIOMNIST.take(ratio, 42).clips
    split = split_clips(clips, 42, fold)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(len(clips)))
    assert not speakers_in(clips, split.test) & (speakers_in(clips, split.train) | speakers_in(clips, split.val))
    assert all(np.array_equal(rows, np.sort(rows)) for rows in split)


@pytest.mark.parametrize(
    "names, tested",
    [
        (range(1, 61), set(range(3, 61, 3))),
        (range(1, 13), {3, 6, 9, 12}),
        (range(8, 12), {10}),
        (range(8, 13), {10}),
    ],
)
def test_every_third_speaker_in_natural_order_is_the_test(names, tested):
    clips = named_clips(sorted(map(str, names)), repetitions=5)
    split = split_clips(clips, 0)
    assert speakers_in(clips, split.test) == set(map(str, tested))
    assert speakers_in(clips, split.train) == speakers_in(clips, split.val) == set(map(str, set(names) - tested))


def test_audiomnist_has_women_and_every_room_on_both_sides():
    women = {f"{i:02d}" for i in (12, 26, 28, 36, 43, 47, 52, 56, 57, 58, 59, 60)}
    rooms = [{f"{i:02d}" for i in room} for room in (range(1, 20), range(20, 29), range(29, 61))]
    clips = AUDIOMNIST.take(0.01, 42).clips
    split = split_clips(clips, 42)
    train, test = speakers_in(clips, split.train), speakers_in(clips, split.test)
    assert (len(train), len(test)) == (40, 20)
    assert abs(len(train & women) / 40 - len(test & women) / 20) < 0.1
    assert all(train & room and test & room for room in rooms)


def test_train_and_validation_are_80_to_20_for_each_speaker_and_digit():
    clips = AUDIOMNIST.clips
    split = split_clips(clips, 42)
    for rows, share in ((split.train, 40), (split.val, 10)):
        counts = Counter((clips[row].speaker, clips[row].digit) for row in rows)
        assert len(counts) == 400 and set(counts.values()) == {share}


@pytest.mark.parametrize("repetitions", [1, 2, 3, 7])
def test_with_few_repetitions_each_speaker_still_gives_a_fifth_to_validation(repetitions):
    clips = named_clips(range(1, 10), repetitions=repetitions)
    split = split_clips(clips, 5)
    val = Counter(clips[row].speaker for row in split.val)
    assert all(abs(val[str(speaker)] - 2 * repetitions) <= 1 for speaker in (1, 2, 4, 5, 7, 8))
    assert len(split.val) == pytest.approx(0.2 * 60 * repetitions, abs=1)
    assert len({clips[row].digit for row in split.val}) > 5, "not the same digits of every speaker"


def test_the_seed_fixes_the_validation_repetitions_and_nothing_else():
    clips = AUDIOMNIST.clips
    first, again, other = (split_clips(clips, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.val, other.val) and np.array_equal(first.test, other.test)
    chosen = Counter(clips[row].repetition for row in first.val)
    assert len(chosen) == 50 and max(chosen.values()) < 130, "80 of each are expected"


@pytest.mark.parametrize(
    "clips, problem",
    [
        (named_clips("12"), "200 clips of 2 speaker.*3 speakers"),
        (named_clips("123", digits=[0], repetitions=1), "3 clips of 3 speaker"),
    ],
)
def test_too_few_clips_to_split_are_refused_in_one_line(clips, problem):
    with pytest.raises(UserError, match=f"{problem}.*--ratio") as caught:
        split_clips(clips, 42)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fold, test, val", [(1, 2, 1), (2, 3, 2), (3, 4, 3), (4, 5, 4), (5, 1, 5)])
def test_folds_are_those_of_the_paper(fold, test, val):
    clips = AUDIOMNIST.take(0.01, 42).clips
    train, validation, tested = (
        {int(name) for name in speakers_in(clips, rows)} for rows in split_clips(clips, 42, fold)
    )
    assert tested == GROUPS[test] and validation == GROUPS[val]
    assert train == set(range(1, 61)) - GROUPS[test] - GROUPS[val]


@pytest.mark.parametrize("names", [range(1, 61), [f"{i:02d}" for i in range(1, 60)], [f"{i:02d}" for i in range(62)]])
def test_folds_of_other_speakers_are_refused(names):
    with pytest.raises(UserError, match="--fold"):
        split_clips(named_clips(names, repetitions=1), 42, 1)

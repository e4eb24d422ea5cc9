"""Which clips train, validate and test: speaker-disjoint test sets, stratified by speaker and digit."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.corpus.clips import AUDIOMNIST_SPEAKERS, Clip, speaker_names
from common.run.console import UserError

# Groups 1 to 5 of Becker et al. (arXiv:1807.03418): fold k tests on group k + 1 and validates on group k.
FOLD_GROUPS = (
    "04 11 12 15 21 27 31 41 44 47 50 59",
    "05 13 18 22 26 32 33 42 45 51 52 60",
    "01 06 07 16 19 23 28 34 35 46 53 56",
    "02 08 09 17 24 29 36 37 39 48 54 57",
    "03 10 14 20 25 30 38 40 43 49 55 58",
)


class Split(NamedTuple):
    """Rows (int64 arrays, ascending) of the clips of each set."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def split_clips(clips: Sequence[Clip], seed: int, fold: int | None = None) -> Split:
    """Test on the last third of the speakers; split the others' clips 80:20 into train and validation.

    No test speaker is in training or validation. Validation takes every fifth clip of each speaker and digit, chosen by
    ``seed``. With ``fold`` (1 to 5) the sets are the speaker-disjoint folds of the AudioMNIST paper instead.

    Raises:
        UserError: too few speakers or clips for three sets, or a fold of a corpus without AudioMNIST's 60 speakers.
    """
    names = speaker_names(clips)
    speaker, digit = np.array([clip.speaker for clip in clips]), np.array([clip.digit for clip in clips])
    if fold is not None:
        if names != list(AUDIOMNIST_SPEAKERS):
            raise UserError("--fold needs all of AudioMNIST's speakers, 01 to 60; leave it out for another corpus")
        in_test, in_val = (np.isin(speaker, FOLD_GROUPS[group % 5].split()) for group in (fold, fold - 1))
    else:
        in_test, in_val = np.isin(speaker, names[-(len(names) // 3) :]), np.zeros(len(clips), dtype=bool)
        in_val[~in_test] = systematic_sample(speaker[~in_test], digit[~in_test], 0.2, seed)
    split = Split(*(np.flatnonzero(mask) for mask in (~in_test & ~in_val, in_val, in_test)))
    if len(split.train) < 2 or len(split.val) < 1:  # one or two speakers are all in the test
        needed = "at least 3 are needed, each with several clips; raise --ratio"
        raise UserError(f"too few clips to split: {len(clips)} of {len(names)} speaker(s), {needed}")
    return split


def systematic_sample(speaker: np.ndarray, digit: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Mask [n] (bool) of every (1 / fraction)-th clip in the order of speakers, digits and shuffled repetitions.

    Each speaker, and each digit of a speaker, gives its fraction to within one clip, even if it has few clips.
    ``speaker`` [n] holds names or numbers, ``digit`` [n] holds 0 to 9.
    """
    rng = np.random.default_rng(seed)
    names, speaker = np.unique(speaker, return_inverse=True)
    # Each speaker's digits have an order of their own; otherwise few clips would always give the middle digits.
    digit_rank = rng.permuted(np.tile(np.arange(10), (len(names), 1)), axis=1)[speaker, digit]
    order = np.lexsort((rng.permutation(len(speaker)), digit_rank, speaker))
    # Steps are counted from the middle, which gives small speakers their share: of 5 clips, one in five is the third.
    steps = np.floor((np.arange(len(speaker) + 1) + 0.5 / fraction) * fraction)
    mask = np.zeros(len(speaker), dtype=bool)
    mask[order] = np.diff(steps) > 0
    return mask

"""Which clips there are, and which of them train, validate and test.

A corpus is a folder in AudioMNIST's layout (a folder per speaker) or the Free Spoken Digit Dataset's (one for all), or
the synthetic one that is spoken when it is needed. Nothing here reads audio: clips are known by their names alone, so
choosing and splitting them takes no time and needs no files.
"""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.corpus import synthetic
from common.run.console import UserError, printable

AUDIOMNIST_SPEAKERS = tuple(f"{i:02d}" for i in range(1, 61))
AUDIOMNIST_REPETITIONS = 50
SYNTHETIC_NAME = "synthetic speech (espeak-ng)"
TEST_SHARE = 3  # one speaker in three is kept for the test
VALIDATION_FRACTION = 0.2

# Groups 1 to 5 of Becker et al. (arXiv:1807.03418): fold k tests on group k + 1 and validates on group k.
FOLD_GROUPS = tuple(
    frozenset(group.split())
    for group in (
        "04 11 12 15 21 27 31 41 44 47 50 59",
        "05 13 18 22 26 32 33 42 45 51 52 60",
        "01 06 07 16 19 23 28 34 35 46 53 56",
        "02 08 09 17 24 29 36 37 39 48 54 57",
        "03 10 14 20 25 30 38 40 43 49 55 58",
    )
)

# A speaker may be called anything, underscores included: the digit stands before, the repetition after the name.
CLIP_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[^/\\]+)_(?P<repetition>[0-9]{1,6})\.wav", re.IGNORECASE)


class Clip(NamedTuple):
    """One recording: who says which digit for the how-manieth time, and its file below the corpus folder."""

    speaker: str
    digit: int
    repetition: int
    path: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Clips in a fixed order (speaker, digit, repetition), whatever order a directory lists them in."""

    name: str
    clips: tuple[Clip, ...]
    root: Path | None  # None: no files, each clip is spoken by common.synthetic
    ignored: int = 0  # files in the folder whose names are not those of clips

    def take(self, ratio: float, seed: int) -> "Corpus":
        """Keep a stratified, seeded fraction of the clips; a smaller ratio keeps a subset of a larger one's."""
        if ratio == 1:
            return self
        kept = stratified_sample(self.clips, ratio, seed)
        if len(kept) == 0:
            raise UserError(f"--ratio {ratio} leaves none of the {len(self.clips)} clips; raise it")
        return dataclasses.replace(self, clips=tuple(self.clips[i] for i in kept))


class Split(NamedTuple):
    """Row numbers (int64 arrays, ascending) of the clips of each set."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def open_folder(folder: Path) -> Corpus:
    """List the clips in ``folder``, or else in ``data``, ``AudioMNIST/data`` or ``recordings`` below it.

    A clip is ``SPEAKER/DIGIT_SPEAKER_REPETITION.wav``, or ``DIGIT_SPEAKER_REPETITION.wav`` in the folder itself; there
    may be both, and of two files for one clip the speaker folder's counts. One that turns out to be a folder, a pipe or
    a link that leads nowhere is skipped when it is read. Other files beside clips are counted and left alone.

    Raises:
        UserError: ``folder`` does not exist, cannot be listed, or holds no clips.
    """
    try:
        if not folder.is_dir():
            raise UserError(f"--data-dir {folder}: no such folder; give the folder that holds the clips")
        for root in (folder, folder / "data", folder / "AudioMNIST" / "data", folder / "recordings"):
            clips, ignored = _list_clips(root)
            if clips:
                if ignored:
                    first = printable(str(root / ignored[0]))
                    print(f"{len(ignored)} files are not named as clips and left alone: {first} ...", file=sys.stderr)
                return Corpus(_corpus_name(root), clips, root, len(ignored))
    except OSError as error:
        raise UserError(f"--data-dir {folder}: cannot list {error.filename} ({error.strerror})") from error
    raise UserError(
        f"--data-dir {folder}: no clips in it; expected files as 01/7_01_3.wav (speaker/digit_speaker_repetition.wav), "
        "or all in one folder, like 7_anna_3.wav"
    )


def audiomnist_names() -> tuple[Clip, ...]:
    """The 30,000 clips (60 speakers x 10 digits x 50 repetitions) that AudioMNIST consists of."""
    return tuple(
        Clip(speaker, digit, repetition, f"{speaker}/{digit}_{speaker}_{repetition}.wav")
        for speaker in AUDIOMNIST_SPEAKERS
        for digit in range(10)
        for repetition in range(AUDIOMNIST_REPETITIONS)
    )


def split_clips(clips: Sequence[Clip], seed: int, fold: int | None = None) -> Split:
    """Test on the last third of the speakers; split the others' clips 80:20 into train and validation.

    Nobody heard in training is heard in the test. Validation takes every fifth clip of each speaker and digit, chosen
    by ``seed``. With ``fold`` (1 to 5) the sets are the speaker-disjoint folds of the AudioMNIST paper instead.

    Raises:
        UserError: fewer than three speakers, too few clips for three sets, or a fold of a corpus that is not
            AudioMNIST's 60 speakers.
    """
    names = speaker_names(clips)
    if fold is not None:
        return _published_fold(clips, fold)
    if len(names) < 3:
        raise UserError(f"{len(names)} speaker(s) in {len(clips)} clips: at least 3 are needed; raise --ratio")
    test_speakers = names[len(names) - len(names) // TEST_SHARE :]
    speaker, digit = np.array([clip.speaker for clip in clips]), np.array([clip.digit for clip in clips])
    is_test = np.isin(speaker, test_speakers)
    rest = np.flatnonzero(~is_test)
    in_val = systematic_sample(speaker[rest], digit[rest], VALIDATION_FRACTION, seed)
    split = Split(rest[~in_val], rest[in_val], np.flatnonzero(is_test))
    if len(split.train) < 2 or len(split.val) < 1:
        raise UserError(
            f"{len(clips)} clips are too few to split ({len(split.train)} train, {len(split.val)} validation, "
            f"{len(split.test)} test); raise --ratio"
        )
    return split


def speaker_names(clips: Sequence[Clip]) -> list[str]:
    """The speakers in natural order (2 before 10)."""
    return sorted({clip.speaker for clip in clips}, key=lambda name: (_natural(name), name))


def stratified_sample(clips: Sequence[Clip], fraction: float, seed: int) -> np.ndarray:
    """Row numbers (ascending) of a seeded fraction of the clips; a smaller fraction's are among a larger one's."""
    order = np.argsort(stratified_positions(clips, seed), kind="stable")
    return np.sort(order[: round(fraction * len(clips))])


def stratified_positions(clips: Sequence[Clip], seed: int) -> np.ndarray:
    """Place every clip in [0, 1) so that those below any threshold are a stratified sample of that size.

    The r-th of a stratum's n clips (in seeded random order) stands at (r + offset) / n. The offsets form a Latin
    square over speakers and digits: with one clip in a hundred of AudioMNIST, where no stratum has a whole clip to
    give, each speaker still gives 5 clips and each digit 30.
    """
    rng = np.random.default_rng(seed)
    speakers = {name: i for i, name in enumerate(rng.permutation(speaker_names(clips)).tolist())}
    shuffled_digits = rng.permutation(10)
    random_order = rng.permutation(len(clips))
    strata: dict[tuple[str, int], list[int]] = {}
    for i in random_order.tolist():
        strata.setdefault((clips[i].speaker, clips[i].digit), []).append(i)
    positions = np.empty(len(clips))
    for (speaker, digit), members in strata.items():
        offset = ((shuffled_digits[digit] + speakers[speaker]) % 10 + 0.5) / 10
        positions[members] = (np.arange(len(members)) + offset) / len(members)
    return positions


def systematic_sample(speaker: np.ndarray, digit: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Boolean mask [n] of every (1 / fraction)-th clip, walking through speakers, digits and shuffled repetitions.

    Each speaker, and each digit of a speaker, gives its fraction to within one clip, however few clips it has.

    Args:
        speaker: [n] names or numbers.
        digit: [n] 0 to 9.
    """
    rng = np.random.default_rng(seed)
    names, speaker = np.unique(speaker, return_inverse=True)
    # Each speaker's digits come in an order of their own, or few clips would always give the middle digits.
    digit_rank = rng.permuted(np.tile(np.arange(10), (len(names), 1)), axis=1)[speaker, digit]
    walk = np.lexsort((rng.permutation(len(speaker)), digit_rank, speaker))
    # Counting from the middle of a step gives small speakers their share: of 5 clips, one in five is the third.
    steps = np.floor((np.arange(len(speaker) + 1) + 0.5 / fraction) * fraction)
    mask = np.zeros(len(speaker), dtype=bool)
    mask[walk] = np.diff(steps) > 0
    return mask


def _published_fold(clips: Sequence[Clip], fold: int) -> Split:
    if set(speaker_names(clips)) != set(AUDIOMNIST_SPEAKERS):
        raise UserError("--fold needs all of AudioMNIST's speakers 01-60; leave it out for another corpus")
    test, val = FOLD_GROUPS[fold % 5], FOLD_GROUPS[fold - 1]
    group = np.array([0 if c.speaker in test else 1 if c.speaker in val else 2 for c in clips])
    return Split(np.flatnonzero(group == 2), np.flatnonzero(group == 1), np.flatnonzero(group == 0))


def _list_clips(root: Path) -> tuple[tuple[Clip, ...], list[str]]:
    if not root.is_dir():
        return (), []
    here = {name: CLIP_NAME.fullmatch(name) for name in sorted(path.name for path in root.iterdir())}
    folders = [name for name, match in here.items() if not match and (root / name).is_dir()]
    found: dict[tuple[str, int, int], Clip] = {}
    ignored = []

    def add(path: str, match: re.Match) -> None:
        clip = Clip(match["speaker"], int(match["digit"]), int(match["repetition"]), path)
        if found.setdefault(clip[:3], clip) != clip:  # 0_01_01.wav after 0_01_1.wav: the first in sorted order counts
            ignored.append(path)

    for folder in folders:
        for name in sorted(path.name for path in (root / folder).iterdir()):
            match = CLIP_NAME.fullmatch(name)
            if match and match["speaker"] == folder:
                add(f"{folder}/{name}", match)
            elif not (root / folder / name).is_dir():
                ignored.append(f"{folder}/{name}")
    speakers = {clip.speaker for clip in found.values()} | {match["speaker"] for match in here.values() if match}
    if any(here.values()):  # else what stands beside speaker folders are a corpus's documents
        for name, match in here.items():
            if match and not _may_be_a_copy(match["speaker"], speakers):
                add(name, match)
            elif name not in folders:
                ignored.append(name)
    return tuple(sorted(found.values(), key=lambda clip: (_natural(clip.speaker), *clip[:3]))), ignored


def _may_be_a_copy(speaker: str, speakers: set[str]) -> bool:
    """Whether 7_anna_3_2.wav may be 7_anna_3.wav once more, which in the test would be a voice from the training."""
    while match := re.fullmatch(r"(.+)_[0-9]{1,6}", speaker):
        speaker = match[1]
        if speaker in speakers:
            return True
    return False


def _corpus_name(root: Path) -> str:
    root = root.resolve()
    if any((folder / synthetic.MARKER).exists() for folder in (root, root.parent)):
        return SYNTHETIC_NAME
    # /data has no parent to be named after
    return printable((root.parent.name if root.name in ("data", "recordings") else "") or root.name)


def _natural(name: str) -> list:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]

"""Where clips come from: which clips a corpus has, by their file names alone, and which train, validate and test.

A corpus is a folder in the layout of AudioMNIST (a folder per speaker) or of the Free Spoken Digit Dataset (one folder
for all speakers), or the synthetic corpus, which has no files: its clips are spoken when they are needed.
"""

import dataclasses
import itertools
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.run import UserError, printable

AUDIOMNIST_SPEAKERS = tuple(f"{number:02d}" for number in range(1, 61))
SYNTHETIC_NAME = "synthetic speech (espeak-ng)"
SYNTHETIC_MARKER = "SYNTHETIC.txt"  # earlier versions put it into each folder of synthetic clips that they wrote

# Groups 1 to 5 of Becker et al. (arXiv:1807.03418): fold k tests on group k + 1 and validates on group k.
FOLD_GROUPS = (
    "04 11 12 15 21 27 31 41 44 47 50 59",
    "05 13 18 22 26 32 33 42 45 51 52 60",
    "01 06 07 16 19 23 28 34 35 46 53 56",
    "02 08 09 17 24 29 36 37 39 48 54 57",
    "03 10 14 20 25 30 38 40 43 49 55 58",
)

# A speaker may have any name, even one with underscores: the digit comes before the name, the repetition after it.
CLIP_PATH = re.compile(
    r"((?P<folder>[^/]+)/)?(?P<digit>[0-9])_(?P<speaker>[^/\\]+)_(?P<repetition>[0-9]+)\.wav", re.IGNORECASE
)
REPOSITORY_FOLDERS = ("data", "recordings")  # hold the clips in the repositories of the two corpora


class Clip(NamedTuple):
    """Speaker, digit, repetition index, and path below the corpus root."""

    speaker: str
    digit: int
    repetition: int
    path: str


class Split(NamedTuple):
    """Rows (int64 arrays, ascending) of the clips of each set."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Clips ordered by speaker, digit and repetition, in whatever order the directory lists them."""

    name: str
    clips: tuple[Clip, ...]
    root: Path | None  # None for the synthetic corpus, which has no files
    ignored: int = 0  # number of files in the folder that repeat a clip or are not named like one

    def take(self, ratio: float, seed: int) -> "Corpus":
        """Keep a seeded fraction of the clips, see ``stratified_sample``; raises UserError if no clip is left."""
        if ratio == 1:
            return self
        rows = stratified_sample(self.clips, ratio, seed)
        if len(rows) == 0:
            raise UserError(f"--ratio {ratio} leaves none of the {len(self.clips)} clips; raise it")
        return dataclasses.replace(self, clips=tuple(self.clips[row] for row in rows))


def stratified_sample(clips: Sequence[Clip], fraction: float, seed: int) -> np.ndarray:
    """Rows (int64, ascending) of a seeded fraction of the clips; a smaller fraction's rows are among a larger one's.

    Each clip gets a position between 0 and 1, and the clips with the lowest positions are taken. The r-th of the n
    clips of one speaker and digit, in random order, has the position (r + offset) / n. The offsets form a Latin square
    over speakers and digits: 1% of AudioMNIST, half a clip per speaker and digit, has 5 clips of each speaker and 30 of
    each digit.
    """
    rng = np.random.default_rng(seed)
    speaker_rank = {name: rank for rank, name in enumerate(rng.permutation(speaker_names(clips)).tolist())}
    digit_rank = rng.permutation(10)
    strata: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for row in rng.permutation(len(clips)).tolist():
        strata[clips[row].speaker, clips[row].digit].append(row)
    positions = np.empty(len(clips))
    for (speaker, digit), rows in strata.items():
        offset = ((digit_rank[digit] + speaker_rank[speaker]) % 10 + 0.5) / 10
        positions[rows] = (np.arange(len(rows)) + offset) / len(rows)
    return np.sort(np.argsort(positions, kind="stable")[: round(fraction * len(clips))])


def split_clips(clips: Sequence[Clip], seed: int, fold: int | None = None) -> Split:
    """Test on every third speaker; split the others' clips 80:20 into train and validation.

    No test speaker is in training or validation. AudioMNIST numbers its speakers by recording date and so by room, and
    8 of its 12 women are among the last 20; every third speaker in natural order has all rooms, and 4 of the women.
    Validation takes every fifth clip of each speaker and digit, chosen by ``seed``. With ``fold`` (1 to 5) the sets are
    the speaker-disjoint folds of the AudioMNIST paper instead.

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
        in_test, in_val = np.isin(speaker, names[2::3]), np.zeros(len(clips), dtype=bool)
        in_val[~in_test] = systematic_sample(speaker[~in_test], digit[~in_test], 0.2, seed)
    split = Split(*(np.flatnonzero(mask) for mask in (~in_test & ~in_val, in_val, in_test)))
    if len(split.train) < 2 or len(split.val) < 1 or len(split.test) < 1:
        needed = "3 speakers with several clips each; add recordings, or raise --ratio if it is below 1"
        raise UserError(f"{len(clips)} clips of {len(names)} speaker(s) are too few to split: it takes {needed}")
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


def speaker_names(clips: Sequence[Clip]) -> list[str]:
    """The speakers in natural order (2 before 10)."""
    return sorted({clip.speaker for clip in clips}, key=lambda name: (_natural(name), name))


def audiomnist_names() -> tuple[Clip, ...]:
    """The 30,000 clips (60 speakers x 10 digits x 50 repetitions) of AudioMNIST."""
    numbers = itertools.product(AUDIOMNIST_SPEAKERS, range(10), range(50))
    return tuple(Clip(name, digit, i, f"{name}/{digit}_{name}_{i}.wav") for name, digit, i in numbers)


def open_folder(folder: Path) -> Corpus:
    """List the clips in ``folder``, or in ``data`` or ``recordings`` in it, whichever holds most.

    A clip is ``SPEAKER/DIGIT_SPEAKER_REPETITION.wav``, or ``DIGIT_SPEAKER_REPETITION.wav`` in the folder itself. Other
    .wav files, and a second one for the same clip, are counted and ignored; hidden ones are not even counted.

    Raises:
        UserError: ``folder`` does not exist or holds no clips, or names of speakers differ only in letter case.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder that holds the clips")
    roots = [folder, *(folder / name for name in REPOSITORY_FOLDERS if (folder / name).is_dir())]
    listings = {root: _list_clips(root) for root in roots}
    root = max(listings, key=lambda root: len(listings[root][0]))
    clips, ignored = listings[root]
    if not clips:
        example = "01/7_01_3.wav (speaker/digit_speaker_repetition.wav) or, all in one folder, like 7_anna_3.wav"
        raise UserError(f"{folder}: no clips in it; expected files like {example}")
    for other, (unused, _) in listings.items():
        if unused and other != root:
            note = f"Using the {len(clips)} clips in {root}, not the {len(unused)} in {other}"
            print(printable(note), file=sys.stderr)
    if ignored:
        files = f"{len(ignored)} .wav files that repeat a clip or are not named like one"
        print(printable(f"Ignored {files}: {root / ignored[0]} ..."), file=sys.stderr)
    for first, second in itertools.pairwise(sorted(speaker_names(clips), key=str.casefold)):
        if first.casefold() == second.casefold():
            remedy = "give one person one name, and two people different ones"
            raise UserError(f"{root}: the speakers {first} and {second} differ only in letter case; {remedy}")
    return Corpus(_corpus_name(root.resolve()), clips, root, len(ignored))


def _list_clips(root: Path) -> tuple[tuple[Clip, ...], list[str]]:
    """The clips below ``root`` and the paths of all other .wav files."""
    top = _visible_names(root)
    folders = [name for name in top if not _parse(name) and (root / name).is_dir()]
    paths = [f"{folder}/{name}" for folder in folders for name in _visible_names(root / folder)]
    matches = {path: _parse(path) for path in (*paths, *top) if path.lower().endswith(".wav")}
    speakers = {match["speaker"] for match in matches.values() if match}
    clips: dict[tuple[str, int, int], Clip] = {}
    for path, match in matches.items():
        if match and _is_clip(match["speaker"], match["folder"], speakers):
            clip = Clip(match["speaker"], int(match["digit"]), int(match["repetition"]), path)
            clips.setdefault(clip[:3], clip)  # of 0_01_01.wav and 0_01_1.wav, the first one counts
    used = {clip.path for clip in clips.values()}
    rank = {name: index for index, name in enumerate(speaker_names(tuple(clips.values())))}
    ordered = sorted(clips.values(), key=lambda clip: (rank[clip.speaker], *clip[1:]))
    return tuple(ordered), [path for path in matches if path not in used]


def _visible_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _parse(path: str) -> re.Match | None:
    # One accented letter may be written in two ways. Both are one speaker.
    return CLIP_PATH.fullmatch(unicodedata.normalize("NFC", path))


def _is_clip(speaker: str, folder: str | None, speakers: set[str]) -> bool:
    """Whether a file that is named like a clip of ``speaker`` is one: in the folder of that speaker, or in none."""
    if folder:
        return _natural(speaker) == _natural(folder)  # 1/0_01_0.wav is of speaker 01
    # 7_anna_3_2.wav may be a copy of 7_anna_3.wav, which would put one voice into training and test.
    while match := re.fullmatch(r"(.+)_[0-9]+", speaker):
        speaker = match[1]
        if speaker in speakers:
            return False
    return True


def _corpus_name(root: Path) -> str:
    if any((folder / SYNTHETIC_MARKER).exists() for folder in (root, root.parent)):
        return SYNTHETIC_NAME
    # /data has no parent folder with a name
    return printable((root.parent.name if root.name in REPOSITORY_FOLDERS else "") or root.name)


def _natural(name: str) -> list:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]

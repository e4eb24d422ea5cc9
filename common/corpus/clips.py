"""The clips of a corpus, known by their file names alone: nothing here reads audio.

A corpus is a folder in the layout of AudioMNIST (a folder per speaker) or of the Free Spoken Digit Dataset (one folder
for all speakers), or the synthetic corpus, which has no files: its clips are spoken when they are needed.
"""

import dataclasses
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.run.console import UserError, printable

AUDIOMNIST_SPEAKERS = tuple(f"{number:02d}" for number in range(1, 61))
SYNTHETIC_NAME = "synthetic speech (espeak-ng)"
SYNTHETIC_MARKER = "SYNTHETIC.txt"  # a file in each folder of synthetic clips, so that nobody takes them for AudioMNIST

# A speaker may have any name, even one with underscores: the digit comes before the name, the repetition after it.
CLIP_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[^/\\]+)_(?P<repetition>[0-9]{1,6})\.wav", re.IGNORECASE)


class Clip(NamedTuple):
    """Speaker, digit, repetition index, and path below the corpus root."""

    speaker: str
    digit: int
    repetition: int
    path: str


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


def speaker_names(clips: Sequence[Clip]) -> list[str]:
    """The speakers in natural order (2 before 10)."""
    return sorted({clip.speaker for clip in clips}, key=lambda name: (_natural(name), name))


def audiomnist_names() -> tuple[Clip, ...]:
    """The 30,000 clips (60 speakers x 10 digits x 50 repetitions) of AudioMNIST."""
    return tuple(
        Clip(speaker, digit, repetition, f"{speaker}/{digit}_{speaker}_{repetition}.wav")
        for speaker in AUDIOMNIST_SPEAKERS
        for digit in range(10)
        for repetition in range(50)
    )


def open_folder(folder: Path) -> Corpus:
    """List the clips in ``folder``, or else in ``data``, ``AudioMNIST/data`` or ``recordings`` below it.

    A clip is ``SPEAKER/DIGIT_SPEAKER_REPETITION.wav``, or ``DIGIT_SPEAKER_REPETITION.wav`` in the folder itself. A
    folder may hold both; of two files for one clip, the one in the speaker's folder counts. Other files are counted and
    ignored. What is named like a clip but is no file is listed here and skipped when it is read.

    Raises:
        UserError: ``folder`` does not exist, cannot be listed, or holds no clips.
    """
    try:
        if not folder.is_dir():
            raise UserError(f"--data-dir {folder}: no such folder; name the folder that holds the clips")
        for root in filter(Path.is_dir, (folder, folder / "data", folder / "AudioMNIST/data", folder / "recordings")):
            clips, ignored = _list_clips(root)
            if clips:
                if ignored:
                    example = printable(str(root / ignored[0]))
                    problem = "that repeat a clip or are not named like one"
                    print(f"Ignored {len(ignored)} files {problem}: {example} ...", file=sys.stderr)
                return Corpus(_corpus_name(root), clips, root, len(ignored))
    except OSError as error:
        raise UserError(f"--data-dir {folder}: cannot list {error.filename} ({error.strerror})") from error
    raise UserError(
        f"--data-dir {folder}: no clips in it; expected files like 01/7_01_3.wav (speaker/digit_speaker_repetition.wav)"
        " or, all in one folder, like 7_anna_3.wav"
    )


def _list_clips(root: Path) -> tuple[tuple[Clip, ...], list[str]]:
    """The clips below ``root`` and the paths of all other files."""
    top = {name: CLIP_NAME.fullmatch(name) for name in sorted(path.name for path in root.iterdir())}
    folders = [name for name, match in top.items() if not match and (root / name).is_dir()]
    files: dict[str, re.Match | None] = {}  # path -> parts of its name, None if it is not named like a clip
    for folder in folders:
        for name in sorted(path.name for path in (root / folder).iterdir()):
            match = CLIP_NAME.fullmatch(name)
            if match and match["speaker"] == folder:
                files[f"{folder}/{name}"] = match
            elif not (root / folder / name).is_dir():
                files[f"{folder}/{name}"] = None
    if any(top.values()):  # otherwise the files beside the speakers' folders are the corpus's documents
        speakers = {match["speaker"] for match in (*files.values(), *top.values()) if match}
        for name, match in top.items():
            if name not in folders:
                files[name] = None if match and _may_be_a_copy(match["speaker"], speakers) else match
    clips: dict[tuple[str, int, int], Clip] = {}
    for path, match in files.items():
        if match:
            clip = Clip(match["speaker"], int(match["digit"]), int(match["repetition"]), path)
            clips.setdefault(clip[:3], clip)  # of 0_01_01.wav and 0_01_1.wav, the first one in sorted order counts
    ordered = tuple(sorted(clips.values(), key=lambda clip: (_natural(clip.speaker), *clip[:3])))
    listed = {clip.path for clip in ordered}
    return ordered, [path for path in files if path not in listed]


def _may_be_a_copy(speaker: str, speakers: set[str]) -> bool:
    """Whether 7_anna_3_2.wav may be a copy of 7_anna_3.wav, which would put one voice into training and test."""
    while match := re.fullmatch(r"(.+)_[0-9]{1,6}", speaker):
        speaker = match[1]
        if speaker in speakers:
            return True
    return False


def _corpus_name(root: Path) -> str:
    root = root.resolve()
    if any((folder / SYNTHETIC_MARKER).exists() for folder in (root, root.parent)):
        return SYNTHETIC_NAME
    # /data has no parent folder with a name
    return printable((root.parent.name if root.name in ("data", "recordings") else "") or root.name)


def _natural(name: str) -> list:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]

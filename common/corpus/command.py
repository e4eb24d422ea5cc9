"""Look at the corpus, download it, or write a synthetic one.

python -m common.data                        show what is there: clips, speakers, digits, seconds, split
python -m common.data fetch [DIR]            download AudioMNIST (all of it, or the fraction of --ratio)
python -m common.data synthesize DIR         write the synthetic corpus as WAV files
"""

from pathlib import Path

import numpy as np

from common.corpus import download, synthetic
from common.corpus.clips import SYNTHETIC_NAME, Corpus, audiomnist_names, speaker_names
from common.corpus.decode import open_clip
from common.corpus.source import AUDIOMNIST_DIR, find_corpus
from common.corpus.split import split_clips
from common.run.cli import Parser, run
from common.run.console import UserError, align, printable
from common.run.settings import Settings, a_folder


def describe(data_dir: Path | None, dataset: str, ratio: float, fold: int | None, seed: int) -> str:
    """A table of the clips that are there now; nothing is downloaded or cached."""
    if data_dir is None and dataset != "synthetic":
        if not AUDIOMNIST_DIR.is_dir():
            advice = "`python -m common.data fetch` downloads it; the tasks do so themselves."
            return f"{AUDIOMNIST_DIR} is not there. {advice}"
        data_dir = AUDIOMNIST_DIR
    corpus = find_corpus(data_dir, dataset, ratio, seed)
    rows = [
        ["corpus", corpus.name],
        ["folder", str(corpus.root) if corpus.root else "none: spoken when it is needed"],
        ["clips", str(len(corpus.clips))],
        ["speakers", _range(speaker_names(corpus.clips))],
        ["digits", _range(sorted({str(clip.digit) for clip in corpus.clips}))],
        ["other files", f"{corpus.ignored} ignored"],
    ]
    if corpus.root:
        rows.append(["seconds", _durations([corpus.root / clip.path for clip in corpus.clips])])
    for name, numbers in split_clips(corpus.clips, seed, fold)._asdict().items():
        speakers = speaker_names([corpus.clips[i] for i in numbers])
        rows.append([name, f"{len(numbers)} clips, {_range(speakers)}"])
    return "\n".join(align(rows))


def _range(names: list[str]) -> str:
    return f"{len(names)}: {printable(names[0])} to {printable(names[-1])}"


def _durations(paths: list[Path]) -> str:
    seconds = []
    for path in paths:
        try:
            with open_clip(path) as file:
                seconds.append(file.frames / file.samplerate)
        except (ValueError, OSError, RuntimeError):  # soundfile's errors are RuntimeErrors
            continue
    unreadable = f", {len(paths) - len(seconds)} files unreadable" if len(seconds) < len(paths) else ""
    if not seconds:
        return f"none{unreadable}"
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}, median {np.median(seconds):.2f}"
    return f"{sum(seconds):.0f} (a clip: {spread}){unreadable}"


def main(
    command: str,
    folder: Path | None,
    dataset: str,
    ratio: float,
    seed: int,
    data_dir: Path | None = None,
    fold: int | None = None,
) -> None:
    if command == "show":
        print(describe(data_dir, dataset, ratio, fold, seed))
        return
    clips = Corpus("", audiomnist_names(), None).take(ratio, seed).clips
    if command == "fetch":
        folder = folder or AUDIOMNIST_DIR
        print(f"{download.fetch(clips, folder)} clips fetched; {folder} holds the {len(clips)} that were asked for")
    elif folder is None:
        raise UserError("synthesize: name the folder to write, as in `python -m common.data synthesize data/synthetic`")
    else:
        synthetic.write_corpus(folder, clips)
        print(f"{folder} holds {len(clips)} clips of {SYNTHETIC_NAME}")


def run_command() -> None:
    """The command line of ``python -m common.data``."""
    parser = Parser(__doc__)
    commands = ("show", "fetch", "synthesize")
    parser.add_argument("command", nargs="?", choices=commands, default="show", help="what to do")
    parser.add_argument("folder", nargs="?", type=a_folder, metavar="DIR", help="folder to fetch into or to write")
    parser.add_settings(Settings(), ("data_dir", "dataset", "ratio", "seed", "fold"))
    run(main, parser)

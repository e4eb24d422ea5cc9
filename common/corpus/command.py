"""Look at the corpus, download it, or write a synthetic one.

python -m common.data                        show what is there: clips and speakers of each set
python -m common.data fetch [DIR]            download AudioMNIST (all of it, or the fraction of --ratio)
python -m common.data synthesize DIR         write the synthetic corpus as WAV files
"""

from pathlib import Path
from typing import Any

from common.corpus import SYNTHETIC_NAME, Corpus, audiomnist_names, source, speaker_names, split_clips, synthetic
from common.run import UserError, printable
from common.run.cli import Parser, Settings, a_path, run


def show(settings: Settings) -> None:
    """Print the sets as they are now; nothing is downloaded or cached."""
    folder = settings.data_dir
    if folder is None and settings.dataset != "synthetic":
        folder = source.AUDIOMNIST_DIR
        if not folder.is_dir():
            print(f"{folder} is not there. `python -m common.data fetch` downloads it; the tasks do so themselves.")
            return
    corpus = source.find_corpus(folder, settings.dataset, settings.ratio, settings.seed)
    print(f"{corpus.name}: {len(corpus.clips)} clips")
    for name, rows in split_clips(corpus.clips, settings.seed, settings.fold)._asdict().items():
        speakers = speaker_names([corpus.clips[i] for i in rows])
        print(printable(f"{name}: {len(rows)} clips, {len(speakers)} speakers from {speakers[0]} to {speakers[-1]}"))


def main(command: str, folder: Path | None, **flags: Any) -> None:
    settings = Settings(**flags)
    if command == "show":
        show(settings)
        return
    clips = Corpus("", audiomnist_names(), None).take(settings.ratio, settings.seed).clips
    if command == "fetch":
        folder = folder or source.AUDIOMNIST_DIR
        print(f"{source.fetch(clips, folder)} clips fetched; {folder} holds the {len(clips)} that were asked for")
    elif folder:
        synthetic.write_corpus(folder, clips)
        print(f"{folder} holds {len(clips)} clips of {SYNTHETIC_NAME}")
    else:
        raise UserError("synthesize: name the folder to write, as in `python -m common.data synthesize data/synthetic`")


def run_command() -> None:
    """The command line of ``python -m common.data``."""
    parser = Parser(__doc__)
    commands = ("show", "fetch", "synthesize")
    parser.add_argument("command", nargs="?", choices=commands, default="show", help="what to do")
    parser.add_argument("folder", nargs="?", type=a_path, metavar="DIR", help="folder to fetch into or to write")
    parser.add_settings(Settings(), ("data_dir", "dataset", "ratio", "seed", "fold"))
    run(main, parser)

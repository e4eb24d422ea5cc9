"""Which corpus a run uses: a folder of the user's, AudioMNIST (downloaded if need be), or synthetic speech."""

import sys
from pathlib import Path

from common.corpus import download
from common.corpus.clips import SYNTHETIC_NAME, Corpus, audiomnist_names, open_folder
from common.run.console import UserError

AUDIOMNIST_DIR = Path("data/AudioMNIST")


def find_corpus(data_dir: Path | None, dataset: str, ratio: float, seed: int) -> Corpus:
    """The clips of ``data_dir``, or of ``dataset`` where there is none, reduced to a fraction of ``ratio``.

    Args:
        dataset: "audiomnist": data/AudioMNIST if the user has filled it, else a download of the clips that ``ratio``
            needs. "synthetic": speech by espeak-ng. "auto": AudioMNIST, or else (announced) synthetic speech.

    Raises:
        UserError: no such folder, no clips in it, or no AudioMNIST where it was asked for by name.
    """
    if data_dir is not None:
        return open_folder(data_dir).take(ratio, seed)
    synthetic_speech = Corpus(SYNTHETIC_NAME, audiomnist_names(), None).take(ratio, seed)
    if dataset == "synthetic":
        return synthetic_speech
    # What the user put there is the corpus; a download holds only the clips that runs have needed so far.
    if AUDIOMNIST_DIR.is_dir() and any(AUDIOMNIST_DIR.iterdir()) and not download.is_managed(AUDIOMNIST_DIR):
        corpus = open_folder(AUDIOMNIST_DIR)
        if corpus.name == SYNTHETIC_NAME and dataset == "audiomnist":
            raise UserError(f"--dataset audiomnist: {AUDIOMNIST_DIR} holds synthetic speech; move it away")
        return corpus.take(ratio, seed)
    wanted = Corpus("AudioMNIST", audiomnist_names(), AUDIOMNIST_DIR / "data").take(ratio, seed)
    try:
        download.fetch(wanted.clips, AUDIOMNIST_DIR)
    except download.DownloadError as error:
        if dataset == "audiomnist":
            raise
        announcement = f"""
!!  AudioMNIST is not available: {error}
!!  This run uses SYNTHETIC SPEECH (espeak-ng) instead. Its numbers are not AudioMNIST numbers.
!!  With a copy of AudioMNIST: --data-dir DIR. To choose synthetic speech: --dataset synthetic.
"""
        print("!" * 100 + announcement + "!" * 100, file=sys.stderr)
        return synthetic_speech
    return wanted

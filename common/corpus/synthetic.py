"""A stand-in for AudioMNIST: English digits spoken by espeak-ng in sixty made-up voices, the same on every run.

``common.corpus.acoustics`` puts each speaker into a room, in front of a microphone and before some background sound.
"""

import ctypes
import functools
import io
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import soundfile

from common.corpus.acoustics import LOOP, Place
from common.corpus.clips import AUDIOMNIST_SPEAKERS, SYNTHETIC_MARKER, Clip
from common.run.console import UserError, progress_bar
from common.run.files import write_atomically

VERSION = "espeak-2"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CHATTER_WORDS = ("window", "morning", "people", "maybe", "under", "water", "again", "always", "could", "garden")
FEMALE = frozenset({"12", "26", "28", "36", "43", "47", "52", "56", "57", "58", "59", "60"})  # as in AudioMNIST

# Each variant with its median fundamental in Hz at espeak's middle pitch. Pitch flutter, roughness, breath and echo use
# counters and buffers inside espeak that nothing resets between words. Only these human-like variants have all of them
# at zero, so that a word does not depend on the words before it.
VARIANTS = {"Denis": 90, "Diogo": 95, "Henrique": 94, "Hugo": 95, "michel": 95, "miguel": 99, "Storm": 76}
# Scottish English is left out for the same reason: the beats of its rolled r follow one of those counters.
ACCENTS = ("en-us", "en", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc")

VOLUME = 50  # half of espeak's default, at which loud variants clip; clipping also turns down the words after it

# Constants of espeak's C interface. Without DO_NOT_EXIT it ends the process where its data is missing.
SYNCHRONOUS, DO_NOT_EXIT, BY_CHARACTER, UTF8 = 2, 0x8000, 1, 1
RATE, LOUDNESS, PITCH, RANGE = 1, 2, 3, 4


class Voice:
    """What distinguishes one speaker, "01" to "60", from another. Raises ValueError for any other name."""

    def __init__(self, speaker: str) -> None:
        female = speaker in FEMALE
        peers = [other for other in AUDIOMNIST_SPEAKERS if (other in FEMALE) == female]
        # Storm is too low to be raised to a woman's pitch.
        variants = [name for name in VARIANTS if not (female and name == "Storm")]
        # Each pass through the variants shifts the accents by one, so that no two peers share both.
        turn, index = divmod(peers.index(speaker), len(variants))
        self.name = f"{ACCENTS[(index + turn) % len(ACCENTS)]}+{variants[index]}"  # as espeak calls it
        self.natural = VARIANTS[variants[index]]  # fundamental of the variant, Hz
        # Powers of this number, multiplied by 1, 2, 3, ..., fill a four-dimensional cube evenly (modulo 1).
        high, wide, fast, short = (int(speaker) * 1.1673039782614187**-power % 1 for power in range(1, 5))
        lowest, highest = (157, 205) if female else (80, 153)
        # Fundamental, Hz; with a narrow range or a high pitch the sound is up to a fifth lower.
        self.pitch = round(lowest * (highest / lowest) ** high, 1)
        self.range = round(40 + 60 * wide)  # width of the pitch movement, percent of the variant's own
        self.rate = round(92 + 53 * fast, 1)  # words a minute, as espeak counts them
        # Factor on all formant frequencies; a shorter vocal tract has a larger one.
        self.tract = round((1.07 if female else 0.90) + (0.10 if female else 0.15) * short, 3)


def speak(speaker: str, digit: int, repetition: int) -> tuple[np.ndarray, int]:
    """Say ``digit`` once; the arguments alone decide every sample. Not safe in several threads at a time.

    Returns:
        float32 mono samples [frames] in [-1, 1], 0.3 to 1 s long, and the sample rate in Hz.
    """
    person, place = Voice(speaker), _place(speaker)
    rng = np.random.default_rng([int(speaker), digit, repetition])
    # Nobody says a word twice in the same way: formants, pitch, tempo and melody differ from clip to clip.
    tract = person.tract * rng.uniform(0.955, 1.045)
    # Scaling the frequencies raises pitch and tempo too, so espeak is asked for less of both.
    hertz = person.pitch * 2 ** rng.uniform(-0.3, 0.3) / tract
    rate = person.rate * rng.uniform(0.85, 1.15) / tract
    pitch_range = person.range * rng.uniform(0.6, 1.4)
    # On espeak's scale of 0 to 100, 50 leaves the variant as it is and 50 more or less is an octave.
    pitch = min(50 + 50 * math.log2(hertz / person.natural), 100)
    clip = place.record(_say(WORDS[digit], person.name, rate, pitch, pitch_range), tract, rng)
    clip *= 10 ** (-rng.uniform(2, 16) / 20) / np.abs(clip).max()
    return clip, place.sample_rate


# A place takes the time of several clips to make and 1 MB to keep. Clips come sorted by speaker, so a few are enough.
@functools.lru_cache(maxsize=8)
def _place(speaker: str) -> Place:
    return Place(int(speaker), _library()[1], _chatter())


@functools.cache
def _chatter() -> np.ndarray:
    """The spectrum of seven voices that talk at once, [LOOP // 2 + 1]; the speakers hear it from where they are."""
    rng = np.random.default_rng(0)
    chatter = np.zeros(LOOP)
    for accent, variant in zip(ACCENTS, VARIANTS, strict=True):
        words = _say(" ".join(rng.permutation(CHATTER_WORDS)), f"{accent}+{variant}", 150, rng.uniform(30, 90), 60)
        chatter += np.resize(words, LOOP) / np.sqrt(np.mean(words**2))
    return np.fft.rfft(chatter)


def _say(text: str, voice: str, rate: float, pitch: float, pitch_range: float) -> np.ndarray:
    """Let espeak say ``text`` without the silence around it: float32 [samples]. The numbers are on espeak's scales."""
    library, _ = _library()
    _call(library.espeak_SetVoiceByName, voice.encode())
    for parameter, value in ((RATE, rate), (LOUDNESS, VOLUME), (PITCH, pitch), (RANGE, pitch_range)):
        _call(library.espeak_SetParameter, parameter, round(value), 0)
    _received.clear()
    content = text.encode()
    _call(library.espeak_Synth, content, ctypes.c_size_t(len(content) + 1), 0, BY_CHARACTER, 0, UTF8, None, None)
    samples = np.concatenate(_received).astype(np.float32) / 32768
    sounding = np.flatnonzero(samples)  # espeak's silence is exactly zero
    return samples[sounding[0] : sounding[-1] + 1]


def write_corpus(root: Path, clips: Iterable[Clip]) -> None:
    """Speak ``clips`` into ``root/data/SS/D_SS_R.wav``, 16-bit mono.

    Clips that are there already stay as they are, so an interrupted run can be continued.

    Raises:
        UserError: there is no espeak-ng, or ``root`` holds other files.
    """
    _library()  # nothing is written without espeak-ng
    if any(root.glob("[!.]*")) and not (root / SYNTHETIC_MARKER).exists():
        raise UserError(f"{root} holds other files, which synthetic speech must not mix with; name a new folder")
    missing = [clip for clip in clips if not (root / "data" / clip.path).exists()]
    # The marker comes first: no synthetic clip may ever lie in a folder that does not say so.
    marker = f"Not AudioMNIST but synthetic speech by espeak-ng ({VERSION}). It says nothing about human speakers.\n"
    write_atomically(root / SYNTHETIC_MARKER, marker)
    with progress_bar("Speaking", len(missing), "clips") as progress:
        for clip in missing:
            content = io.BytesIO()
            soundfile.write(content, *speak(*clip[:3]), format="WAV", subtype="PCM_16")
            write_atomically(root / "data" / clip.path, content.getvalue())
            progress.update()


_received: list[np.ndarray] = []


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
def _receive(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
    if samples and count > 0:
        _received.append(np.ctypeslib.as_array(samples, (count,)).copy())  # espeak reuses the buffer
    return 0


@functools.cache
def _library() -> tuple[ctypes.CDLL, int]:
    """The initialised espeak-ng library of this process, and its sample rate. Raises UserError if there is none."""
    try:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path()
        sample_rate = library.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(data), DO_NOT_EXIT)
        if sample_rate <= 0:
            raise OSError(f"espeak-ng cannot read {data}")
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: the loader misses its data folder
        raise UserError(f"synthetic speech needs espeakng-loader ({error}): run `uv sync --group synthetic`") from error
    library.espeak_SetSynthCallback(_receive)
    return library, sample_rate


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        raise RuntimeError(f"espeak-ng: {function.__name__}{arguments} failed")

"""A stand-in for AudioMNIST: English digits spoken by espeak-ng in sixty made-up voices, the same on every run.

Each speaker is recorded in rooms, over a microphone and before background noise of his or her own. Without them the
voices differ so little that a linear probe tells the digits apart on filters that were never trained. The levels were
chosen on a tenth of the corpus, so that trained encoders know the digits much better than untrained ones: on this
corpus that is no finding. Rooms and microphones are made like those of the test conditions, which are easier for that.
"""

import ctypes
import functools
import math
import os
import threading
from collections.abc import Callable

import numpy as np

from common.audio import SAMPLE_RATE, SAMPLES
from common.conditions import mix, random_microphone, random_room
from common.corpus import AUDIOMNIST_SPEAKERS
from common.run import UserError

VERSION = "espeak-3"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FEMALE = frozenset({"12", "26", "28", "36", "43", "47", "52", "56", "57", "58", "59", "60"})  # as in AudioMNIST

# Each variant with its median fundamental in Hz at espeak's middle pitch. Pitch flutter, roughness, breath and echo use
# counters and buffers inside espeak that nothing resets between words. Only these human-like variants have all of them
# at zero, so that a word does not depend on the words before it.
VARIANTS = {"Denis": 90, "Diogo": 95, "Henrique": 94, "Hugo": 95, "michel": 95, "miguel": 99, "Storm": 76}
# Scottish English is left out for the same reason: the beats of its rolled r follow one of those counters.
ACCENTS = ("en-us", "en", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc")

VOLUME = 50  # half of espeak's default, at which loud variants clip; clipping also turns down the words after it

MICROPHONE = 0.5  # power of the gains of a random microphone
ROOMS = 3  # in which a speaker is recorded
REVERBERATION = (0.15, 0.35)  # seconds
SNR_DB = (6.0, 12.0)  # of a speaker's recordings, on average
SNR_CHANGE_DB = 3.0  # standard deviation from clip to clip
NOISE_SLOPE = (-0.9, 0.0)  # exponent of amplitude over frequency

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
    """Say ``digit`` once; the arguments alone decide every sample, in any thread.

    Returns:
        float32 mono samples [frames] in [-1, 1], 0.3 to 1 s long, and the sample rate in Hz.
    """
    from scipy.signal import resample  # slow to import

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
    word, espeak_rate = _say(WORDS[digit], person.name, rate, pitch, pitch_range)
    word = resample(word, round(len(word) * SAMPLE_RATE / espeak_rate / tract))[:SAMPLES]
    clip = place.record(word, rng)
    return (clip * 10 ** (-rng.uniform(2, 16) / 20) / np.abs(clip).max()).astype(np.float32), SAMPLE_RATE


class Place:
    """Where and with what one speaker is recorded."""

    def __init__(self, speaker: str) -> None:
        rng = np.random.default_rng([2, int(speaker)])
        seconds = rng.uniform(*REVERBERATION)
        self.rooms = [np.fft.rfft(random_room(rng, seconds), 2 * SAMPLES) for _ in range(ROOMS)]
        self.microphone = random_microphone(rng, 2 * SAMPLES) ** MICROPHONE
        self.snr_db, self.slope = rng.uniform(*SNR_DB), rng.uniform(*NOISE_SLOPE)

    def record(self, word: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Record a word [samples] in one of the rooms, with some quiet before and after: [frames], at most 1 s."""
        before, after = (int(share * (SAMPLES - len(word))) for share in rng.uniform(0.03, 0.5, 2))
        spectrum = np.fft.rfft(np.pad(word, (before, 0)), 2 * SAMPLES) * self.rooms[rng.integers(ROOMS)]
        noise = np.fft.rfft(rng.standard_normal(2 * SAMPLES))
        noise *= np.fft.rfftfreq(2 * SAMPLES, 1 / SAMPLE_RATE).clip(50) ** self.slope
        sounds = np.fft.irfft(np.stack([spectrum, noise]) * self.microphone)[:, : before + len(word) + after]
        return mix(sounds[0], sounds[1], rng.normal(self.snr_db, SNR_CHANGE_DB))


# A place takes the time of several clips to make. Clips come sorted by speaker, so a few are enough.
_place = functools.lru_cache(maxsize=8)(Place)


def _say(text: str, voice: str, rate: float, pitch: float, pitch_range: float) -> tuple[np.ndarray, int]:
    """Let espeak say ``text`` without silence around it: float32 [samples], rate in Hz. Numbers on espeak's scales."""
    with _lock:
        library, sample_rate = _library()
        _call(library.espeak_SetVoiceByName, voice.encode())
        for parameter, value in ((RATE, rate), (LOUDNESS, VOLUME), (PITCH, pitch), (RANGE, pitch_range)):
            _call(library.espeak_SetParameter, parameter, round(value), 0)
        _received.clear()
        content = text.encode()
        _call(library.espeak_Synth, content, ctypes.c_size_t(len(content) + 1), 0, BY_CHARACTER, 0, UTF8, None, None)
        samples = np.concatenate(_received).astype(np.float32) / 32768
    sounding = np.flatnonzero(samples)  # espeak's silence is exactly zero
    return samples[sounding[0] : sounding[-1] + 1], sample_rate


_lock = threading.Lock()  # espeak is not safe in several threads
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

"""Conditions that test clips are heard under: noise, other voices, rooms, the band of a telephone, microphones.

They are made by other methods than in training (``common.augmentation``): the voices are those of test speakers, rooms
come from the image-source method, the telephone is a filter in time. Only white noise is one of the colours of
training's noise, and microphones are smooth curves as in training, though of other shapes.
Axes: N samples at 16 kHz, K frequencies.
"""

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.audio import SAMPLE_RATE

if TYPE_CHECKING:  # not when it runs: synthetic speech, which common.data can read, needs the rooms of this module
    from common.data import Batch, Examples

Condition = Callable[["Batch"], "Batch"]

VOICES, ROOMS = 6, 16  # of babble, and of a reverberation time
TELEPHONE = (300.0, 3400.0)  # Hz
SOUND_SPEED = 343.0  # m/s
FRAME = 400  # samples, 25 ms
ACTIVE = 1e-3  # frames within 30 dB of the loudest one are speech


def conditions(clips: "Examples") -> dict[str, Condition]:
    """The conditions by the keys that their results have, such as ``white_20db``.

    Each draws anew for every clip, seeded by how many it has changed: models that get fresh conditions and the clips in
    the same order are tested on the same sounds, whatever the size of the batches.
    """
    noise = {f"white_{snr}db": functools.partial(add_white_noise, snr_db=snr) for snr in (20, 10, 0)}
    babble = {f"babble_{snr}db": functools.partial(add_babble, clips=clips, snr_db=snr) for snr in (20, 10)}
    rooms = {f"reverb_{1000 * s:.0f}ms": functools.partial(reverberate, seconds=s) for s in (0.3, 0.6)}
    changes = noise | babble | rooms | {"telephone": telephone}
    return {key: _condition(change) for key, change in changes.items()}


def other_microphones() -> Condition:
    """The condition of task 4: each clip over a microphone of its own."""
    return _condition(change_microphone)


def _condition(change: Callable[..., np.ndarray]) -> Condition:
    numbers = itertools.count(2_000_000)  # seeds of the clips; not one of a training

    def apply(batch: "Batch") -> "Batch":
        changed = []
        for wave, speaker in zip(batch.waveform.cpu().numpy(), batch.speaker.tolist(), strict=True):
            samples = change(wave / 32768, speaker=speaker, random=np.random.default_rng(next(numbers)))
            # As loud as a cache file: the encoders do not hear loudness, but int16 would clip what is added.
            changed.append(samples * (32000 / max(np.abs(samples).max(), 1e-9)))
        waveform = torch.from_numpy(np.stack(changed).round().astype(np.int16))
        return batch._replace(waveform=waveform.to(batch.waveform.device))

    return apply


def add_white_noise(speech: np.ndarray, snr_db: float, random: np.random.Generator, **_: object) -> np.ndarray:
    """White noise, ``snr_db`` below the speech: [N]."""
    return mix(speech, random.standard_normal(len(speech)), snr_db)


def add_babble(
    speech: np.ndarray, clips: "Examples", snr_db: float, speaker: int, random: np.random.Generator
) -> np.ndarray:
    """Six random clips at once, of other speakers if there are any, at ``snr_db`` below the speech: [N]."""
    others = np.flatnonzero(clips.speaker.numpy() != speaker)
    picked = random.choice(others if len(others) else len(clips), VOICES)
    voices = clips.__getitems__(picked.tolist())[0].cpu().numpy()
    late = [np.roll(voice, random.integers(len(voice))) for voice in voices]  # nobody waits for the others
    return mix(speech, np.sum(late, axis=0, dtype=float), snr_db)


def reverberate(speech: np.ndarray, seconds: float, random: np.random.Generator, **_: object) -> np.ndarray:
    """In one of 16 rooms with the reverberation time ``seconds``: [N]."""
    from scipy.signal import fftconvolve  # slow to import

    return fftconvolve(speech, _rooms(seconds)[random.integers(ROOMS)])[: len(speech)]


@functools.cache
def _rooms(seconds: float) -> list[np.ndarray]:
    random = np.random.default_rng(round(1000 * seconds))
    return [random_room(random, seconds) for _ in range(ROOMS)]


def telephone(speech: np.ndarray, **_: object) -> np.ndarray:
    """The band of a telephone, 300 to 3400 Hz, without a codec: [N]."""
    from scipy.signal import sosfilt  # slow to import

    return sosfilt(_telephone_filter(), speech)


@functools.cache  # designing it takes longer than filtering a clip
def _telephone_filter() -> np.ndarray:
    from scipy.signal import butter

    return butter(6, TELEPHONE, "bandpass", fs=SAMPLE_RATE, output="sos")


def change_microphone(speech: np.ndarray, random: np.random.Generator, **_: object) -> np.ndarray:
    """Over a random microphone, with white noise 10 to 30 dB below the speech: [N]."""
    gains = random_microphone(random, len(speech))  # [K]
    changed = np.fft.irfft(np.fft.rfft(speech) * gains, n=len(speech))
    return mix(changed, random.standard_normal(len(speech)), random.uniform(10, 30))


def mix(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Speech with noise, whose active power is ``snr_db`` below that of the speech: [N], [N] -> [N]."""
    return speech + noise * np.sqrt(active_power(speech) / max(active_power(noise), 1e-12) * 10 ** (-snr_db / 10))


def active_power(wave: np.ndarray) -> float:
    """Mean power of the frames of a clip [N] that are at most 30 dB below its loudest frame."""
    power = (wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME) ** 2).mean(axis=1)  # [frames]
    return power[power >= ACTIVE * power.max()].mean()


def random_microphone(random: np.random.Generator, samples: int) -> np.ndarray:
    """Gains of a random microphone, four resonances and a tilt, for the spectrum of a clip [samples]: [K]."""
    octave = np.log2(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE).clip(40) / 1000)  # [K], from 1 kHz
    centre, width = random.uniform(-3.5, 3.0, (4, 1)), random.uniform(0.3, 1.2, (4, 1))
    resonances = 5 * random.standard_normal((4, 1)) * np.exp(-0.5 * ((octave - centre) / width) ** 2)  # dB
    return 10 ** ((resonances.sum(axis=0) + 2 * random.standard_normal() * octave) / 20)


def random_room(random: np.random.Generator, seconds: float) -> np.ndarray:
    """Impulse response of a room of random size, with talker and listener somewhere in it: see ``room_response``."""
    size = random.uniform([3.0, 2.5, 2.3], [8.0, 6.0, 3.5])  # metres
    listener = size * random.uniform(0.3, 0.7, 3)
    direction = random.standard_normal(3)
    talker = listener + direction / np.linalg.norm(direction) * random.uniform(0.5, 1.5)
    return room_response(seconds, size, talker.clip(0.2, size - 0.2), listener)


def room_response(seconds: float, size: np.ndarray, talker: np.ndarray, listener: np.ndarray) -> np.ndarray:
    """Impulse response of a box-shaped room from the mirror images of the talker in its walls: [taps].

    Source: Allen and Berkley, "Image method for efficiently simulating small-room acoustics", JASA 65, 1979. The
    reflection factor is negative, as Lehmann and Johansson advise (JASA 124, 2008), which avoids an offset.

    Args:
        seconds: reverberation time (60 dB); the absorption of the walls follows by Eyring's formula.
        size: of the room, [3], metres; ``talker`` and ``listener`` are positions in it.
    """
    surface = 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    # Sound along the longest axis meets walls more rarely than the formula assumes: decays are a quarter longer.
    reflection = -np.exp(-0.5 * 0.161 * size.prod() / (surface * 0.8 * seconds))
    reach = seconds * SOUND_SPEED  # metres
    along, bounces = [], []  # for each axis: distances of the images from the listener, and their reflections
    for length, source, ear in zip(size, talker, listener, strict=True):
        orders = 2 * np.arange(-int(reach / length / 2) - 1, int(reach / length / 2) + 2)
        along.append(np.concatenate([orders * length + source, orders * length - source]) - ear)
        bounces.append(np.abs(np.concatenate([orders, orders - 1])))
    x, y, z = np.ix_(*(part**2 for part in along))
    distance = np.sqrt(x + y + z)  # [images along x, y, z]
    i, j, k = np.ix_(*bounces)
    near = distance < reach
    distance, count = distance[near], (i + j + k)[near]
    delay = ((distance - distance.min()) / SOUND_SPEED * SAMPLE_RATE).round().astype(int)
    taps = round(seconds * SAMPLE_RATE)
    response = np.bincount(delay, reflection**count / distance, minlength=taps)
    return response[:taps]

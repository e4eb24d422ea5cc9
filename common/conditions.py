"""Conditions that test clips are heard under: noise, other voices, rooms, telephone, microphones.

Rooms and voices are made by other methods than in training's augmentation (``common.augmentation``): voices are those
of test speakers, rooms come from the image-source method, the telephone is a filter in time. White noise is one of the
colours of training's noise, and another microphone is a smooth random curve as training's equaliser is, though of other
shapes. All random numbers have a seed of their own. Axes: B batch, N samples.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
import torch

from common.audio import SAMPLE_RATE
from common.batches import Batch, Examples

Condition = Callable[[Batch], Batch]

VOICES = 6  # of babble
ROOMS = 16  # different ones in a condition
SOUND_SPEED = 343.0  # m/s
TELEPHONE = (300.0, 3400.0)  # Hz
FRAME = 400  # samples, 25 ms
ACTIVE = 1e-3  # frames within 30 dB of the loudest one are speech


def conditions(clips: Examples) -> dict[str, Condition]:
    """The conditions by the keys that their results have, such as ``white_20db``.

    Each counts the clips that it gets and draws anew for each. So every model is tested on the same sounds, whatever
    the size of the batches, if each gets fresh conditions and the batches of ``clips`` in order.
    """
    noise = {f"white_{snr}db": functools.partial(add_white_noise, snr_db=snr) for snr in (20, 10, 0)}
    babble = {f"babble_{snr}db": functools.partial(add_babble, clips=clips, snr_db=snr) for snr in (20, 10)}
    rooms = {f"reverb_{1000 * s:.0f}ms": functools.partial(reverberate, seconds=s) for s in (0.3, 0.6)}
    changes = noise | babble | rooms | {"telephone": telephone}
    return {key: _condition(change) for key, change in changes.items()}


def other_microphones() -> Condition:
    """Each clip over a microphone of its own, see ``change_microphone``."""
    return _condition(change_microphone)


def _condition(change: Callable[..., np.ndarray]) -> Condition:
    numbers = itertools.count(2_000_000)  # seeds of the clips; not one of a training

    def apply(batch: Batch) -> Batch:
        speech, speaker = batch.waveform.cpu().numpy() / 32768, batch.speaker.cpu().numpy()
        randoms = [np.random.default_rng(next(numbers)) for _ in speech]
        parts = zip(speech[:, None], speaker[:, None], randoms, strict=True)
        samples = np.concatenate([change(clip, speaker=who, random=random) for clip, who, random in parts])  # [B, N]
        # As loud as a cache file: the encoders do not hear loudness, but int16 would clip what is added.
        samples *= 32000 / np.abs(samples).max(axis=1, keepdims=True).clip(min=1e-9)
        return batch._replace(waveform=torch.from_numpy(samples.round().astype(np.int16)).to(batch.waveform.device))

    return apply


def add_white_noise(speech: np.ndarray, snr_db: float, random: np.random.Generator, **_: object) -> np.ndarray:
    """White noise at ``snr_db`` below the speech: [B, N]."""
    return _mix(speech, random.standard_normal(speech.shape), snr_db)


def add_babble(
    speech: np.ndarray, clips: Examples, snr_db: float, speaker: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Six random clips at once, of other speakers if there are any, at ``snr_db`` below the speech: [B, N]."""
    babble = np.zeros(speech.shape)
    for row, own in enumerate(speaker):
        others = np.flatnonzero(clips.speaker.numpy() != own)
        picked = random.choice(others if len(others) else len(clips), VOICES)
        for voice in clips.__getitems__(picked.tolist())[0].cpu().numpy():
            babble[row] += np.roll(voice, random.integers(len(voice)))  # nobody waits for the others
    return _mix(speech, babble, snr_db)


def reverberate(speech: np.ndarray, seconds: float, random: np.random.Generator, **_: object) -> np.ndarray:
    """Each clip in one of 16 rooms with the reverberation time ``seconds``: [B, N]."""
    from scipy.signal import fftconvolve  # slow to import

    rooms = room_responses(seconds)
    clips, size = speech.shape
    return fftconvolve(speech, rooms[random.integers(len(rooms), size=clips)], axes=1)[:, :size]


def telephone(speech: np.ndarray, **_: object) -> np.ndarray:
    """The band of a telephone, 300 to 3400 Hz: [B, N]."""
    from scipy.signal import sosfilt  # slow to import

    return sosfilt(_telephone_filter(), speech, axis=1)


@functools.cache  # designing it takes longer than filtering a clip
def _telephone_filter() -> np.ndarray:
    from scipy.signal import butter

    return butter(6, TELEPHONE, "bandpass", fs=SAMPLE_RATE, output="sos")


def change_microphone(speech: np.ndarray, random: np.random.Generator, **_: object) -> np.ndarray:
    """Each clip with resonances, a tilt, and white noise of its own, 10 to 30 dB below the speech: [B, N]."""
    clips, size = speech.shape
    octave = np.log2(np.fft.rfftfreq(size, 1 / SAMPLE_RATE).clip(40) / 1000)  # [frequencies], from 1 kHz
    centre, width = random.uniform(-3.5, 3.0, (clips, 4, 1)), random.uniform(0.3, 1.2, (clips, 4, 1))
    resonances = 5 * random.standard_normal((clips, 4, 1)) * np.exp(-0.5 * ((octave - centre) / width) ** 2)  # dB
    gains = resonances.sum(axis=1) + 2 * random.standard_normal((clips, 1)) * octave  # [B, frequencies], dB
    changed = np.fft.irfft(np.fft.rfft(speech) * 10 ** (gains / 20), n=size)
    return _mix(changed, random.standard_normal(speech.shape), random.uniform(10, 30, clips))


def _mix(speech: np.ndarray, noise: np.ndarray, snr_db: float | np.ndarray) -> np.ndarray:
    gain = np.sqrt(active_power(speech) / active_power(noise).clip(min=1e-12) * 10 ** (-snr_db / 10))  # [B]
    return speech + gain[:, None] * noise


def active_power(wave: np.ndarray) -> np.ndarray:
    """Mean power of the frames of each clip that are at most 30 dB below its loudest frame: [B, N] -> [B]."""
    frames = wave[:, : wave.shape[1] // FRAME * FRAME].reshape(len(wave), -1, FRAME)
    power = (frames**2).mean(axis=2)  # [B, frames]
    active = power >= ACTIVE * power.max(axis=1, keepdims=True)
    return (power * active).sum(axis=1) / active.sum(axis=1)


@functools.cache
def room_responses(seconds: float) -> np.ndarray:
    """Impulse responses of 16 rooms of different sizes: [16, taps]. The direct sound is the first tap."""
    random = np.random.default_rng(round(1000 * seconds))
    return np.stack([room_response(seconds, *_random_room(random)) for _ in range(ROOMS)])


def _random_room(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = random.uniform([3.0, 2.5, 2.3], [8.0, 6.0, 3.5])  # metres
    listener = size * random.uniform(0.3, 0.7, 3)
    direction = random.standard_normal(3)
    talker = listener + direction / np.linalg.norm(direction) * random.uniform(0.5, 1.5)
    return size, talker.clip(0.2, size - 0.2), listener


def room_response(seconds: float, size: np.ndarray, talker: np.ndarray, listener: np.ndarray) -> np.ndarray:
    """Impulse response of a box-shaped room from the mirror images of the talker in its walls: [taps].

    Args:
        seconds: reverberation time (60 dB); the absorption of the walls follows by Eyring's formula.
        size: of the room, [3], metres; ``talker`` and ``listener`` are positions in it.

    Source:
        Allen and Berkley, "Image method for efficiently simulating small-room acoustics", JASA 65, 1979. The
        reflection factor is negative, as Lehmann and Johansson advise (JASA 124, 2008), which avoids an offset.
    """
    surface = 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    # Sound along the longest axis meets walls more rarely than the formula assumes: decays are a quarter longer.
    reflection = -np.exp(-0.5 * 0.161 * size.prod() / (surface * 0.8 * seconds))
    reach = seconds * SOUND_SPEED  # metres
    along, bounces = [], []  # for each axis: distances of the images from the listener, and their reflections
    for axis in range(3):
        orders = np.arange(-int(reach / size[axis] / 2) - 1, int(reach / size[axis] / 2) + 2)
        same, mirrored = 2 * orders * size[axis] + talker[axis], 2 * orders * size[axis] - talker[axis]
        along.append(np.concatenate([same, mirrored]) - listener[axis])
        bounces.append(np.concatenate([np.abs(2 * orders), np.abs(2 * orders - 1)]))
    x, y, z = np.ix_(*(part**2 for part in along))
    distance = np.sqrt(x + y + z)  # [images along x, y, z]
    i, j, k = np.ix_(*bounces)
    near = distance < reach
    distance, count = distance[near], (i + j + k)[near]
    delay = ((distance - distance.min()) / SOUND_SPEED * SAMPLE_RATE).round().astype(int)
    response = np.bincount(delay, reflection**count / distance)
    return np.pad(response, (0, max(0, round(seconds * SAMPLE_RATE) - len(response))))[: round(seconds * SAMPLE_RATE)]

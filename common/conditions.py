"""Conditions that test clips are heard under: noise, other voices, rooms, telephone, microphones.

Rooms and voices are made by other methods than in training's augmentation (``common.augmentation``): voices are those
of test speakers, rooms come from the image-source method, the telephone is a filter in time. White noise is one of the
colours of training's noise, and another microphone is a smooth random curve as training's equaliser is, though of other
shapes. All random numbers have a seed of their own. Axes: N samples.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
import torch

from common.acoustics import mix, random_microphone, random_room
from common.audio import SAMPLE_RATE
from common.batches import Batch, Examples

Condition = Callable[[Batch], Batch]

VOICES = 6  # of babble
ROOMS = 16  # different ones in a condition
TELEPHONE = (300.0, 3400.0)  # Hz


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
        changed = []
        for wave, speaker in zip(batch.waveform.cpu().numpy(), batch.speaker.tolist(), strict=True):
            samples = change(wave / 32768, speaker=speaker, random=np.random.default_rng(next(numbers)))
            # As loud as a cache file: the encoders do not hear loudness, but int16 would clip what is added.
            changed.append(samples * (32000 / max(np.abs(samples).max(), 1e-9)))
        waveform = torch.from_numpy(np.stack(changed).round().astype(np.int16))
        return batch._replace(waveform=waveform.to(batch.waveform.device))

    return apply


def add_white_noise(speech: np.ndarray, snr_db: float, random: np.random.Generator, **_: object) -> np.ndarray:
    """White noise at ``snr_db`` below the speech: [N]."""
    return mix(speech, random.standard_normal(len(speech)), snr_db)


def add_babble(
    speech: np.ndarray, clips: Examples, snr_db: float, speaker: int, random: np.random.Generator
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
    """The band of a telephone, 300 to 3400 Hz: [N]."""
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

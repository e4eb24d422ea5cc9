"""What comes between a voice and its recording: rooms, microphones and noise, for one clip at a time, in NumPy.

Training augments by other methods, for whole batches (``common.augmentation``). Axes: N samples at 16 kHz.
"""

import numpy as np

from common.audio import SAMPLE_RATE

SOUND_SPEED = 343.0  # m/s
FRAME = 400  # samples, 25 ms
ACTIVE = 1e-3  # frames within 30 dB of the loudest one are speech


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

"""What turns a synthetic voice into a recording: a room, a microphone and background sound for each speaker.

Without them the sixty made-up people differ by little but their voices, and a linear probe tells the digits apart on
filters that were never trained. No random numbers are shared with the training augmentation, though its coloured noise
is made in a similar way. The ranges below were chosen on a tenth of the corpus, so that trained encoders know the
digits much better than untrained ones at noise levels of ordinary rooms: on this corpus that is no finding.
"""

import math

import numpy as np

SIZE = 24_576  # samples of a recording before it is cut: 1.1 s at espeak's 22,050 Hz, a length that transforms quickly
LOOP = 2 * SIZE  # samples of background sound, of which each clip takes a random stretch
BINS = SIZE // 2 + 1  # of the spectrum of a recording
SOUND = 343.0  # metres a second

SPOTS = 8  # where in the room a speaker may sit from clip to clip
ROOM = (2.5, 6.0)  # length and width, m
HEIGHT = (2.2, 3.0)  # m
DISTANCE = (0.25, 1.0)  # from mouth to microphone, m
MOVEMENT = 0.5  # standard deviation of the logarithm of the distance, and of the direction in radians
WALL = (0.45, 0.85)  # share of the sound pressure that a wall reflects
TABLE = (0.5, 0.95)  # the same of the table below the microphone; its early echo colours the voice most

HIGH_PASS = (60.0, 400.0)  # Hz
ROLL_OFF = (2000.0, 8000.0)  # Hz
CUT_OFF_Q = (0.5, 1.0)
RESONANCE = (300.0, 5000.0)  # Hz
RESONANCE_Q = (0.25, 0.7)
RESONANCE_DB = (-15.0, 15.0)

SNR_DB = (12.0, 23.0)  # of a speaker's recordings, on average
SNR_CHANGE_DB = 4.0  # standard deviation from clip to clip
CHATTER = (0.0, 0.8)  # share of a speaker's background power
CHATTER_CHANGE = 0.3  # standard deviation from clip to clip
FAN_SLOPE = (-1.2, 0.0)  # exponent of amplitude over frequency
HUM = (0.0, 1.0)  # power, where that of the fan is 1
HUM_HARMONICS = 8

EFFORT = 0.5  # largest exponent of amplitude over frequency by which a clip is brighter or duller than others
EMPHASIS_DB = 5.0  # by at most this a clip begins softer or louder than its middle, and ends the other way


class Place:
    """Where and with what one speaker is recorded: the same in all clips but for the spot, the levels and the noise.

    Args:
        seed: decides everything; speaker 01 has 1.
        sample_rate: Hz.
        chatter: spectrum of distant voices, [LOOP // 2 + 1].
    """

    def __init__(self, seed: int, sample_rate: int, chatter: np.ndarray) -> None:
        rng = np.random.default_rng([2, seed])
        self.sample_rate = sample_rate
        microphone = draw_microphone(rng, np.fft.rfftfreq(LOOP, 1 / sample_rate))  # [LOOP // 2 + 1]
        paths = np.fft.rfft(draw_paths(rng, sample_rate))  # [SPOTS, BINS]
        self.responses = (paths * microphone[::2]).astype(np.complex64)  # of room and microphone
        self.snr_db = rng.uniform(*SNR_DB)
        self.chatter_share = rng.uniform(*CHATTER)
        self.steady = unit_loop(draw_steady(rng, sample_rate) * microphone)  # [LOOP]
        self.chatter = np.roll(unit_loop(chatter * microphone), rng.integers(LOOP))  # [LOOP]
        frequency = np.fft.rfftfreq(SIZE, 1 / sample_rate).clip(min=50)
        self.octaves = np.log(frequency / 1000).astype(np.float32)  # natural logarithm, [BINS]

    def record(self, word: np.ndarray, tract: float, rng: np.random.Generator) -> np.ndarray:
        """Record a word [samples] (float32) with all frequencies multiplied by ``tract``: [frames], at most 1 s."""
        # More or fewer samples at the old rate scale all frequencies. The length is a multiple of 64, because the
        # transform of one with a large prime factor takes six times as long.
        spectrum = np.fft.rfft(word, round(SIZE * tract / 64) * 64)[:BINS]
        spectrum *= self.responses[rng.integers(SPOTS), : len(spectrum)]
        spectrum *= np.exp(self.octaves[: len(spectrum)] * np.float32(rng.uniform(-EFFORT, EFFORT)))
        wave = np.fft.irfft(spectrum, SIZE)
        size = min(round(len(word) / tract), self.sample_rate)
        before, after = (int(share * (self.sample_rate - size)) for share in rng.uniform(0.03, 0.5, 2))
        clip = np.pad(wave[: size + after], (before, 0))
        emphasis = rng.uniform(-EMPHASIS_DB, EMPHASIS_DB) / 20 * math.log(10)
        clip *= np.exp(np.linspace(-emphasis, emphasis, len(clip), dtype=np.float32))
        level = np.sqrt(np.mean(clip[before : before + size] ** 2))
        level *= 10 ** (-rng.normal(self.snr_db, SNR_CHANGE_DB) / 20)
        share = np.clip(rng.normal(self.chatter_share, CHATTER_CHANGE), 0, 1)
        for loop, part in ((self.chatter, share), (self.steady, 1 - share)):
            start = rng.integers(LOOP - len(clip))
            clip += loop[start : start + len(clip)] * np.float32(level * np.sqrt(part))
        return clip


def draw_microphone(rng: np.random.Generator, frequency: np.ndarray) -> np.ndarray:
    """The response at frequencies [n] in Hz, complex64 [n]: a high-pass, a roll-off and two broad resonances.

    Each is an analog filter of second order, with s = j f / f0.
    """
    high, roll, *peaks = (
        1j * frequency.astype(np.float32) / math.exp(rng.uniform(*np.log(hertz)))
        for hertz in (HIGH_PASS, ROLL_OFF, RESONANCE, RESONANCE)
    )
    response = high**2 / (high**2 + high / rng.uniform(*CUT_OFF_Q) + 1)
    response /= roll**2 + roll / rng.uniform(*CUT_OFF_Q) + 1
    for s in peaks:
        width, gain = 1 / rng.uniform(*RESONANCE_Q), 10 ** (rng.uniform(*RESONANCE_DB) / 40)
        response *= (s**2 + s * width * gain + 1) / (s**2 + s * width / gain + 1)
    return response


def draw_paths(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Impulse responses from some spots of one room to its microphone, [SPOTS, SIZE], the direct sound at 0 with 1.

    A box has a mirror image of the mouth behind each wall, and images of these (Allen and Berkley, JASA 65, 1979). Up
    to two reflections are kept, and the one from the table.
    """
    size = np.array([*rng.uniform(*ROOM, 2), rng.uniform(*HEIGHT)])
    microphone = size * rng.uniform(0.3, 0.6, 3)
    usual_distance, usual_direction = rng.uniform(*DISTANCE), rng.uniform(-np.pi, np.pi)
    wall, table, above_table = rng.uniform(*WALL), rng.uniform(*TABLE), rng.uniform(0.05, 0.3)
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), axis=-1).reshape(-1, 3)
    reflections = np.abs(steps).sum(axis=1)
    steps, reflections = steps[reflections <= 2], reflections[reflections <= 2]  # [25, 3], [25]
    paths = np.zeros((SPOTS, SIZE))
    for path in paths:
        distance = usual_distance * np.exp(rng.normal(0, MOVEMENT))
        direction = usual_direction + rng.normal(0, MOVEMENT)
        offset = [distance * np.cos(direction), distance * np.sin(direction), rng.uniform(0.1, 0.3)]
        mouth = np.clip(microphone + offset, 0.1, size - 0.1)
        images = np.where(steps % 2, (steps + 1) * size - mouth, steps * size + mouth)
        images = np.vstack([images, mouth * (1, 1, -1) + (0, 0, 2 * (microphone[2] - above_table))])
        way = np.linalg.norm(images - microphone, axis=1)  # m
        direct = np.linalg.norm(mouth - microphone)
        delay = np.rint((way - direct) / SOUND * sample_rate).astype(int)  # samples
        np.add.at(path, delay, direct / way * np.append(wall**reflections, table))
    return paths


def draw_steady(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """The spectrum of a fan and of humming mains, [LOOP // 2 + 1]."""
    frequency = np.fft.rfftfreq(LOOP, 1 / sample_rate)
    fan = rng.standard_normal(len(frequency)) + 1j * rng.standard_normal(len(frequency))
    fan *= frequency.clip(min=40) ** rng.uniform(*FAN_SLOPE)
    harmonics = np.arange(1, HUM_HARMONICS + 1)
    hum = np.zeros_like(fan)
    bins = np.rint(rng.choice([50, 60]) * harmonics * LOOP / sample_rate).astype(int)
    hum[bins] = rng.standard_normal(HUM_HARMONICS) / harmonics * np.exp(2j * np.pi * rng.random(HUM_HARMONICS))
    return fan / np.linalg.norm(fan) + hum / np.linalg.norm(hum) * np.sqrt(rng.uniform(*HUM))


def unit_loop(spectrum: np.ndarray) -> np.ndarray:
    """The periodic wave with this spectrum and mean power 1, [LOOP] float32."""
    wave = np.fft.irfft(spectrum, LOOP)
    return (wave / np.sqrt(np.mean(wave**2))).astype(np.float32)

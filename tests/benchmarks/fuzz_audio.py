"""Damage thousands of sound files in the ways in which files get damaged, and check how the corpus treats them.

python tests/benchmarks/fuzz_audio.py --count 10000 --seed 1

Each batch is a folder that is opened by ``open_folder`` and ``open_cache`` as in a run. The table counts for each
mutation how many files were read, skipped with a reason, and left alone because of their names. A file is wrong if it
is none of these or more than one, if its row of the cache is not the content of its file, if the frequency of its tone
is that of another digit, or if the outcome is not the one that is listed for its mutation. The exit code is 1 if any
file is wrong, a worker crashes, or a batch takes longer than --seconds.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from timing import show

from common.audio import SAMPLES
from common.corpus import Clip, open_folder
from common.corpus.cache import open_cache, read_clip, standardise

BATCH = 1000  # files
SPEAKERS = ("01", "2", "a b", "Zoë", "李", "٣", "-x", "$a_", "line\nend", "\udcff\udcfe", "'\"%s{}", "long" * 50)
EXTREMES = (0, 1, 2, 3, 0x7F, 0x80, 0xFFFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
WAV_SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
WAV_SUBTYPES += ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")
OTHER_FORMATS = (
    *(("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16")),
    *(("CAF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")),
)

Rng = np.random.Generator


@dataclass(frozen=True)
class Target:
    """A file to make: its clip and its path."""

    folder: Path
    speaker: str
    digit: int
    repetition: int

    @property
    def path(self) -> Path:
        return self.folder / self.speaker / f"{self.digit}_{self.speaker}_{self.repetition}.wav"

    @property
    def twin(self) -> Path:
        """The same clip under another name."""
        return self.path.with_name(f"{self.digit}_{self.speaker}_{self.repetition:06d}.WAV")


def tone(digit: int, seconds: float = 0.3, rate: int = 16_000) -> np.ndarray:
    """A tone whose frequency tells the digit, so that a row with a wrong label is found."""
    return 0.5 * np.sin(2 * np.pi * (300 + 100 * digit) * np.arange(round(seconds * rate)) / rate)


def wav(
    data: bytes, rate: int = 16_000, channels: int = 1, bits: int = 16, tag: int = 1, size: int | None = None
) -> bytes:
    """A WAV file with any header."""
    align_bytes = channels * bits // 8
    byte_rate = min(rate * align_bytes, 2**32 - 1)
    form = struct.pack("<HHIIHH", tag, channels & 0xFFFF, rate, byte_rate, align_bytes & 0xFFFF, bits)
    size = len(data) if size is None else size
    return b"RIFF" + struct.pack("<I", min(36 + size, 2**32 - 1)) + b"WAVEfmt " + struct.pack("<I", 16) + form + (
        b"data" + struct.pack("<I", size) + data
    )  # fmt: skip


def pcm(digit: int, seconds: float = 0.3, rate: int = 16_000, channels: int = 1) -> bytes:
    return np.repeat((tone(digit, seconds, rate) * 32767).astype("<i2"), channels).tobytes()


def encoded(samples: np.ndarray, rate: int = 16_000, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def any_file(digit: int, rng: Rng) -> bytearray:
    """A good file in a random encoding, to be damaged."""
    if rng.random() < 0.2:
        form, subtype = OTHER_FORMATS[rng.integers(len(OTHER_FORMATS))]
    else:
        form, subtype = "WAV", WAV_SUBTYPES[rng.integers(len(WAV_SUBTYPES))]
    rate = 8000 if subtype in ("GSM610", "G721_32") else int(rng.choice([8000, 16_000, 44_100, 48_000]))
    return bytearray(encoded(tone(digit, 0.3, rate), rate, form, subtype))


# --- mutations: each makes target.path; the list below them says which outcome each must have


def header_bytes(target: Target, rng: Rng) -> None:
    data = any_file(target.digit, rng)
    for position in rng.integers(0, min(len(data), 80), rng.integers(1, 9)):
        data[position] = rng.integers(256)
    target.path.write_bytes(data)


def header_fields(target: Target, rng: Rng) -> None:
    data = any_file(target.digit, rng)
    for position in 2 * rng.integers(2, 40, rng.integers(1, 4)):
        form = "<I" if rng.random() < 0.7 else "<H"
        value = int(rng.choice(EXTREMES)) + int(rng.integers(-1, 2))
        struct.pack_into(form, data, position, value & (0xFFFFFFFF if form == "<I" else 0xFFFF))
    target.path.write_bytes(data)


def sizes(target: Target, rng: Rng) -> None:
    data = bytearray(wav(pcm(target.digit)))
    position = int(rng.choice([4, 16, 40]))
    value = int(rng.choice([*EXTREMES, len(data), len(data) + 1, rng.integers(2**32)]))
    struct.pack_into("<I", data, position, value)
    target.path.write_bytes(data)


def format_tags(target: Target, rng: Rng) -> None:
    tag = int(rng.choice([0, 2, 3, 6, 7, 0x11, 0x31, 0x40, 0x55, 0xFFFE, 0xFFFF, rng.integers(65536)]))
    bits = int(rng.choice([0, 1, 4, 8, 12, 16, 24, 32, 64, 65535]))
    target.path.write_bytes(wav(pcm(target.digit), tag=tag, bits=bits))


def truncation(target: Target, rng: Rng) -> None:
    data = any_file(target.digit, rng)
    limit = 100 if rng.random() < 0.5 else len(data)
    target.path.write_bytes(data[: rng.integers(limit)])


def bytes_anywhere(target: Target, rng: Rng) -> None:
    data = any_file(target.digit, rng)
    for position in rng.integers(0, len(data), rng.integers(1, 200)):
        data[position] = rng.integers(256)
    target.path.write_bytes(data)


def inserted_or_deleted(target: Target, rng: Rng) -> None:
    data = any_file(target.digit, rng)
    position = rng.integers(len(data))
    if rng.random() < 0.5:
        data[position:position] = rng.bytes(rng.integers(1, 500))
    else:
        del data[position : position + rng.integers(1, 500)]
    target.path.write_bytes(data)


def spliced(target: Target, rng: Rng) -> None:
    one, two = any_file(target.digit, rng), any_file(target.digit, rng)
    target.path.write_bytes(one[: rng.integers(len(one))] + two[rng.integers(len(two)) :])


def alien_chunks(target: Target, rng: Rng) -> None:
    """A chunk with a true or a false size before or after the audio."""
    data = wav(pcm(target.digit))
    names = (b"LIST", b"fact", b"PEAK", b"cue ", b"smpl", b"inst", b"bext", b"data", b"fmt ", b"ds64", b"junk")
    name, size = names[rng.integers(len(names))], int(rng.integers(200))
    stated = size if rng.random() < 0.5 else int(rng.choice(EXTREMES))
    chunk = name + struct.pack("<I", stated) + rng.bytes(size)
    position = int(rng.choice([12, 36, len(data)]))
    target.path.write_bytes(data[:position] + chunk + data[position:])


def noise_bytes(target: Target, rng: Rng) -> None:
    start = rng.choice([b"", b"RIFF", b"RIFF\xff\xff\xff\xffWAVE", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb\x90"])
    target.path.write_bytes(bytes(start) + rng.bytes(rng.integers(1, 3000)))


def bad_samples(target: Target, rng: Rng) -> None:
    """One or all samples NaN, infinite, or too large for float32."""
    samples = tone(target.digit)
    value = rng.choice([np.nan, np.inf, -np.inf, 1e300])
    samples[rng.integers(len(samples)) if rng.random() < 0.5 else slice(None)] = value
    with np.errstate(over="ignore"):
        kind = ("FLOAT", np.float32) if rng.random() < 0.5 else ("DOUBLE", np.float64)
        samples = samples.astype(kind[1])
    target.path.write_bytes(encoded(samples, subtype=kind[0]))


def huge_samples(target: Target, rng: Rng) -> None:
    """Finite values that may overflow in the processing."""
    samples = tone(target.digit)
    positions = rng.integers(len(samples), size=int(rng.choice([1, 2, 1000])))
    samples[positions] = rng.choice([3.4e38, -3.4e38, 1e38, 1e30], size=len(positions))
    target.path.write_bytes(encoded(samples, subtype="FLOAT"))


def faint_or_loud_samples(target: Target, rng: Rng) -> None:
    scale = float(rng.choice([1e-4, 1e-2, 10, 1e10]))
    target.path.write_bytes(encoded(tone(target.digit) * scale, subtype="FLOAT"))


def silence(target: Target, rng: Rng) -> None:
    value = float(rng.choice([0, 0.5, -1, 1e-40]))
    target.path.write_bytes(encoded(np.full(rng.integers(1, 20_000), value), subtype="FLOAT"))


def few_samples(target: Target, rng: Rng) -> None:
    """None or one; two could be a very short click, which is read."""
    target.path.write_bytes(wav(pcm(target.digit)[: 2 * rng.integers(2)]))


def very_long(target: Target, rng: Rng) -> None:
    """31 seconds to an hour, as a sparse file."""
    rate = int(rng.choice([8000, 48_000, 384_000]))
    size = min(2 * rate * int(rng.choice([31, 600, 3600])), 2**31)
    with target.path.open("wb") as file:
        file.write(wav(b"", rate, size=size))
        file.truncate(44 + size)


def too_many_channels(target: Target, rng: Rng) -> None:
    """29 seconds at 48 kHz take 1.4 GB or more as float32."""
    channels = int(rng.choice([256, 1024]))
    size = 29 * 48_000 * 2 * channels
    with target.path.open("wb") as file:
        file.write(wav(b"", 48_000, channels, size=size))
        file.truncate(44 + size)


def some_channels(target: Target, rng: Rng) -> None:
    channels = int(rng.choice([2, 3, 8, 64]))
    target.path.write_bytes(wav(pcm(target.digit, channels=channels), channels=channels))


def impossible_rates(target: Target, rng: Rng) -> None:
    rate = int(rng.choice([0, 1, 3999, 384_001, 1_000_000, 2**31 - 1, 2**31, 2**32 - 1]))
    target.path.write_bytes(wav(pcm(target.digit), rate))


def odd_rates(target: Target, rng: Rng) -> None:
    rate = int(rng.choice([4001, 11_025, 37_799, 44_099, 96_000, 383_999, 384_000]))
    target.path.write_bytes(wav(pcm(target.digit, rate=rate), rate))


def good_encodings(target: Target, rng: Rng) -> None:
    """Also FLAC, Ogg and MP3 named .wav, which libsndfile reads."""
    target.path.write_bytes(any_file(target.digit, rng))


def texts(target: Target, rng: Rng) -> None:
    text = rng.choice(["", "\n", "not audio\n", "<html>404</html>", '{"error": 1}', "version https://git-lfs\n"])
    target.path.write_text(str(text) * int(rng.integers(1, 50)))


def folders(target: Target, rng: Rng) -> None:
    target.path.mkdir()


def pipes(target: Target, rng: Rng) -> None:
    os.mkfifo(target.path)


def bad_links(target: Target, rng: Rng) -> None:
    linked = ["gone.wav", target.path.name, "x" * 300, "..", "/dev/zero", "/dev/full", "/proc/self/mem"]
    target.path.symlink_to(linked[rng.integers(len(linked))])


def good_links(target: Target, rng: Rng) -> None:
    elsewhere = target.folder.parent / "linked"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / target.path.name).write_bytes(wav(pcm(target.digit)))
    target.path.symlink_to(elsewhere / target.path.name)


def names_of_no_clips(target: Target, rng: Rng) -> None:
    """Digits out of range or in other scripts, other speakers, no repetition, and so on."""
    digit, speaker, number = target.digit, target.speaker, target.repetition
    forms = [f"1{digit}_{speaker}_{number}.wav", f"-1_{speaker}_{number}.wav", f"٣_{speaker}_{number}.wav"]
    forms += [f"{digit}_x_{number}.wav", f"{digit}_{speaker}_{number}_.wav"]
    forms += [f"{digit}_{speaker}_{number}.mp3", f"{digit}_{speaker}_٣{number}.wav"]
    name = forms[rng.integers(len(forms))]
    data = wav(pcm(target.digit))
    (target.path.parent / name[-250:]).write_bytes(data)


def repeated_repetitions(target: Target, rng: Rng) -> None:
    """One repetition twice, as 000007.WAV and as 7.wav; the first in sorted order is read."""
    for path in (target.path, target.twin):
        path.write_bytes(wav(pcm(target.digit)))


READ, SKIPPED, LEFT, ANY = "read", "skipped", "left alone", "any"  # outcomes
MUTATIONS: dict[Callable[[Target, Rng], None], str] = {
    header_bytes: ANY,
    header_fields: ANY,
    sizes: ANY,
    format_tags: ANY,
    truncation: ANY,
    bytes_anywhere: ANY,
    inserted_or_deleted: ANY,
    spliced: ANY,
    alien_chunks: ANY,
    noise_bytes: ANY,
    bad_samples: SKIPPED,
    huge_samples: ANY,
    faint_or_loud_samples: READ,
    silence: SKIPPED,
    few_samples: SKIPPED,
    very_long: SKIPPED,
    too_many_channels: SKIPPED,
    some_channels: READ,
    impossible_rates: SKIPPED,
    odd_rates: READ,
    good_encodings: READ,
    texts: SKIPPED,
    folders: SKIPPED,
    pipes: SKIPPED,
    bad_links: SKIPPED,
    good_links: READ,
    names_of_no_clips: LEFT,
    repeated_repetitions: LEFT,
}


@dataclass
class Report:
    """What a sweep found."""

    counts: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))  # mutation -> outcome -> files
    wrong: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)

    def table(self) -> list[list[str]]:
        columns = ["files", READ, SKIPPED, LEFT, "wrong"]
        rows = [*sorted(self.counts.items()), ("total", sum(self.counts.values(), Counter()))]
        return [["mutation", *columns], *([name, *(str(count[key]) for key in columns)] for name, count in rows)]


def sweep(folder: Path, count: int, seed: int, seconds: float = 240) -> Report:
    """Make ``count`` files in ``folder``, batch by batch, and check the outcome of each.

    Args:
        seconds: how long a batch may take.
    """
    report = Report()
    for start in range(0, count, BATCH):
        rng = np.random.default_rng([seed, start])
        batch = folder / f"batch {start}"
        made = {target: _make(target, rng) for target in _targets(batch / "corpus", min(BATCH, count - start))}
        try:
            with _time_limit(seconds):
                _check_batch(batch, made, report)
        except Exception as error:  # any exception is a finding
            report.crashes.append(f"seed {seed}, {batch.name}: {type(error).__name__}: {error}")
        shutil.rmtree(batch)
    return report


def _targets(folder: Path, count: int) -> list[Target]:
    for speaker in SPEAKERS:
        (folder / speaker).mkdir(parents=True, exist_ok=True)
    return [Target(folder, SPEAKERS[i % len(SPEAKERS)], i // len(SPEAKERS) % 10, i) for i in range(1, count + 1)]


def _make(target: Target, rng: Rng) -> Callable:
    mutation = list(MUTATIONS)[rng.integers(len(MUTATIONS))]
    mutation(target, rng)
    return mutation


def _check_batch(batch: Path, made: dict[Target, Callable], report: Report) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        corpus = open_folder(batch / "corpus")
        cached = open_cache(corpus, batch / "cache")
        again = open_cache(corpus, batch / "cache")
    if again.clips != cached.clips or again.skipped != cached.skipped or not np.array_equal(again.waves, cached.waves):
        report.crashes.append(f"{batch.name}: the cache is different when it is opened again")
    rows = {clip.path: (clip, wave) for clip, wave in zip(cached.clips, cached.waves, strict=True)}
    listed = {clip.path for clip in corpus.clips}
    for target, mutation in made.items():
        expected = MUTATIONS[mutation]
        path = f"{target.speaker}/{target.path.name}"
        outcomes = [READ] * (path in rows) + [SKIPPED] * (path in cached.skipped) + [LEFT] * (path not in listed)
        faults = [] if len(outcomes) == 1 else [f"its outcomes are {outcomes}"]
        faults += [f"it was {outcome}, not {expected}" for outcome in outcomes if expected not in (outcome, ANY)]
        if SKIPPED in outcomes and not cached.skipped[path].strip():
            faults.append("no reason")
        if READ in outcomes:
            faults += _faults_of_row(target, expected, *rows[path])
        count = report.counts[mutation.__name__]
        count.update({"files": 1, "wrong": int(bool(faults))} | dict.fromkeys(outcomes, 1))
        report.wrong += [f"{mutation.__name__}, {path!r}: {fault}" for fault in faults]
    left = sum(MUTATIONS[mutation] == LEFT for mutation in made.values())
    if corpus.ignored != left:
        report.wrong.append(f"{batch.name}: {corpus.ignored} files are counted as left alone, not {left}")
    twins = sum(mutation is repeated_repetitions for mutation in made.values())
    if len(cached.clips) + len(cached.skipped) + corpus.ignored != len(made) + twins:
        report.wrong.append(f"{batch.name}: the files read, skipped and left alone do not add up to all files")


def _faults_of_row(target: Target, expected: str, clip: Clip, wave: np.ndarray) -> list[str]:
    faults = []
    if (clip.speaker, clip.digit, clip.repetition) != (target.speaker, target.digit, target.repetition):
        faults.append(f"its labels are {clip}")
    if wave.dtype != np.int16 or wave.shape != (SAMPLES,) or np.abs(wave.astype(int)).max() != 32767:
        faults.append("its row is not a waveform at full level")
    if not np.array_equal(wave, standardise(*read_clip(target.path))):
        faults.append("its row is not the content of its file")
    frequency = np.abs(np.fft.rfft(wave.astype(float))).argmax()  # Hz, because a row is one second
    if expected == READ and abs(frequency - (300 + 100 * target.digit)) > 20:
        faults.append(f"its tone has {frequency} Hz")
    return faults


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Kill the workers and raise TimeoutError if the block takes longer."""

    def stop(*_: object) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()
        raise TimeoutError(f"it took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _peak_megabytes(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=240, help="limit for a batch of a thousand files")
    args = parser.parse_args()
    imports = _peak_megabytes(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory() as folder:
        report = sweep(Path(folder), args.count, args.seed, args.seconds)
    show(f"{args.count} files, seed {args.seed}", report.table())
    peak, worker = (_peak_megabytes(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"peak memory: {peak:.0f} MB, of a worker {worker:.0f} MB; after the imports it was {imports:.0f} MB")
    for line in [*report.crashes, *report.wrong][:50]:
        print(line.encode("utf-8", "backslashreplace").decode())
    sys.exit(bool(report.crashes or report.wrong))


if __name__ == "__main__":
    main()

"""What does evaluation cost, and what does task 5 save with frozen encoders?

    python tests/benchmarks/evaluation.py                    four minutes on 2 cores
    python tests/benchmarks/evaluation.py --part frozen      one table: scores or frozen

scores   seconds and peak memory of linear_probe (16,000 train, 4,000 validation and 10,000 test embeddings),
         identification (5,000 enrolled, 5,000 queried), verification (25 million pairs) and tsne (10,000 points), each
         in a process of its own. The embeddings are random clusters: ten digits, twenty speakers, as on AudioMNIST's
         test speakers.
frozen   seconds per epoch of task 5 with frozen encoders against fine-tuning, and the same ratio for a run of 50 epochs
         that begins with embedding all clips. On synthetic speech, a tenth of the corpus: 3,000 clips.
"""

import argparse
import functools
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from common.modules import ContrastiveModel, DigitClassifier
from common.speaker_space import SpeakerSpace
from timing import interleave, ratio, show, timed

from common.data import SpokenDigits
from common.evaluate import Embeddings, embed, linear_probe, tsne
from common.run.cli import Settings
from common.run.output import Run
from common.speakers import count_similarities, fit_neighbours, halves, verify
from common.training import fit

EPOCHS = 50  # of task 5
FORMATS = {"1d": ("1d",), "2d": ("2d",), "concat": ("1d", "2d")}


def clusters(n: int, seed: int, width: int = 256, spread: float = 2.0) -> Embeddings:
    """n embeddings, each near the sum of its digit's centre and its speaker's centre."""
    centres = np.random.default_rng(0).normal(size=(30, width))
    rng = np.random.default_rng(seed)
    digit, speaker = np.arange(n) % 10, np.arange(n) // 10 % 20
    z = centres[digit] + centres[10 + speaker] + spread * rng.normal(size=(n, width))
    return Embeddings({"concat": z.astype(np.float32)}, digit, speaker)


def whitened_clusters() -> Embeddings:
    train, test = clusters(16_000, 1), clusters(10_000, 3)
    return test._replace(z={"concat": SpeakerSpace().fit(train.z["concat"], train.digit).transform(test.z["concat"])})


def probe() -> str:
    result, _ = linear_probe("concat", clusters(16_000, 1), clusters(4_000, 2), clusters(10_000, 3))
    return f"accuracy {result['test_acc']:.4f}, C {result['C']}"


def identification() -> str:
    enrolment, query = halves(whitened_clusters(), 42)
    knn = fit_neighbours(enrolment, "concat", 42)
    return f"accuracy {(knn.predict(query.z['concat']) == query.speaker).mean():.4f}, k {knn.n_neighbors}"


def verification() -> str:
    result = verify(count_similarities(*halves(whitened_clusters(), 42), "concat").sum(axis=0))
    return f"EER {result.eer:.5f}" if result else "no EER"


def layout() -> str:
    points, perplexity = tsne(clusters(10_000, 3).z["concat"], 42, "random")
    return f"perplexity {perplexity:g}, spread {points.std():.1f}"


def compare_scores(repeats: int) -> None:
    rows = [["", "seconds", "MB more at its peak", "result"]]
    for work in (probe, identification, verification, layout):
        runs = [_alone(work) for _ in range(repeats)]
        seconds, megabytes = (statistics.median(column) for column in list(zip(*runs, strict=True))[:2])
        rows.append([work.__name__, f"{seconds:.2f}", f"{megabytes:.0f}", runs[0][2]])
        print(*rows[-1], file=sys.stderr)
    show("10,000 x 256 embeddings", rows)


def _alone(work: Callable[[], str]) -> tuple[float, float, str]:
    """Run ``work`` in a process of its own: seconds, peak memory in MB beyond that of the imports, and its result."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (work,))


def _measure(work: Callable[[], str]) -> tuple[float, float, str]:
    before, started = _peak_megabytes(), time.perf_counter()
    result = work()
    return time.perf_counter() - started, _peak_megabytes() - before, result


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare_frozen(fraction: float, repeats: int) -> None:
    settings = Settings(epochs=3, lr=1e-2, dataset="synthetic", ratio=fraction, num_workers=0)
    data, pretrained = SpokenDigits(**settings.data), ContrastiveModel().embedder
    run = Run(settings, data.describe(), pretrained.sizes())
    started = time.perf_counter()
    embedded = {key: embed(pretrained, data.loader(key)) for key in ("train", "val", "test")}
    embedding = time.perf_counter() - started
    rows = [["", "fine-tuned, s", "frozen, s", "frozen / fine-tuned (range)", f"{EPOCHS} epochs with embedding"]]
    for name, formats in FORMATS.items():
        frozen = data.with_embeddings({key: part.z[name] for key, part in embedded.items()})

        def epoch(inputs: SpokenDigits, is_frozen: bool, formats: tuple = formats, name: str = name) -> float:
            module = DigitClassifier(formats, settings.lr, encoder_lr=settings.lr / 10, frozen=is_frozen)
            train = functools.partial(fit, module, inputs, run, "checkpoints", name)
            return statistics.mean(timed(module, train).epochs())

        work = {"fine-tuned": functools.partial(epoch, data, False), "frozen": functools.partial(epoch, frozen, True)}
        times = interleave(name, work, repeats)
        slow, fast = (statistics.median(times[key]) for key in work)
        whole = (embedding / len(FORMATS) + EPOCHS * fast) / (EPOCHS * slow)
        rows.append(
            [name, f"{slow:.3f}", f"{fast:.3f}", ratio(times["frozen"], times["fine-tuned"], "%"), f"{whole:.1%}"]
        )
    show(f"An epoch of task 5, {len(data.split.train)} training clips (embedding all clips: {embedding:.1f} s)", rows)


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if args.part in ("all", "scores"):
            compare_scores(args.repeats)
        if args.part in ("all", "frozen"):
            compare_frozen(args.ratio, args.repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("all", "scores", "frozen"), default="all")
    parser.add_argument("--ratio", type=float, default=0.1, help="frozen: of the 30,000 clips of synthetic speech")
    parser.add_argument("--repeats", type=int, default=3)
    main(parser.parse_args())

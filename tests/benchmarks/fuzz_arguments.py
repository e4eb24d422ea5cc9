"""Give every flag of every script values that people and programs get wrong, known ones and random ones.

python tests/benchmarks/fuzz_arguments.py --count 2000 --seed 1

Each script's own parser reads them, in this process. By a second description of the flags, written down here, a value
is either right, and must be accepted with its meaning, or wrong, and must end in exit code 2 and one short line that
names the flag. The table counts the values of each flag over all scripts. Exit code 1 if any answer differs.
"""

import argparse
import contextlib
import io
import runpy
import sys
from collections import Counter, defaultdict
from pathlib import Path
from unittest import mock

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
if str(REPOSITORY) not in sys.path:  # so that the script finds the package `common`
    sys.path.insert(0, str(REPOSITORY))

from common.run import align  # noqa: E402

SCRIPTS = (*(f"task{task}.py" for task in range(1, 6)), "common/data.py")
WHOLE = {
    "--epochs": (1, 10**6),
    "--batch-size": (2, 10**6),
    "--num-workers": (0, 1024),
    "--seed": (0, 2**32 - 1),
    "--fold": (1, 5),
    "--devices": (1, 1024),
    "--num-nodes": (1, 1024),
}
DECIMAL = {"--ratio": (1e-6, 1), "--lr": (1e-9, 1000), "--label-ratio": (1e-6, 1)}
CHOICES = {
    "--dataset": ["auto", "audiomnist", "synthetic"],
    "--accelerator": ["auto", "cpu", "gpu", "mps"],
    "--precision": ["32-true", "16-mixed", "bf16-mixed"],
    "--strategy": ["auto", "ddp"],
    "--logger": ["csv", "tensorboard"],
    "--augment": ["none", "waveform", "spectrogram", "both"],
}
FOLDERS = ("--data-dir", "--output-dir", "--task1-checkpoint")
PATHS = (*FOLDERS, "--task2-checkpoint")
FLAGS = (*WHOLE, *DECIMAL, *CHOICES, *PATHS)

KNOWN = (
    *("", " ", "\n", "\t", "-", "--", "+", ".", ",", "e", "e5", "1e", "0x10", "0b1", "0o7", "1e400", "-1e400"),
    *("1e-400", "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "1e999999999", "1_0", "_1", "1_", "1,5"),
    *("1.5", "0.5.", "\xbd", "\u0663", "\uff11", "\xb2", "\u0660.\u0665", "\u22121", "1 ", " 1", "1\n", "none"),
    *("1\0", "\x000", "0", "-0", "+0", "0.0", "-1", "1", "+1", "01", "1.", ".1", "2", "3", "5", "6", "64"),
    *("0.5", "1.0", "1.0000000000000002", "1e-5", "5e-324", "9" * 19, "9" * 5000, "1" + "0" * 30, "1024"),
    *("1025", "1000000", "1000001", "4294967295", "4294967296", "1000000000000", "1e6", "1000.1", "None"),
    *("null", "True", "[1]", "{}", "1;ls", "$(ls)", "`ls`", "%s", "%n", "{0}", "a" * 5000, "a/" * 3000),
    *("/dev/null/x", "a\0b", "nonsense", "AUTO", "auto ", "cpu,gpu", "ddp2", "--epochs", "\x1b[31m", "\udcff"),
    *("\ud800", "\U0001f4a5", "\u03a9", "\u202e1"),
)  # fmt: skip
ALPHABET = [*"0123456789" * 4, *"+-.eE_ xXinfa,%/\\'\"\u0663\uff11\xb2\n\0\x1b\udcff", "e-", "e+"]


class _Parsing(Exception):
    """Raised in place of parsing, to stop a script that has built its parser."""


def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser of a script of the repository."""

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Parsing(parser)

    with mock.patch.multiple(argparse.ArgumentParser, parse_known_args=stop), mock.patch("sys.argv", [script]):
        try:
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")
        except _Parsing as parsing:
            return parsing.args[0]
    raise ValueError(f"{script} parses no arguments")


def is_right(flag: str, value: str) -> bool:
    """Whether a value is right for a flag, by the description above."""
    if flag in CHOICES:
        return value in CHOICES[flag]
    if flag in PATHS:
        return bool(value.strip()) and value != "--"
    kind, (low, high) = (int, WHOLE[flag]) if flag in WHOLE else (float, DECIMAL[flag])
    try:
        return low <= kind(value) <= high
    except ValueError:
        return False


def sweep(count: int, seed: int) -> tuple[dict[str, Counter], list[str]]:
    """Try the known values and ``count`` random ones for each flag of each script.

    Returns:
        The counts of each flag, and a line for each wrong answer.
    """
    rng = np.random.default_rng(seed)
    counts, wrong = defaultdict(Counter), []
    for script in SCRIPTS:
        parser = parser_of(script)
        flags = [flag for flag in FLAGS if flag in parser.format_help()]
        for flag in flags:
            random = ["".join(rng.choice(ALPHABET, rng.integers(1, 12))) for _ in range(count)]
            for value in (*KNOWN, *CHOICES.get(flag, ()), *random):
                fault, accepted = _try(parser, flag, value)
                counts[flag].update({"values": 1, "accepted": accepted, "wrong": bool(fault)})
                wrong += [f"{script} {flag}={value[:80]!r}: {fault}"] if fault else []
    return counts, wrong


def _try(parser: argparse.ArgumentParser, flag: str, value: str) -> tuple[str, bool]:
    """What is wrong with the answer to a value, if anything, and whether the value was accepted."""
    errors, output = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
            parsed = vars(parser.parse_args([f"{flag}={value}"]))[flag[2:].replace("-", "_")]
    except SystemExit as error:
        return _fault_of_refusal(flag, value, error.code, errors.getvalue(), output.getvalue()), False
    except BaseException as error:  # any other exception is a fault
        return f"{type(error).__name__}: {error}"[:300], False
    if not is_right(flag, value):
        return f"accepted as {str(parsed)[:80]!r}", True
    meaning = Path(value) if flag in PATHS else value if flag in CHOICES else type(parsed)(value)
    return "" if parsed == meaning else f"accepted as {parsed!r}", True


def _fault_of_refusal(flag: str, value: str, code: object, errors: str, output: str) -> str:
    if is_right(flag, value):
        return f"refused: {errors}"
    if code != 2 or output:
        return f"exit code {code}, {output!r}"
    line = errors.removesuffix("\n")
    return "" if line.isprintable() and flag in line and len(line) < 600 else f"the answer is {errors!r}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=2000, help="random values for each flag of each script")
    arguments.add_argument("--seed", type=int, default=1)
    args = arguments.parse_args()
    counts, wrong = sweep(args.count, args.seed)
    rows = [*counts.items(), ("total", sum(counts.values(), Counter()))]
    columns = ("values", "accepted", "wrong")
    print(
        "\n".join(align([["flag", *columns], *([flag, *(str(count[key]) for key in columns)] for flag, count in rows)]))
    )
    for line in wrong[:50]:
        print(line.encode("utf-8", "backslashreplace").decode())
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

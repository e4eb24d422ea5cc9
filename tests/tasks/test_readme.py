"""The README: its example in Python runs, and its commands name scripts and flags that exist."""

import argparse
import re
import runpy
import shlex
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TEXT = README + (REPOSITORY / "tests/benchmarks/README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
# The variables of a loop stand for their first value.
COMMANDS = sorted(
    set(re.findall(r"(?:python|HOST:\d+) ((?:-m common[\w.]+|task\w+\.py)[^#;&|\n]*)", re.sub(r"\$\w", "1", BLOCKS)))
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what Lightning advises its users
def test_the_example_in_python_runs(write_tones, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tones(tmp_path / "data/AudioMNIST/data", [f"{i:02d}" for i in range(1, 9)], repetitions=5)
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "def main" in block)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    numbers = re.findall(r"\d+\.\d+", capsys.readouterr().out.splitlines()[-1])
    assert 0 <= float(numbers[0]) <= 1, "it ends with an accuracy"


class Parsing(Exception):
    """Raised in place of parsing, to stop a script that has built its parser."""


def test_the_commands_are_found():
    assert len(COMMANDS) > 10
    scripts = {shlex.split(command.removeprefix("-m "))[0] for command in COMMANDS}
    assert {*(f"task{n}.py" for n in range(1, 6)), "common.data", "common.voice"} <= scripts


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_accepted(command, monkeypatch):
    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise Parsing(parser)

    script, *flags = shlex.split(command.removeprefix("-m "))
    if not script.endswith(".py"):
        path = script.replace(".", "/")
        script = f"{path}/__main__.py" if (REPOSITORY / path).is_dir() else f"{path}.py"
    monkeypatch.setattr("sys.argv", [script])
    with monkeypatch.context() as patch, pytest.raises(Parsing) as caught:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    caught.value.args[0].parse_args(flags)

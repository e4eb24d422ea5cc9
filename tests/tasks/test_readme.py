"""The commands of the README: scripts that are there, with flags that they take."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

import common.run.cli

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
# Those of a loop stand for its first round.
COMMANDS = sorted(
    set(re.findall(r"(?:python|HOST:\d+) ((?:-m common[\w.]+|task\w+\.py)[^#;&\n]*)", re.sub(r"\$\w", "1", BLOCKS)))
)


def test_the_commands_are_found():
    assert len(COMMANDS) > 15 and {command.split()[0] for command in COMMANDS} >= {"-m", "task1.py", "task5.py"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_taken(command, repository, monkeypatch):
    script, *flags = shlex.split(command.removeprefix("-m "))
    parsers = []
    monkeypatch.setattr(common.run.cli, "run", lambda main, parser: parsers.append(parser))
    if script.endswith(".py"):
        runpy.run_path(str(repository / script), run_name="__main__")
    else:
        monkeypatch.delitem(sys.modules, script, raising=False)  # as in a new process
        runpy.run_module(script, run_name="__main__")
    parsers[0].parse_args(flags)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`?python (tests/\S+\.py)", README))))
def test_a_benchmark_of_the_readme_is_there_and_says_how_it_is_run(path, repository):
    assert f"python {path}" in (repository / path).read_text()

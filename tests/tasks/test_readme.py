"""The commands of the README: scripts that exist, with flags that they accept."""

import re
import shlex
from pathlib import Path

import pytest
from benchmarks.fuzz_arguments import parser_of

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = "\n".join((REPOSITORY / path).read_text() for path in ("README.md", "tests/benchmarks/README.md"))
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
# The variables of a loop stand for their first value.
COMMANDS = sorted(
    set(re.findall(r"(?:python|HOST:\d+) ((?:-m common[\w.]+|task\w+\.py)[^#;&|\n]*)", re.sub(r"\$\w", "1", BLOCKS)))
)


def test_the_commands_are_found():
    assert len(COMMANDS) > 15
    scripts = {shlex.split(command.removeprefix("-m "))[0] for command in COMMANDS}
    assert {*(f"task{n}.py" for n in range(1, 6)), "common.data", "common.voice.predict"} <= scripts


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_accepted(command):
    script, *flags = shlex.split(command.removeprefix("-m "))
    if not script.endswith(".py"):
        path = script.replace(".", "/")
        script = f"{path}/__main__.py" if (REPOSITORY / path).is_dir() else f"{path}.py"
    parser_of(script).parse_args(flags)

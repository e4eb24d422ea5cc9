"""The parser of each script, which builds it where it begins to run."""

import runpy
from pathlib import Path
from unittest import mock

import pytest

from common.run.cli import Parser

REPOSITORY = Path(__file__).resolve().parents[1]


class _Parsing(Exception):
    """Raised in place of parsing, to stop a script that has built its parser."""


def parser_of(script: str) -> Parser:
    """The parser of a script of the repository, such as "task1.py" or "common/voice.py"."""

    def stop(parser: Parser) -> None:
        raise _Parsing(parser)

    with mock.patch.object(Parser, "parse_args", stop), pytest.raises(_Parsing) as caught:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    return caught.value.args[0]

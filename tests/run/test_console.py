"""Messages: bars on a terminal, lines elsewhere, nothing with --quiet; names on one line; aligned tables."""

import contextlib
import io
import sys

import pytest

from common.run.console import UserError, printable, progress_bar, say, set_up_output, shortened


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def quiet():
    set_up_output(True)
    yield
    set_up_output(False)


def work() -> None:
    with progress_bar("Reading", 3, "clips") as bar:
        bar.update(2)
    say("epoch 1/1")


def test_without_a_terminal_a_line_announces_the_work(capsys):
    work()
    assert capsys.readouterr() == ("epoch 1/1\n", "Reading: 3 clips\n")


def test_on_a_terminal_there_is_a_bar():
    with contextlib.redirect_stderr(Terminal()) as terminal:
        work()
    shown = terminal.getvalue()
    assert "Reading:  67%" in shown and "2/3" in shown and "clips/s" in shown and "Reading: 3 clips" not in shown


def test_quiet_prints_nothing(quiet, capsys):
    work()
    with contextlib.redirect_stderr(Terminal()) as terminal:
        work()
    assert terminal.getvalue() == "" and capsys.readouterr() == ("", "")


def test_an_error_is_one_line_whatever_the_file_is_called():
    assert str(UserError("a\nb\x1b[31m\udcff: no such\tfile")) == "a b?[31m?: no such file"
    assert printable("  café\u2028x ") == "café x"
    assert shortened("a\nbcdef", 5) == "a bc…" and shortened("abcde", 5) == "abcde"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_that_an_encoding_lacks_are_escaped(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    set_up_output()
    say("\u6570\u636e: 7")
    sys.stdout.flush()
    assert written.getvalue() == b"\\u6570\\u636e: 7\n"

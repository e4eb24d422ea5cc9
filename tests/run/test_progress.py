"""What is said while a run works: bars on a terminal, lines elsewhere, nothing if so asked."""

import os
import pty
import subprocess
import sys
import termios

import pytest

from common.run.console import progress_bar, say, set_quiet

BAR = "from common.run.console import progress_bar\nwith progress_bar('Reading', 3, 'clips') as bar: bar.update(2)"


@pytest.fixture
def quiet():
    set_quiet(True)
    yield
    set_quiet(False)


def test_where_there_is_no_terminal_a_line_says_what_begins(capsys):
    with progress_bar("Reading", 3, "clips") as bar:
        bar.update(2)
    assert capsys.readouterr() == ("", "Reading: 3 clips\n")


def test_other_lines_may_take_its_place(capsys):
    progress_bar("training", 3, "steps", announce=False).close()
    say("epoch 1/1")
    assert capsys.readouterr() == ("epoch 1/1\n", "")


def test_quiet_is_quiet(quiet, capsys):
    progress_bar("Reading", 3, "clips").close()
    say("epoch 1/1")
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar(repository):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    subprocess.run([sys.executable, "-c", BAR], stderr=theirs, cwd=repository, check=True)
    shown = os.read(ours, 10_000).decode()
    assert "Reading:  67%" in shown and "2/3" in shown and "clips/s" in shown
    os.close(ours)
    os.close(theirs)

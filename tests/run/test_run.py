"""Messages: bars on a terminal, lines elsewhere, nothing with --quiet; names on one line; numbers with intervals."""

import sys

import pytest

from common.run import UserError, measures, printable, progress_bar, say, score, set_up_output, shortened


@pytest.mark.parametrize("terminal, quiet, rank", [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 0, 1), (0, 0, 1)])
def test_progress_is_a_bar_on_a_terminal_and_a_line_elsewhere(request, capsys, monkeypatch, terminal, quiet, rank):
    request.addfinalizer(set_up_output)
    set_up_output(bool(quiet), rank)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with progress_bar("Reading", 3, "clips") as bar:
        bar.update(2)
    say("epoch 1/1")
    printed, shown = capsys.readouterr()
    if quiet or rank:
        assert printed == shown == ""
    else:
        assert printed == "epoch 1/1\n"
        assert ("Reading:  67%" in shown and "2/3" in shown) if terminal else shown == "Reading: 3 clips\n"


def test_an_error_is_one_line_whatever_the_file_is_called():
    assert str(UserError("a\nb\x1b[31m\udcff: no such\tfile")) == "a b?[31m?: no such file"
    assert printable("  café\u2028x ") == "café x"
    assert shortened("a\nbcdef", 5) == "a bc…" and shortened("abcde", 5) == "abcde"


def test_a_number_is_shown_with_what_belongs_to_it():
    row = {"test_acc": 0.9, "test_acc_ci95": [0.786, 0.957], "test_clips": 50, "C": 1e-5, "k": 5, "loss": None}
    row |= {"worst_speaker": "03", "worst_speaker_acc": 0.5}
    assert measures({"1d": row, "2d": {"eer": 0.0}}) == ["test_acc", "C", "k", "eer"]
    assert score(row, "test_acc") == "0.9000 [0.786, 0.957] n=50, 0.500 03"
    assert [score(row, key) for key in ("C", "k", "loss", "eer")] == ["1e-05", "5", "", ""]

"""Corpora with next to nothing in them: every task ends with finite numbers or with one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.slow

SPEAKERS = ["01", "02", "03"]
METRICS = {1: "task1_supervised", 2: "task2_contrastive", 4: "task4_biometrics", 5: "task5_finetune"}


@pytest.fixture
def outcomes(run_here, tmp_path, monkeypatch, capsys) -> Callable[..., list[str | None]]:
    """A function that runs some tasks on a corpus and returns the one line of error of each, or None."""
    monkeypatch.chdir(tmp_path)

    def finite(number: str) -> float:
        assert math.isfinite(float(number))
        return float(number)

    def run(corpus: Path, *tasks: int) -> list[str | None]:
        errors = []
        for task in tasks:
            flags = ["--data-dir", str(corpus), "--epochs", "1", "--batch-size", "8", "--num-workers", "0"]
            try:
                run_here(f"task{task}.py", *flags)
            except SystemExit as end:
                errors.append(end.code)
                assert end.code.startswith(f"task{task}.py: error: ") and "\n" not in end.code
                continue
            errors.append(None)
            if task in METRICS:
                text = (tmp_path / METRICS[task] / "metrics.json").read_text()
                json.loads(text, parse_constant=finite, parse_float=finite)
        messages = capsys.readouterr().err
        assert "Warning" not in messages and "Traceback" not in messages, messages
        return errors

    return run


def test_silence_and_too_few_speakers_are_one_line(outcomes, write_tones, tmp_path):
    corpus = write_tones(tmp_path / "tones", SPEAKERS, digits=[0])
    for path in corpus.rglob("*.wav"):
        soundfile.write(path, np.zeros(4800), 16_000)
    assert all("none of its 6 clips can be read" in error for error in outcomes(corpus, 1, 4))
    corpus = write_tones(tmp_path / "few", SPEAKERS[:2], digits=[0])
    assert all("it takes 3 speakers" in error for error in outcomes(corpus, 1, 4))


def test_one_digit_gives_results(outcomes, write_tones, tmp_path):
    corpus = write_tones(tmp_path / "tones", SPEAKERS, digits=[3], repetitions=6)
    assert outcomes(corpus, 2, 4) == [None] * 2, "the tasks that fit or enrol by digit"


def test_a_single_test_clip_gives_results(outcomes, write_tones, tmp_path):
    corpus = write_tones(tmp_path / "tones", SPEAKERS, digits=[0, 1])
    for path in list((corpus / "03").iterdir())[1:]:
        path.unlink()
    assert outcomes(corpus, 1, 2, 3, 4, 5) == [None] * 5

"""Corpora with next to nothing in them still give finite numbers, without warnings."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SPEAKERS = ["01", "02", "03"]
METRICS = {1: "task1_supervised", 2: "task2_contrastive", 4: "task4_biometrics", 5: "task5_finetune"}


@pytest.mark.parametrize("few", ["one digit", "one test clip"])
def test_one_digit_or_a_single_test_clip_gives_results(few, run_here, write_tones, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.data.MIN_STEPS", 2)
    if few == "one digit":
        corpus, tasks = write_tones(Path("tones"), SPEAKERS, digits=[3], repetitions=6), [2, 4]  # these use the digits
    else:
        corpus, tasks = write_tones(Path("tones"), SPEAKERS, digits=[0, 1]), [1, 2, 3, 5]  # task 4 compares clips
        for path in list((corpus / "03").iterdir())[1:]:
            path.unlink()
    for task in tasks:
        flags = ["--data-dir", "tones", "--epochs", "1", "--batch-size", "8", "--num-workers", "0"]
        run_here(f"task{task}.py", *flags)
        if task in METRICS:
            text = Path(METRICS[task], "metrics.json").read_text()
            json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are constants
    messages = capsys.readouterr().err
    assert "Warning" not in messages, messages

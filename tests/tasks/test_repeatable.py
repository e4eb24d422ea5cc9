"""The same seed gives the same numbers, to the last digit, from every task."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

FOLDERS = ["task1_supervised", "task2_contrastive", "task4_biometrics", "task5_finetune"]


@pytest.fixture
def run_all(run_here, write_tones, tmp_path, monkeypatch) -> Callable[..., dict]:
    """A function that runs the five tasks in a new folder and returns their metrics without times, and pictures."""
    corpus = write_tones(tmp_path / "tones", ["01", "02", "03", "04"], digits=[0, 1, 6], repetitions=4)

    def run(name: str, *flags: str) -> dict:
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for task in range(1, 6):
            run_here(f"task{task}.py", "--data-dir", str(corpus), "--epochs", "2", "--batch-size", "8", *flags)
        results = {folder: json.loads(Path(folder, "metrics.json").read_text()) for folder in FOLDERS}
        for metrics in results.values():
            del metrics["run"]["seconds"], metrics["run"]["arguments"]["num_workers"]
            del metrics["run"]["task2_checkpoint"]  # the digest of a file that records them
        return results | {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path().glob("*/*.png")}

    return run


@pytest.mark.slow
def test_the_same_seed_repeats_every_number_with_any_workers_and_another_cache(run_all, monkeypatch):
    first = run_all("first", "--num-workers", "0")
    used, real = set(), DataLoader.__init__

    def noted(self, *arguments, num_workers, **options):
        used.add(num_workers)
        real(self, *arguments, num_workers=num_workers, **options)

    monkeypatch.setattr(DataLoader, "__init__", noted)
    monkeypatch.setattr("common.data.spare_cores", lambda device: 1)
    again = run_all("again", "--num-workers", "1")
    assert used == {0, 1} and len(first) >= len(FOLDERS) + 9
    for name, result in first.items():
        assert json.dumps(again[name]) == json.dumps(result), name

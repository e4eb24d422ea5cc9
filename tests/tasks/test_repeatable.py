"""The same seed gives the same numbers, to the last digit, from every task."""

import hashlib
import json
from collections.abc import Callable

import pytest
from torch.utils.data import DataLoader

DIRECTORIES = ["task1_supervised", "task2_contrastive", "task4_biometrics", "task5_finetune"]


@pytest.fixture
def run_all(run_here, write_tones, tmp_path, monkeypatch) -> Callable[..., dict]:
    """A function that runs the five tasks in a new folder and returns all that they measured, without the times."""
    corpus = write_tones(tmp_path / "tones", ["01", "02", "03", "04"], digits=[0, 1, 6], repetitions=4)

    def run(name: str, *flags: str) -> dict:
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for task in range(1, 6):
            run_here(f"task{task}.py", "--data-dir", str(corpus), "--epochs", "2", "--batch-size", "8", *flags)
        measured = {key: json.loads((tmp_path / name / key / "metrics.json").read_text()) for key in DIRECTORIES}
        for metrics in measured.values():
            del metrics["run"]["seconds"]
            del metrics["run"]["arguments"]["num_workers"], metrics["run"]["task2_checkpoint"]  # which holds them too
        plots = (tmp_path / name).glob("*/*.png")
        return measured | {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in plots}

    return run


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
def test_the_same_seed_repeats_every_number_with_any_workers_and_another_cache(run_all, monkeypatch):
    first = run_all("first", "--num-workers", "0")
    used, real = set(), DataLoader.__init__

    def noted(self, *given, num_workers, **options):
        used.add(num_workers)
        real(self, *given, num_workers=num_workers, **options)

    monkeypatch.setattr(DataLoader, "__init__", noted)
    monkeypatch.setattr("common.data.spare_cores", lambda device: 4)
    again = run_all("again", "--num-workers", "4")
    assert used == {0, 4} and len(first) >= len(DIRECTORIES) + 9
    for name, result in first.items():
        assert json.dumps(again[name]) == json.dumps(result), name

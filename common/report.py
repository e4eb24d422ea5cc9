"""The results of the five tasks side by side: ``python -m common.report`` in the folder that holds their outputs.

``run_all.sh`` ends with it and passes the seconds that each task took.
"""

import json
import sys
from pathlib import Path

from common.text import align

DIRECTORIES = {
    "task1": "task1_supervised",
    "task2": "task2_contrastive",
    "task3": "task3_visualization",
    "task4": "task4_biometrics",
    "task5": "task5_finetune",
}


def results_table(folder: Path, seconds: list[str]) -> str:
    """A row per task and model, for the tasks whose results are in ``folder``.

    Args:
        seconds: what each task took, in order; empty where it was not timed.
    """
    rows, corpora = [["task", "model", "test accuracy", "95% interval", "clips", "seconds"]], set()
    for number, (task, directory) in enumerate(DIRECTORIES.items()):
        took = seconds[number] if number < len(seconds) else ""
        path = folder / directory / "metrics.json"
        if path.is_file():
            metrics = json.loads(path.read_text())
            corpora.add(metrics.pop("run")["corpus"])
            task_rows = [_row(model, result) for model, result in metrics.items()]
        else:
            plots = len(list((folder / directory).glob("*.png")))
            task_rows = [[f"{plots} plots" if plots else "no results", "", "", ""]]
        for first, row in enumerate(task_rows):
            rows.append(["" if first else task, *row, "" if first else took])
    return "\n".join([f"Measured on {', '.join(sorted(corpora)) or 'nothing'}", "", *align(rows)])


def _row(model: str, result: dict) -> list[str]:
    low, high = result["test_acc_ci95"]
    return [model, f"{result['test_acc']:.4f}", f"{low:.3f} to {high:.3f}", str(result["test_clips"])]


if __name__ == "__main__":
    print(results_table(Path(), sys.argv[1:]))

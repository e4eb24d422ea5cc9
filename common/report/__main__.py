"""The results of the five tasks: ``python -m common.report`` in the folder that holds their outputs.

Prints a table and writes report.html. ``run_all.sh`` ends with it and passes the seconds that each task took.
"""

import sys
from pathlib import Path

from common.report.page import read_metrics, write_page
from common.report.texts import TASKS
from common.run.console import align

PAGE = Path("report.html")


def results_table(folder: Path, seconds: list[str]) -> str:
    """A row per task and model, for the tasks whose results are in ``folder``.

    Args:
        seconds: what each task took, in order; empty where it was not timed.
    """
    rows, corpora = [["task", "model", "test accuracy", "95% interval", "clips", "seconds"]], set()
    for number, task in enumerate(TASKS):
        took = seconds[number] if number < len(seconds) else ""
        metrics = read_metrics(folder / task.directory / "metrics.json")
        if metrics:
            corpora.add(metrics.pop("run")["corpus"])
            task_rows = [_row(model, result) for model, result in metrics.items()]
        else:
            plots = len(list((folder / task.directory).glob("*.png"))) if task.record == "metrics.txt" else 0
            task_rows = [[f"{plots} plots" if plots else "no results", "", "", ""]]
        for first, row in enumerate(task_rows):
            rows.append(["" if first else task.script.removesuffix(".py"), *row, "" if first else took])
    return "\n".join([f"Measured on {', '.join(sorted(corpora)) or 'nothing'}", "", *align(rows)])


def _row(model: str, result: dict) -> list[str]:
    low, high = result["test_acc_ci95"]
    return [model, f"{result['test_acc']:.4f}", f"{low:.3f} to {high:.3f}", str(result["test_clips"])]


if __name__ == "__main__":
    print(results_table(Path(), sys.argv[1:]))
    write_page(PAGE, Path(), sys.argv[1:])
    print(f"\nWith all pictures: {PAGE}")

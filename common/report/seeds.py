"""Merge the metrics of several seeds into tables of means, standard deviations and intervals over speakers.

    ./run_all.sh 1.0 50 --seeds 1,2,3
    python -m common.report.seeds seed1 seed2 seed3

Each folder holds the folders of the tasks. Prints a Markdown table for each task that all of them have.
"""

import statistics
from pathlib import Path
from typing import Any

from common.report.texts import TASKS
from common.run.cli import Parser, run
from common.run.console import UserError, align, is_detail, is_number, model_name, printable
from common.run.files import read_json

RECORDED = {"seed", "corpus", "clips"}  # what a run must say of itself


def merge(runs: list[dict[str, Any]], only: list[str] | None = None) -> dict[str, dict[str, str]]:
    """The numbers of each model as text, from the metrics of several seeds: {model: {measure: text}}.

    Args:
        only: the measures to show; all, if it is not given.
    """
    merged: dict[str, dict[str, str]] = {}
    for model in (key for key in runs[0] if key != "run"):
        rows = [row if isinstance(row := run.get(model), dict) else {} for run in runs]
        measures = [key for key in rows[0] if not is_detail(key) and (only is None or key in only)]
        measures = [key for key in measures if all(is_number(row.get(key)) for row in rows)]
        merged[model] = {key: _cell(key, rows) for key in measures}
    return merged


def _cell(key: str, rows: list[dict]) -> str:
    values = [row[key] for row in rows]
    mean = statistics.mean(values)
    shown = f"{mean:.3f}" if mean == 0 or abs(mean) >= 0.0005 else f"{mean:.2g}"
    if len(values) > 1:
        shown += f" ± {statistics.stdev(values):.3f}"
    intervals = [row.get(f"{key}_ci95") for row in rows]
    if all(isinstance(interval, list) and len(interval) == 2 for interval in intervals):
        low, high = (statistics.mean(ends) for ends in zip(*intervals, strict=True))
        shown += f" [{low:.3f}, {high:.3f}]"
    return shown


def table(task: str, runs: list[dict[str, Any]], only: list[str] | None = None) -> list[str]:
    """The Markdown lines of one task: the models beside each other, or below each other if they are many."""
    merged, seeds = merge(runs, only), ", ".join(str(run["run"]["seed"]) for run in runs)
    corpora = dict.fromkeys(f"{run['run']['corpus']}, {run['run']['clips']['test']} test clips" for run in runs)
    measures = list(dict.fromkeys(measure for row in merged.values() for measure in row))
    rows = [["", *map(model_name, merged)]]
    rows += [[measure, *(row.get(measure, "") for row in merged.values())] for measure in measures]
    if len(measures) < len(merged):
        rows = [list(column) for column in zip(*rows, strict=True)]
    lines = align([rows[0], ["---"] * len(rows[0]), *rows[1:]], " | ")
    return [printable(f"{TASKS[task][0]} ({'; '.join(corpora)}; seeds {seeds})"), "", *(f"| {x} |" for x in lines), ""]


def main(folders: list[Path], only: list[str] | None = None) -> None:
    shown = False
    for task in TASKS:
        runs = [read_json(folder / task / "metrics.json", None) for folder in folders]
        if all(isinstance(run, dict) and set(run.get("run") or ()) >= RECORDED for run in runs):
            records = [run["run"] for run in runs]
            if len({record["seed"] for record in records}) < len(records):
                raise UserError(f"{task}: two of the runs have the same seed")
            if len({record["corpus"] for record in records}) > 1:  # the clips of a smaller --ratio depend on the seed
                raise UserError(f"{task}: the runs are of different corpora")
            lines = table(task, runs, only)
            print(*lines, sep="\n")
            shown = True
    if not shown:
        raise UserError(f"no task has metrics in all of {', '.join(map(str, folders))}; run them first")
    seeds = f"mean ± standard deviation (ddof 1) over n = {len(folders)} seeds" if len(folders) > 1 else "one seed"
    print(f"{seeds[0].upper()}{seeds[1:]} [95% interval over speakers{', mean of the seeds' * (len(folders) > 1)}].")


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where one seed ran all tasks")
    text = "show these measures, such as test_acc, and no others"
    parser.add_argument("--only", nargs="+", metavar="MEASURE", help=text)
    run(main, parser)

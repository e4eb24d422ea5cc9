"""Merge the metrics of several seeds into tables of means, standard deviations and intervals over speakers.

    ./run_all.sh 1.0 50 --seeds 1,2,3
    python -m common.report.seeds seed1 seed2 seed3

Each folder holds the folders of the tasks. Prints a Markdown table for each task that all of them have.
"""

import statistics
from pathlib import Path

from common.report import TASKS
from common.run import UserError, align, measures, model_name, printable, read_json
from common.run.cli import Parser, run


def cell(key: str, rows: list[dict]) -> str:
    """One measure of a model with all seeds: mean, standard deviation, mean interval; empty where a seed lacks it."""
    values = [row[key] for row in rows if isinstance(row.get(key), int | float)]
    if len(values) < len(rows):
        return ""
    mean = statistics.mean(values)
    shown = f"{mean:.3f}" if mean == 0 or abs(mean) >= 0.0005 else f"{mean:.2g}"
    if len(values) > 1:
        shown += f" ± {statistics.stdev(values):.3f}"
    intervals = [row.get(f"{key}_ci95") for row in rows]
    if all(intervals):
        low, high = (statistics.mean(ends) for ends in zip(*intervals, strict=True))
        shown += f" [{low:.3f}, {high:.3f}]"
    return shown


def table(runs: list[dict[str, dict]], only: list[str] | None) -> list[str]:
    """The Markdown lines of one task: its models beside each other, or below each other if they are many."""
    models = {name: row for name, row in runs[0].items() if name != "run"}
    keys = [key for key in measures(models) if only is None or key in only]
    rows = [["", *map(model_name, models)]]
    rows += [[key, *(cell(key, [run.get(model, {}) for run in runs]) for model in models)] for key in keys]
    rows = [row for row in rows if any(row[1:])]
    if len(rows) <= len(models):
        rows = [list(column) for column in zip(*rows, strict=True)]
    lines = align([rows[0], ["---"] * len(rows[0]), *rows[1:]], " | ")
    return [f"| {line} |" for line in lines]


def main(folders: list[Path], only: list[str] | None = None) -> None:
    tables = []
    for task, title in TASKS.items():
        runs = [read_json(folder / task / "metrics.json", None) for folder in folders]
        if all(runs):
            seeds, corpora = [run["run"]["seed"] for run in runs], {run["run"]["corpus"] for run in runs}
            if len({*seeds}) < len(runs):
                raise UserError(f"{task}: two of the runs have the same seed")
            if len(corpora) > 1:  # the clips of a smaller --ratio depend on the seed
                raise UserError(f"{task}: the runs are of different corpora")
            head = printable(f"{title} ({corpora.pop()}; seeds {', '.join(map(str, seeds))})")
            tables.append("\n".join([head, "", *table(runs, only), ""]))
    if not tables:
        raise UserError(f"no task has metrics in all of {', '.join(map(str, folders))}; run them first")
    print(*tables, sep="\n")
    print(f"Mean ± standard deviation (ddof 1) over {len(folders)} seed(s) [mean of the 95% intervals over speakers].")


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where one seed ran all tasks")
    text = "show these measures, such as test_acc, and no others"
    parser.add_argument("--only", nargs="+", metavar="MEASURE", help=text)
    run(main, parser)

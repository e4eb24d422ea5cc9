"""The results of the five tasks in the current folder: a table on the terminal, and report.html with all pictures.

python -m common.report
python -m common.report --recordings my_seven.wav another.mp3    puts your own voice on the map of the test clips
"""

import base64
import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from common.corpus.clips import SYNTHETIC_NAME
from common.report.findings import finding
from common.report.map import place_recordings, read_map
from common.report.texts import CHARTS, CONTROLS, TASKS
from common.run.cli import Parser, run
from common.run.console import UserError, align, is_number, measures, model_name, printable, score
from common.run.files import read_json, write_atomically


class Results(NamedTuple):
    """What one task left in its folder."""

    folder: str
    title: str
    summary: str
    finished: bool
    models: dict[str, dict]  # the numbers of each model; none in task 3, and in a task that has not finished
    run: dict[str, Any]  # the circumstances, as common.run.output records them
    seconds: str  # that the task took
    pictures: dict[str, Markup]  # in base64


def read_results(name: str, seconds: str) -> Results:
    """What a task left in its folder; if ``seconds`` is empty, its time is taken from the metrics."""
    folder = Path(name)
    metrics = read_json(folder / "metrics.json", {})
    # Metrics of another version may lack anything; what is there is shown.
    models = {key: part for key, part in metrics.items() if isinstance(part, dict)} if isinstance(metrics, dict) else {}
    for numbers in models.values():
        for key in [key for key, value in numbers.items() if key.endswith("_ci95") and not _is_interval(value)]:
            del numbers[key]
    run = models.pop("run", {})
    drawn = [folder / "overview.png"] if (folder / "overview.png").is_file() else sorted(folder.glob("*.png"))
    pictures = {p.stem: Markup(base64.b64encode(p.read_bytes()).decode()) for p in drawn}
    finished = (folder / "metrics.txt").is_file()  # task 3 writes no metrics.json
    seconds = seconds or str(run.get("seconds", ""))
    return Results(name, *TASKS[name], finished, models, run, seconds, pictures)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def overview(results: list[Results]) -> list[list[str]]:
    """A row per model; the first row of each task names the task and the seconds that it took."""
    rows = []
    for result in results:
        task, seconds = result.folder.split("_")[0], result.seconds
        scores = {model_name(model): score(numbers, "test_acc") for model, numbers in result.models.items()}
        for model, accuracy in (scores or {"pictures only" if result.finished else "no results": ""}).items():
            rows.append([task, model, accuracy, seconds])
            task = seconds = ""
    return rows


def chart(results: list[Results]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The groups of the picture of all results: title, and a row per model with its accuracy and interval."""
    groups = []
    for result in results:
        for title, key in CHARTS.get(result.folder, {}).items():
            rows = [
                {"model": model, "value": numbers[key], "interval": numbers[f"{key}_ci95"]}
                for model, numbers in result.models.items()
                if is_number(numbers.get(key)) and f"{key}_ci95" in numbers
            ]
            groups += [(title, rows)] if rows else []
    return groups


def write_page(path: Path, **content: Any) -> None:
    """Write an HTML file that holds the tables, pictures and sounds of all tasks, and needs no network.

    Raises:
        UserError: the file cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        # Names of corpora, speakers and files may hold control characters.
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    environment.filters |= {"model_name": model_name, "score": score}
    helpers = {"measures": measures, "is_control": lambda model: model.startswith(CONTROLS)}
    lowest = min((row["interval"][0] for _, rows in content["groups"] for row in rows), default=0.0)
    start = min(math.floor(10 * lowest) / 10, 0.8)  # of the picture's scale, which ends with 1
    helpers["percent"] = lambda value: round(100 * (value - start) / (1 - start), 2)
    write_atomically(path, environment.get_template("page.html").render(content | helpers | {"start": start}))


def main(seconds: list[str], recordings: list[Path]) -> None:
    took = itertools.chain(seconds, itertools.repeat(""))
    results = [read_results(*each) for each in zip(TASKS, took, strict=False)]
    if not any(result.finished for result in results):
        raise UserError(f"no task has finished in {Path.cwd()}; run run_all.sh there, or change to the folder of a run")
    corpora = sorted({result.run.get("corpus", "an unknown corpus") for result in results if result.models})
    rows = [["task", "model", "test accuracy", "seconds"], *overview(results)]
    points = read_map(Path("task3_visualization/map.json"))
    placed = place_recordings(points, recordings) if recordings else []
    shown = {key: points[key] for key in ("models", "colours", "clips") if points}
    shown["recordings"] = [each for each in placed if "places" in each]
    content: dict[str, Any] = {"results": results, "corpora": corpora, "rows": rows, "groups": chart(results)}
    models = {result.folder: result.models for result in results}
    content["findings"] = {folder: finding(folder, models) for folder in models}
    write_page(Path("report.html"), **content, map=shown if points else None, synthetic=SYNTHETIC_NAME)
    print(f"Measured on {printable(', '.join(corpora)) or 'nothing'}\n")
    print("\n".join(align(rows)))
    print("\nWith all pictures: report.html")
    if unusable := len(placed) - len(shown["recordings"]):
        raise UserError(f"--recordings: {unusable} of {len(placed)} cannot be used, for the reasons above")


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("seconds", nargs="*", metavar="SECONDS", help="how long each task took, in their order")
    text = "sound files of one spoken digit each, to put on the map"
    parser.add_argument("--recordings", nargs="+", type=Path, default=[], metavar="FILE", help=text)
    run(main, parser)

"""The results of the five tasks in the current folder: a table on the terminal, and report.html with all pictures."""

import argparse
import base64
import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from common.corpus.clips import SYNTHETIC_NAME
from common.report.texts import TASKS
from common.run.console import UserError, align, is_detail, model_name, printable, score, set_up_output
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
    examples: list[dict]


def read_results(name: str, seconds: str) -> Results:
    """What a task left in its folder; if ``seconds`` is empty, its time is taken from the metrics."""
    folder = Path(name)
    metrics = read_json(folder / "metrics.json", {})
    # Metrics of another version may lack anything; what is there is shown.
    models = {key: part for key, part in metrics.items() if isinstance(part, dict)} if isinstance(metrics, dict) else {}
    run = models.pop("run", {})
    pictures = {p.stem: Markup(base64.b64encode(p.read_bytes()).decode()) for p in sorted(folder.glob("*.png"))}
    examples = read_json(folder / "examples.json", [])
    finished = (folder / "metrics.txt").is_file()  # task 3 writes no metrics.json
    seconds = seconds or str(run.get("seconds", ""))
    return Results(name, *TASKS[name], finished, models, run, seconds, pictures, examples)


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
    write_atomically(path, environment.get_template("page.html").render(content | {"is_detail": is_detail}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m common.report", description=__doc__)
    parser.add_argument("seconds", nargs="*", metavar="SECONDS", help="how long each task took, in their order")
    set_up_output()
    seconds = itertools.chain(parser.parse_args().seconds, itertools.repeat(""))
    results = [read_results(folder, took) for folder, took in zip(TASKS, seconds, strict=False)]
    corpora = sorted({result.run.get("corpus", "an unknown corpus") for result in results if result.models})
    rows = [["task", "model", "test accuracy", "seconds"], *overview(results)]
    try:
        write_page(Path("report.html"), results=results, corpora=corpora, rows=rows, synthetic=SYNTHETIC_NAME)
    except UserError as error:
        sys.exit(f"{parser.prog}: error: {error}")
    print(f"Measured on {printable(', '.join(corpora)) or 'nothing'}\n", *align(rows), sep="\n")
    print("\nWith all pictures: report.html")

"""The results of the five tasks in the current folder: a table on the terminal, and report.html with all pictures.

python -m common.report
"""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from common.corpus import SYNTHETIC_NAME
from common.report import TASKS
from common.run import UserError, align, model_name, printable, read_json, score, write_atomically
from common.run.cli import Parser, run


def overview(metrics: dict[str, dict]) -> list[list[str]]:
    """A row per model with its test accuracy."""
    rows = [["task", "model", "test accuracy"]]
    for folder, models in metrics.items():
        scores = {model: score(numbers, "test_acc") for model, numbers in models.items() if model != "run"}
        rows += [[folder, model_name(model), shown] for model, shown in scores.items()]
    return rows


def pictures(folder: str) -> dict[str, str]:
    """The pictures of a task in base64; where one shows all others side by side, that one."""
    drawn = list(Path(folder).glob("overview.png")) or sorted(Path(folder).glob("*.png"))
    return {path.stem: base64.b64encode(path.read_bytes()).decode() for path in drawn}


def main() -> None:
    metrics = {folder: read_json(Path(folder, "metrics.json"), None) for folder in TASKS}
    metrics = {folder: content for folder, content in metrics.items() if content}
    texts = {folder: path.read_text("utf-8") for folder in TASKS if (path := Path(folder, "metrics.txt")).is_file()}
    if not texts:
        raise UserError(f"no task has finished in {Path.cwd()}; run run_all.sh there, or change to the folder of a run")
    corpora = sorted({printable(models["run"]["corpus"]) for models in metrics.values()})
    # A page that holds all pictures and sounds needs no network.
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters["model_name"] = model_name
    environment.globals |= {"pictures": pictures, "synthetic": SYNTHETIC_NAME, "tasks": TASKS}
    points = read_json(Path("task3_visualization/map.json"), None)
    page = environment.get_template("page.html").render(texts=texts, corpora=corpora, map=points)
    write_atomically(Path("report.html"), page)
    print(f"Measured on {', '.join(corpora) or 'nothing'}\n")
    print("\n".join(align(overview(metrics))))
    print("\nWith all pictures: report.html")


if __name__ == "__main__":
    run(main, Parser(__doc__))

"""The results of the five tasks in the current folder: a table on the terminal, and report.html with all pictures.

python -m common.report
"""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from common.corpus import SYNTHETIC_NAME
from common.report import TASKS, Results, read_results
from common.run import UserError, align, measures, model_name, printable, read_json, score, write_atomically
from common.run.cli import Parser, run

CLIP_PARTS = {"name", "speaker", "digit", "predicted", "places", "sound"}


def overview(results: list[Results]) -> list[list[str]]:
    """A row per model; the first row of each task names the task and the seconds that it took."""
    rows = [["task", "model", "test accuracy", "seconds"]]
    for result in results:
        task, seconds = result.folder.split("_")[0], str(result.run.get("seconds", ""))
        scores = {model_name(model): score(numbers, "test_acc") for model, numbers in result.models.items()}
        for model, accuracy in (scores or {"pictures only" if result.finished else "no results": ""}).items():
            rows.append([task, model, accuracy, seconds])
            task = seconds = ""
    return rows


def pictures(folder: str) -> dict[str, Markup]:
    """The pictures of a task in base64; where one shows all others side by side, that one."""
    drawn = [path for path in (Path(folder, "overview.png"),) if path.is_file()] or sorted(Path(folder).glob("*.png"))
    return {path.stem: Markup(base64.b64encode(path.read_bytes()).decode()) for path in drawn}


def read_map(path: Path) -> Any:
    """The points and sounds of the test clips that task 3 wrote; None if they are missing or of another version."""
    stored = read_json(path, None)
    try:
        whole = stored["models"] and stored["colours"] and all(clip.keys() >= CLIP_PARTS for clip in stored["clips"])
    except (AttributeError, LookupError, TypeError):
        return None
    return stored if whole else None


def page(results: list[Results], corpora: list[str]) -> str:
    """HTML that holds the tables, pictures and sounds of all tasks, and needs no network."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        # Names of corpora, speakers and files may hold control characters.
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    environment.filters |= {"model_name": model_name, "score": score, "measures": measures, "pictures": pictures}
    template = environment.get_template("page.html")
    points = read_map(Path("task3_visualization/map.json"))
    return template.render(tasks=TASKS, results=results, corpora=corpora, synthetic=SYNTHETIC_NAME, map=points)


def main() -> None:
    results = [read_results(Path(folder)) for folder in TASKS]
    if not any(result.finished for result in results):
        raise UserError(f"no task has finished in {Path.cwd()}; run run_all.sh there, or change to the folder of a run")
    corpora = sorted({result.run.get("corpus", "an unknown corpus") for result in results if result.models})
    write_atomically(Path("report.html"), page(results, corpora))
    print(f"Measured on {printable(', '.join(corpora)) or 'nothing'}\n")
    print("\n".join(align(overview(results))))
    print("\nWith all pictures: report.html")


if __name__ == "__main__":
    run(main, Parser(__doc__))

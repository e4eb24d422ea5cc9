"""All results on one page: an HTML file that holds its tables, pictures and sounds, and needs no network."""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.corpus.clips import SYNTHETIC_NAME
from common.report.texts import MEANINGS, TASKS, Task
from common.run.console import model_name, printable
from common.run.files import is_own_picture, write_atomically


class Results(NamedTuple):
    """What one task left in its folder."""

    task: Task
    finished: bool
    models: dict[str, dict]  # the numbers of each model; none in task 3, and in a task that has not finished
    run: dict[str, Any]  # the circumstances, as common.run.output records them; any of them may be missing
    seconds: str  # that the task took
    pictures: dict[str, Markup]  # in base64
    examples: list[dict]

    @property
    def summary(self) -> dict[str, tuple[str, str, str]]:
        """The test accuracy of each model; without models, a remark instead."""
        scores = {model: score(numbers, "test_acc") for model, numbers in self.models.items()}
        return scores or {"pictures only" if self.finished else "no results": ("", "", "")}

    @property
    def measures(self) -> list[str]:
        """The keys of the models' numbers, without those that ``score`` adds to an accuracy."""
        keys = dict.fromkeys(key for numbers in self.models.values() for key in numbers)
        return [key for key in keys if not key.endswith(("_ci95", "_clips"))]


def read_results(folder: Path, seconds: list[str]) -> list[Results]:
    """What the five tasks left below ``folder``.

    Args:
        seconds: how long each task took, in their order; what is not given is taken from the metrics.
    """
    results = []
    for number, task in enumerate(TASKS):
        output = folder / task.directory
        metrics = read_json(output / "metrics.json")
        if not isinstance(metrics, dict) or not all(isinstance(part, dict) for part in metrics.values()):
            metrics = {}
        run = metrics.pop("run", {})
        took = seconds[number] if number < len(seconds) else str(run.get("seconds", ""))
        finished = bool(metrics) or (task.only_pictures and (output / "metrics.txt").is_file())
        paths = filter(is_own_picture, sorted(output.glob("*.png")))
        pictures = {path.stem: Markup(base64.b64encode(path.read_bytes()).decode()) for path in paths}
        examples = read_json(output / "examples.json") or []
        results.append(Results(task, finished, metrics, run, took, pictures, examples))
    return results


def read_json(path: Path) -> Any:
    """What a JSON file holds; ``None`` where it is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def corpora(results: list[Results]) -> list[str]:
    """The names of the corpora that the tasks ran on."""
    return sorted({result.run["corpus"] for result in results if "corpus" in result.run and result.models})


def score(numbers: dict, key: str) -> tuple[str, str, str]:
    """One of a model's numbers, its 95% interval and its number of clips, as text; empty where they are not known."""
    value, clips = numbers.get(key), numbers.get(f"{key.removesuffix('_acc')}_clips")
    interval = " to ".join(f"{limit:.3f}" for limit in numbers.get(f"{key}_ci95") or [])
    shown = f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
    return shown, interval, "" if clips is None else str(clips)


def write_page(path: Path, results: list[Results]) -> None:
    """Write the page of the results; it says what is missing.

    Raises:
        UserError: the file cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        # Names of corpora, speakers and files may hold control characters.
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    environment.filters |= {"model_name": model_name, "score": score}
    page = environment.get_template("page.html").render(
        results=results, corpora=corpora(results), synthetic=SYNTHETIC_NAME, meanings=MEANINGS
    )
    write_atomically(path, page)

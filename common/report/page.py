"""All results on one page: an HTML file that holds its tables, pictures and sounds, and needs no network."""

import base64
import json
import time
from html import escape
from pathlib import Path
from string import Template

from common.corpus.clips import SYNTHETIC_NAME
from common.report.texts import MEANINGS, SPEAKER_MEANING, TASKS, Pictures, Task
from common.run.console import model_name, printable
from common.run.files import write_atomically

TEMPLATE = Path(__file__).with_name("page.html")
MOST_COLUMNS = 3  # of models; more become rows


def write_page(path: Path, folder: Path, seconds: list[str]) -> None:
    """Write the page of the tasks whose outputs are in ``folder``; what is missing or unfinished is said to be.

    Args:
        seconds: what each task took, in order; empty where it was not timed.
    """
    found = {task: read_metrics(folder / task.directory / "metrics.json") for task in TASKS}
    corpora = {metrics["run"]["corpus"] for metrics in found.values() if metrics}
    sections = [_section(task, metrics, folder / task.directory) for task, metrics in found.items()]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title="Audio Deep Learning Tasks: report",
        head=_head(corpora),
        links=" ".join(f'<a href="#{task.directory}">{_text(task.title)}</a>' for task in TASKS),
        body="\n".join([_summary(found, seconds), *sections]),
        foot=f"Written on {time.strftime('%Y-%m-%d at %H:%M')} by <code>python -m common.report</code>. "
        "Everything on this page is inside this one file.",
    )
    write_atomically(path, page.encode())


def read_metrics(path: Path) -> dict | None:
    """What a finished task wrote; ``None`` where there is nothing to read, because it did not finish."""
    try:
        metrics = json.loads(path.read_bytes())
        metrics["run"]["corpus"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return metrics


def _text(value: object) -> str:
    """Any value as HTML that shows it as it is."""
    return escape(printable(str(value)))


def _head(corpora: set[str]) -> str:
    lines = [f"<p>Measured on <strong>{_text(', '.join(sorted(corpora)) or 'nothing yet')}</strong>.</p>"]
    if SYNTHETIC_NAME in corpora:
        note = (
            "Synthetic speech is made by a program and far easier than people are: its numbers show that everything "
            "works. They are not AudioMNIST numbers."
        )
        lines.append(f'<p class="notice">{note}</p>')
    if len(corpora) > 1:
        lines.append('<p class="notice">The tasks ran on different corpora: do not compare them.</p>')
    return "\n".join(lines)


def _summary(found: dict[Task, dict | None], seconds: list[str]) -> str:
    rows = [["Task", "Model", "Right", "Seconds"]]
    for number, (task, metrics) in enumerate(found.items()):
        name = task.title.split(":")[0]
        took = seconds[number] if number < len(seconds) else f"{metrics['run']['seconds']:g}" if metrics else ""
        if metrics:
            for first, (model, result) in enumerate(_models(metrics).items()):
                rows.append([name, model_name(model), _cell(result, "test_acc"), "" if first else took])
        elif task.record == "metrics.json":
            rows.append([name, "no results", "", took])
    caption = "Test accuracy on people whom no model heard: of digits, in task 4 of speakers"
    return "<h2>Results at a glance</h2>\n" + _table(rows, caption)


def _models(metrics: dict) -> dict[str, dict]:
    return {model: result for model, result in metrics.items() if model != "run"}


def _section(task: Task, metrics: dict | None, folder: Path) -> str:
    parts = [f'<section id="{task.directory}">', f"<h2>{_text(task.title)}</h2>", f"<p>{_text(task.question)}</p>"]
    if not (folder / task.record).is_file() or (metrics is None and task.record == "metrics.json"):
        remedy = f"python {task.script}" + (" --resume" if list(folder.glob("*/last.ckpt")) else "")
        parts.append(f'<p class="notice">No results: it has not finished here. Run <code>{remedy}</code>.</p>')
        return "\n".join([*parts, "</section>"])
    if metrics:
        parts += [_facts(metrics["run"]), _results(task, metrics)]
    parts += [_pictures(group, folder) for group in task.pictures]
    if metrics and (folder / "examples.json").is_file():
        parts.append(_clips(json.loads((folder / "examples.json").read_bytes()), metrics["run"]["corpus"]))
    if metrics:
        parts.append(_settings(metrics["run"]))
    return "\n".join([*parts, "</section>"])


def _facts(run: dict) -> str:
    clips = ", ".join(f"{count:,} {name}" for name, count in run["clips"].items())
    sizes = " + ".join(f"{count:,} ({model_name(name)})" for name, count in run["parameters"].items())
    facts = f"{run['corpus']}: {clips} clips of {run['speakers']} speakers. Seed {run['seed']}."
    return f'<p class="quiet">{_text(facts)} {_text(sizes)} encoder parameters. {run["seconds"]:g} s.</p>'


def _results(task: Task, metrics: dict) -> str:
    models = _models(metrics)
    keys = list(dict.fromkeys(key for result in models.values() for key in result))
    keys = [key for key in keys if not key.endswith(("_ci95", "_clips"))]
    names = [MEANINGS.get(key, (key, ""))[0] for key in keys]
    table = [
        ["Model", *names],
        *([model_name(model), *(_cell(row, key) for key in keys)] for model, row in models.items()),
    ]
    if len(models) <= MOST_COLUMNS:
        table = [list(row) for row in zip(*table, strict=True)]
    known = {key: MEANINGS[key] for key in keys if key in MEANINGS}
    if task.directory == "task4_biometrics":
        known["test_acc"] = (known["test_acc"][0], SPEAKER_MEANING)
    meanings = "".join(f"<dt>{_text(name)}</dt><dd>{_text(meaning)}</dd>" for name, meaning in known.values())
    return _table(table, f"Measured on {metrics['run']['corpus']}") + f"\n<dl>{meanings}</dl>"


def _cell(result: dict, key: str) -> str:
    value = result.get(key)
    shown = f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
    if f"{key}_ci95" not in result:
        return shown
    low, high = result[f"{key}_ci95"]
    return f"{shown}\n{low:.3f} to {high:.3f},\nn = {result[key.removesuffix('_acc') + '_clips']:,}"


def _table(rows: list[list[str]], caption: str) -> str:
    """A table of plain text with a head row and a head column; what follows a line end in a cell is small."""

    def cell(content: str, tag: str) -> str:
        value, *more = content.split("\n")
        small = " ".join(f"<small>{_text(line)}</small>" for line in more)
        return f"<{tag}>{_text(value)}{'<br>' if more else ''}{small}</{tag.split()[0]}>"

    head = "".join(cell(content, 'th scope="col"') for content in rows[0])
    body = "\n".join(
        "<tr>" + cell(row[0], 'th scope="row"') + "".join(cell(content, "td") for content in row[1:]) + "</tr>"
        for row in rows[1:]
    )
    caption = f"<caption>{_text(caption)}</caption>"
    table = f"<table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _pictures(group: Pictures, folder: Path) -> str:
    figures = []
    for name in group.files:
        title = f"{group.heading}: {model_name(Path(name).stem)}"
        if (folder / name).is_file():
            image = base64.b64encode((folder / name).read_bytes()).decode()
            figures.append(f'<figure><img src="data:image/png;base64,{image}" alt="{_text(title)}"></figure>')
        else:
            figures.append(f'<p class="notice">{_text(name)} is not there.</p>')
    grid = f'<div class="grid of{group.columns}">{"".join(figures)}</div>'
    return f'<h3>{_text(group.heading)}</h3>\n<p class="quiet">{_text(group.caption)}</p>\n{grid}'


def _clips(examples: list[dict], corpus: str) -> str:
    cards = []
    for example in examples:
        said = f"{example['digit']}, said by speaker {example['speaker']}"
        heard = []
        for model, digit in example["heard"].items():
            verdict = "right" if digit == example["digit"] else "wrong"
            heard.append(f'<li class="{verdict}">{_text(model_name(model))} heard {_text(digit)}: {verdict}</li>')
        source = f"data:audio/wav;base64,{_text(example['wav'])}"
        sound = f'<audio controls aria-label="{_text(said)}" src="{source}"></audio>'
        name = f"<small>{_text(example['clip'])}</small>"
        cards.append(f'<div class="clip"><strong>{_text(said)}</strong>{sound}<ul>{"".join(heard)}</ul>{name}</div>')
    note = f"Test clips of {corpus}, those that a model got wrong first, as the models heard them: 1 s at 16 kHz."
    return f'<h3>Listen</h3>\n<p class="quiet">{_text(note)}</p>\n<div class="grid of3">{"".join(cards)}</div>'


def _settings(run: dict) -> str:
    values = run["arguments"] | {"skipped clips": run["skipped"], "ignored files": run["ignored"]} | run["versions"]
    pairs = "".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in values.items())
    return f"<details><summary>Settings and versions</summary><dl>{pairs}</dl></details>"

"""Pictures of results, embeddings, and what was learned. Nothing here measures anything.

Every function writes one PNG file, ``path``, with a title and a caption that names the data. A key of a model in the
title is shown as ``model_name`` writes it.
"""

import io
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix

from common.run import PICTURE_MARK, model_name, shortened, write_atomically

if TYPE_CHECKING:
    from common.data import SpokenDigits
    from common.evaluate import Predictions

MORE_FONTS = re.compile("CJK|PingFang|YaHei|WenQuanYi|Arial Unicode")  # for names in more languages, if installed
STYLE = {
    "font.family": ["DejaVu Sans", *sorted(filter(MORE_FONTS.search, {font.name for font in fontManager.ttflist}))[:4]],
    "text.parse_math": False,  # names of speakers and corpora come from folders and may contain dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.6",
    "legend.frameon": False,
    "legend.fontsize": 9,
}
# Okabe and Ito's colours without yellow, which is too light on white.
BLUE, GREEN, ORANGE = "#0072B2", "#009E73", "#D55E00"
COLORS = (BLUE, "#E69F00", GREEN, "#CC79A7", "#56B4E9", ORANGE, "#000000")
Measured = tuple[float, list[float]]  # an accuracy and its 95% interval
MAX_CLASSES = 26  # of a confusion matrix that has room for every number and name


@contextmanager
def picture(path: Path, width: float, height: float, title: str, caption: str) -> Iterator[Figure]:
    """Give a new figure of ``width`` x ``height`` inches to the ``with`` block, and write it at the end.

    It does not depend on the user's matplotlib settings.

    Raises:
        UserError: the file cannot be written.
    """
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # not all fonts have the weights it looks for
    with style.context(["default", STYLE]):
        figure = Figure((width, height), dpi=150, layout="constrained")  # not pyplot's, which would be kept
        figure.suptitle(model_name(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=9, color="0.35")
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", bbox_inches="tight", metadata={"Software": PICTURE_MARK.decode()})
    write_atomically(path, content.getvalue())


def ending(name: str, length: int) -> str:
    """At most ``length`` characters of a name: its end, because similar names tend to differ there."""
    return shortened(name[::-1], length)[::-1]


def draw_classifier(folder: Path, name: str, history: list[dict], test: "Predictions", data: "SpokenDigits") -> None:
    """Draw the learning curves of a digit classifier and its confusion matrix, see below."""
    draw_learning_curves(folder / f"{name}_curves.png", history, f"Training, {name}", data.caption("train", "val"))
    true, predicted = test.digit.numpy(), test.predicted
    draw_confusion(folder / f"{name}_confusion.png", true, predicted, f"Digits, {name}", data.caption("test"))


def draw_learning_curves(path: Path, history: list[dict[str, float]], title: str, caption: str) -> None:
    """Draw loss and accuracy by epoch, and mark the epoch with the lowest validation loss, which is kept.

    Args:
        history: a dict for each epoch: epoch, train_loss, val_loss, and train_acc and val_acc if there are labels.
    """
    measures = [measure for measure in ("loss", "acc") if f"train_{measure}" in history[0]]
    epochs = [row["epoch"] for row in history]
    kept = min(history, key=lambda row: row["val_loss"])
    marker = "o" if len(epochs) < 20 else ""  # one epoch alone makes no line
    with picture(path, 7, 3.6, title, caption) as figure:
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        for axes, measure in zip(panels, measures, strict=True):
            for stage, label, color, line in (("train", "training", ORANGE, "--"), ("val", "validation", BLUE, "-")):
                values = [row[f"{stage}_{measure}"] for row in history]
                axes.plot(epochs, values, line, marker=marker, markersize=3, color=color, label=label)
            axes.plot(kept["epoch"], kept[f"val_{measure}"], "o", color=BLUE, label=f"kept: epoch {kept['epoch']}")
            axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5), ylabel="loss")
            if measure == "acc":
                axes.set(ylabel="accuracy", ylim=(0, 1.03))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(axis="y", color="0.93")
        panels[-1].legend()


def draw_accuracies(
    path: Path, series: dict[str, dict[str, Measured]], title: str, caption: str, lines: dict[str, float]
) -> None:
    """Draw accuracies as points with their 95% intervals: a row for each model or condition, a colour for each series.

    Args:
        series: {series: {row: (accuracy, interval)}}, all with the same rows.
        lines: accuracies to compare with, such as chance; those below the intervals are left out.
    """
    rows = list(next(iter(series.values())))
    lowest = min(interval[0] for results in series.values() for _, interval in results.values())
    left = max(0, np.floor(20 * lowest - 1) / 20)
    with picture(path, 7, 1.2 + 0.5 * len(rows), title, caption) as figure:
        axes = figure.subplots()
        for index, (name, results) in enumerate(series.items()):
            y = np.arange(len(rows)) + 0.36 * (index - (len(series) - 1) / 2)
            values = np.array([results[row][0] for row in rows])
            low, high = np.array([results[row][1] for row in rows]).T
            bars, label = [values - low, high - values], model_name(name)
            color = (BLUE, ORANGE, GREEN)[index]
            axes.errorbar(values, y, xerr=bars, fmt="os"[index % 2], capsize=2, color=color, label=label)
            for value, place in zip(values, y, strict=True):
                right_of_axes = axes.get_yaxis_transform()
                axes.text(1.01, place, f"{value:.3f}", transform=right_of_axes, color=color, va="center", fontsize=9)
        for (label, value), line in zip(lines.items(), (":", "--"), strict=False):
            if value > left:
                axes.axvline(value, color="0.4", linestyle=line, label=label)
        axes.set_yticks(range(len(rows)), map(model_name, rows))
        axes.set(xlim=(left, 1.005), ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy")
        axes.grid(axis="x", color="0.93")
        figure.legend(loc="outside right upper")


def measured(numbers: dict[str, Any], prefix: str = "test") -> Measured:
    """An accuracy among the numbers of a model, with its interval."""
    return numbers[f"{prefix}_acc"], numbers[f"{prefix}_acc_ci95"]


def draw_conditions(path: Path, results: dict[str, dict], caption: str) -> None:
    """Draw how accurate the models of task 1 are in each condition, ``common.conditions``."""
    keys = [key.removesuffix("_acc_ci95") for key in results["1d"] if key.endswith("_acc_ci95")]
    shown = {("clean" if key == "test" else key): key for key in keys}
    series = {name: {label: measured(row, key) for label, key in shown.items()} for name, row in results.items()}
    title = "Accuracy in noise, babble, rooms and a telephone's band"
    draw_accuracies(path, series, title, f"{caption}, 95% intervals over speakers", {"chance": 0.1})


def draw_probes(path: Path, results: dict[str, dict], caption: str) -> None:
    """Draw how well digits are read from the embeddings of task 2, trained and untrained."""
    names = ("1d", "2d", "concat")
    series = {"trained": {name: measured(results[name]) for name in names}}
    series["untrained"] = {name: measured(results[f"untrained_{name}"]) for name in names}
    lines = {"chance": 0.1, "log-mel statistics": results["logmel"]["test_acc"]}
    title = "Linear probes: digits from frozen embeddings"
    draw_accuracies(path, series, title, f"{caption}, 95% intervals over speakers", lines)


def draw_speakers(path: Path, results: dict[str, dict], caption: str) -> None:
    """Draw how many queries of other digits task 4 identifies, over the same channel and over others."""
    keys = {"same microphone": "text_independent", "other microphones": "mismatch_text_independent"}
    if all("text_independent_acc" in row for row in results.values()):
        series = {label: {name: measured(row, key) for name, row in results.items()} for label, key in keys.items()}
        lines = {"chance": results["1d"]["text_independent_chance"]}
        title = "Speakers identified by other digits than enrolled"
        draw_accuracies(path, series, title, f"{caption}, 95% intervals over speakers", lines)


def draw_confusion(
    path: Path, true: np.ndarray, predicted: np.ndarray, title: str, caption: str, names: Sequence[str] = "0123456789"
) -> None:
    """Draw a confusion matrix: numbers of clips, coloured by their share of the true class.

    Args:
        true, predicted: [n] indices into ``names``. Classes that do not occur are left out.
    """
    classes = np.union1d(true, predicted)
    counts = confusion_matrix(true, predicted, labels=classes)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    step = -(-len(classes) // MAX_CLASSES)
    labels = [ending(names[index], 14) for index in classes[::step]]
    with picture(path, 6.4, 6, title, caption) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, label="share of the true class", shrink=0.6)
        if step == 1:
            for row, column in zip(*counts.nonzero(), strict=True):
                font: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": min(9, 150 / len(classes))}
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), color=color, **font)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(range(0, len(classes), step), labels, fontsize=9)
        axes.tick_params(axis="x", rotation=90 if max(map(len, labels)) > 2 else 0)
        axes.set(xlabel="predicted", ylabel="true")

"""Pictures of results, embeddings, and what was learned. Nothing here measures anything.

Every function writes one PNG file, ``path``, with a title and a caption that names the data.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.run import PICTURE_MARK, model_name, shortened, write_atomically

if TYPE_CHECKING:
    from common.data import SpokenDigits
    from common.evaluate import Predictions

STYLE = {
    "text.parse_math": False,  # names of speakers and corpora come from folders and may contain dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.6",
    "legend.frameon": False,
    "legend.fontsize": 9,
}
# Okabe and Ito's colours without yellow, which is too light on white.
BLUE, ORANGE = "#0072B2", "#D55E00"
COLORS = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", ORANGE, "#000000")
Measured = tuple[float, list[float]]  # an accuracy and its 95% interval
MAX_CLASSES = 26  # of a confusion matrix that has room for every number and name


@contextmanager
def picture(path: Path, width: float, height: float, title: str, caption: str) -> Iterator[Figure]:
    """Give a new figure of ``width`` x ``height`` inches to the ``with`` block, and write it at the end.

    Raises:
        UserError: the file cannot be written.
    """
    with style.context(["default", STYLE]):  # whatever the user's matplotlib settings are
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
    """Draw the learning curves of a digit classifier and its confusion matrix."""
    draw_learning_curves(folder / f"{name}_curves.png", history, f"Training, {name}", data.caption("train", "val"))
    true, predicted = test.digit.numpy(), test.predicted
    draw_confusion(folder / f"{name}_confusion.png", true, predicted, f"Digits, {name}", data.caption("test"))


def draw_learning_curves(path: Path, history: list[dict[str, float]], title: str, caption: str) -> None:
    """Draw loss and accuracy by epoch, and mark the epoch with the lowest validation loss, which is kept.

    Args:
        history: a dict for each epoch: epoch, train_loss, val_loss, and train_acc and val_acc if there are labels.
    """
    measures = {"loss": "loss", "acc": "accuracy"} if "train_acc" in history[0] else {"loss": "loss"}
    epochs = [row["epoch"] for row in history]
    kept = min(history, key=lambda row: row["val_loss"])
    with picture(path, 7, 3.6, title, caption) as figure:
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        for axes, (measure, name) in zip(panels, measures.items(), strict=True):
            for stage, label, color, line in (("train", "training", ORANGE, "--"), ("val", "validation", BLUE, "-")):
                values = [row[f"{stage}_{measure}"] for row in history]
                axes.plot(epochs, values, line, marker=".", color=color, label=label)  # one epoch alone makes no line
            axes.plot(kept["epoch"], kept[f"val_{measure}"], "o", color=BLUE, label=f"kept: epoch {kept['epoch']}")
            axes.set(xlabel="epoch", ylabel=name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(axis="y", color="0.93")
        panels[0].legend()


def draw_accuracies(
    path: Path, series: dict[str, dict[str, Measured]], title: str, caption: str, lines: dict[str, float]
) -> None:
    """Draw accuracies as points with their 95% intervals: a row for each model or condition, a colour for each series.

    Args:
        series: {series: {row: (accuracy, interval)}} of two series with the same rows.
        lines: accuracies to compare with, such as chance; those below the intervals are left out.
    """
    rows = next(iter(series.values())).keys()
    lowest = min(interval[0] for results in series.values() for _, interval in results.values())
    left = max(0, np.floor(20 * lowest - 1) / 20)
    with picture(path, 7, 1.4 + 0.5 * len(rows), title, f"{caption}, 95% intervals over speakers") as figure:
        axes = figure.subplots()
        looks = ((BLUE, "o", -0.18), (ORANGE, "s", 0.18))
        for (name, results), (color, marker, shift) in zip(series.items(), looks, strict=True):
            y = np.arange(len(rows)) + shift
            values = np.array([value for value, _ in results.values()])
            bars = np.abs(np.array([interval for _, interval in results.values()]).T - values)  # [low and high, rows]
            axes.errorbar(values, y, xerr=bars, fmt=marker, capsize=2, color=color, label=model_name(name))
            for place, value in zip(y, values, strict=True):
                right_of_axes: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
                axes.annotate(f"{value:.3f}", (1.01, place), color=color, fontsize=9, **right_of_axes)
        for (label, value), line in zip(lines.items(), (":", "--"), strict=False):
            if value > left:
                axes.axvline(value, color="0.4", linestyle=line, label=label)
        axes.set_yticks(range(len(rows)), map(model_name, rows))
        axes.set(xlim=(left, 1.005), ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy")
        axes.grid(axis="x", color="0.93")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4)


def measured(numbers: dict[str, Any], prefix: str = "test") -> Measured:
    """An accuracy among the numbers of a model, with its interval."""
    return numbers[f"{prefix}_acc"], numbers[f"{prefix}_acc_ci95"]


def draw_conditions(path: Path, results: dict[str, dict], caption: str) -> None:
    """Draw how accurate the models of task 1 are in each condition, ``common.conditions``."""
    keys = [key.removesuffix("_acc_ci95") for key in results["1d"] if key.endswith("_acc_ci95")]
    shown = {("clean" if key == "test" else key): key for key in keys}
    series = {name: {label: measured(row, key) for label, key in shown.items()} for name, row in results.items()}
    draw_accuracies(path, series, "Accuracy in noise, babble, rooms and a telephone's band", caption, {"chance": 0.1})


def draw_probes(path: Path, results: dict[str, dict], caption: str) -> None:
    """Draw how well digits are read from the embeddings of task 2, trained and untrained."""
    names = ("1d", "2d", "concat")
    series = {"trained": {name: measured(results[name]) for name in names}}
    series["untrained"] = {name: measured(results[f"untrained_{name}"]) for name in names}
    lines = {"chance": 0.1, "log-mel statistics": results["logmel"]["test_acc"]}
    draw_accuracies(path, series, "Linear probes: digits from frozen embeddings", caption, lines)


def draw_speakers(path: Path, results: dict[str, dict], caption: str) -> None:
    """Draw how many queries of other digits task 4 identifies, over the same channel and over others."""
    keys = {"same microphone": "text_independent", "other microphones": "mismatch_text_independent"}
    if "text_independent_acc" in results["1d"]:  # not where no speaker said some of 0 to 4 and some of 5 to 9
        series = {label: {name: measured(row, key) for name, row in results.items()} for label, key in keys.items()}
        lines = {"chance": results["1d"]["text_independent_chance"]}
        draw_accuracies(path, series, "Speakers identified by other digits than enrolled", caption, lines)


def draw_confusion(
    path: Path, true: np.ndarray, predicted: np.ndarray, title: str, caption: str, names: Sequence[str] = "0123456789"
) -> None:
    """Draw a confusion matrix: numbers of clips, coloured by their share of the true class.

    Args:
        true, predicted: [n] indices into ``names``. Classes that do not occur are left out.
    """
    classes, index = np.unique(np.stack([true, predicted]), return_inverse=True)
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, tuple(index), 1)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    step = -(-len(classes) // MAX_CLASSES)
    labels = [ending(names[index], 14) for index in classes[::step]]
    with picture(path, 6.4, 6, title, caption) as figure:
        axes = figure.subplots()
        figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the true class", shrink=0.6)
        for row, column in zip(*counts.nonzero(), strict=True) if step == 1 else ():
            font: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": min(9, 150 / len(classes))}
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), color=color, **font)
        axes.set_xticks(range(0, len(classes), step), labels, rotation=90 if max(map(len, labels)) > 2 else 0)
        axes.set_yticks(range(0, len(classes), step), labels)
        axes.set(xlabel="predicted", ylabel="true")

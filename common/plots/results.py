"""Learning curves, bars, confusion matrices and detection error trade-offs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.ticker import MaxNLocator
from scipy.special import ndtri

from common.plots.figure import COLORS, picture
from common.run.console import model_name, shortened

if TYPE_CHECKING:
    from common.data import SpokenDigits
    from common.evaluate import Predictions
    from common.speakers import Verification

BLUE, ORANGE = COLORS[0], COLORS[5]
LINES = {"1d": (BLUE, "-"), "2d": (ORANGE, "--"), "concat": (COLORS[2], "-.")}
ERROR_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
FINITE = (1e-5, 1 - 1e-5)  # limits of error rates, because the normal deviates of 0 and 1 are infinite
MAX_CLASSES = 26  # of a confusion matrix whose cells and axes have room for every number and name


def draw_digit_training(
    directory: Path, name: str, history: list[dict[str, float]], test: Predictions, data: SpokenDigits
) -> None:
    """Draw the training and the test errors of a digit classifier: ``{name}_curves.png``, ``{name}_confusion.png``."""
    path = directory / f"{name}_curves.png"
    draw_learning_curves(path, history, f"Learning curves, {model_name(name)}", data.caption("train", "val"))
    path, title = directory / f"{name}_confusion.png", f"Digits, {model_name(name)}"
    true, predicted = np.asarray(test.digit), np.asarray(test.predicted)
    draw_confusion(path, true, predicted, "0123456789", "digit", title, data.caption("test"))


def draw_learning_curves(path: Path, history: list[dict[str, float]], title: str, caption: str) -> None:
    """Draw loss and accuracy by epoch, and mark the epoch with the lowest validation loss, which is kept.

    Args:
        history: a dict for each epoch: epoch, train_loss, val_loss, and train_acc and val_acc if there are labels.
    """
    measures = {"loss": "loss", "acc": "accuracy"} if "train_acc" in history[0] else {"loss": "loss"}
    with picture(path, 7, 3, title, caption) as figure:
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        epochs = [row["epoch"] for row in history]
        kept = min(history, key=lambda row: row["val_loss"])
        marker = "o" if len(epochs) < 20 else ""  # one epoch alone makes no line
        for axes, (key, name) in zip(panels, measures.items(), strict=True):
            for stage, label, color, line in (("train", "training", ORANGE, "--"), ("val", "validation", BLUE, "-")):
                values = [row[f"{stage}_{key}"] for row in history]
                axes.plot(epochs, values, line, color=color, linewidth=1.6, label=label, marker=marker, markersize=3)
            axes.axvline(kept["epoch"], color="0.75", linewidth=1, zorder=0)
            axes.plot(kept["epoch"], kept[f"val_{key}"], "o", color=BLUE, label=f"kept: epoch {kept['epoch']}")
            axes.set(xlabel="epoch", ylabel=name, xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(axis="y", color="0.93")
            if key == "acc":
                axes.set_ylim(0, 1.03)
        panels[-1].legend(fontsize=9, loc="best")


def draw_bars(path: Path, series: dict[str, dict[str, dict]], key: str, title: str, caption: str) -> None:
    """Draw an accuracy of several models side by side for each series, with 95% intervals.

    Args:
        series: {series: {model: metrics}}; the first series is the lightest.
        key: of the metric, such as "test_acc"; its interval is ``{key}_ci95``.
    """
    with picture(path, 7, 3.4, title, caption) as figure:
        axes = figure.subplots()
        width = 0.8 / len(series)
        for index, (label, results) in enumerate(series.items()):
            values = np.array([result[key] for result in results.values()])
            low, high = np.array([result[f"{key}_ci95"] for result in results.values()]).T
            x = np.arange(len(values)) + (index - (len(series) - 1) / 2) * width
            errors = np.clip([values - low, high - values], 0, None)  # rounding may put a value outside its interval
            whiskers = {"ecolor": "0.15", "elinewidth": 1, "capsize": 3}
            color = _tint(BLUE, (index + 1) / len(series))
            axes.bar(x, values, width * 0.94, color=color, label=label, yerr=errors, error_kw=whiskers)
            for center, value, top in zip(x, values, high, strict=True):
                axes.text(center, top + 0.015, f"{value:.3f}", ha="center", va="bottom", fontsize=9)
        axes.axhline(0.1, color="0.3", linewidth=1, linestyle=":")
        axes.text(len(values) - 0.48, 0.1, "chance", va="center", fontsize=9, color="0.3")
        axes.set_xticks(range(len(values)), map(model_name, results), fontsize=11)
        axes.set(xlim=(-0.5, len(values) - 0.5), ylim=(0, 1.1), yticks=np.linspace(0, 1, 6), ylabel="accuracy")
        axes.tick_params(axis="x", length=0)
        figure.legend(loc="outside right center", fontsize=9)


def _tint(color: str, strength: float) -> list[float]:
    """A colour mixed with white: strength 1 is the colour itself, and 0 is nearly white."""
    return [1 - (1 - part) * (1 - 0.8 * (1 - strength)) for part in to_rgb(color)]


def draw_confusion(
    path: Path, true: np.ndarray, predicted: np.ndarray, names: Sequence[str], what: str, title: str, caption: str
) -> None:
    """Draw a confusion matrix in clips, with the share of correct clips at the end of each row.

    Args:
        true, predicted: [n] indices into ``names``. Classes that do not occur are left out.
        what: what a class is, such as "digit".
    """
    classes = np.union1d(true, predicted)
    count = len(classes)
    counts = np.zeros((count, count), dtype=int)
    np.add.at(counts, (np.searchsorted(classes, true), np.searchsorted(classes, predicted)), 1)
    totals = counts.sum(axis=1)
    shares = counts / totals[:, None].clip(min=1)
    diagonal = np.eye(count, dtype=bool)
    correct = np.where(diagonal, shares, np.nan)
    errors = np.where(diagonal | (counts == 0), np.nan, np.sqrt(shares))  # the root makes rare errors visible
    labels = [shortened(names[index], 12) for index in classes]
    with picture(path, 5.6, 5.2, title, caption) as figure:
        axes = figure.subplots()
        for color, cells in ((ORANGE, errors), (BLUE, correct)):
            shades = ListedColormap([_tint(color, strength) for strength in np.linspace(0, 1, 64)])
            axes.imshow(cells, cmap=shades, vmin=0, vmax=1)
        if count <= MAX_CLASSES:
            font: dict[str, Any] = {"va": "center", "fontsize": min(9.0, 130 / count)}
            for row, column in zip(*counts.nonzero(), strict=True):
                color = "white" if correct[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", color=color, **font)
            axes.text(count - 0.3, -0.75, "right", color="0.35", **font)
            for row in totals.nonzero()[0].tolist():
                axes.text(count - 0.3, row, f"{shares[row, row]:.0%}", color="0.35", **font)
        step = -(-count // MAX_CLASSES)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(range(0, count, step), labels[::step], fontsize=min(9, 160 / count * step))
            axis.set_ticks(np.arange(count + 1) - 0.5, minor=True)
        if max(map(len, labels)) > 3:
            axes.tick_params(axis="x", rotation=90)
        axes.tick_params(which="both", length=0)
        axes.grid(which="minor", color="0.92", linewidth=0.5)  # between the cells
        axes.spines[:].set_visible(False)
        axes.set(xlabel=f"predicted {what}", ylabel=f"true {what}")


def draw_det(path: Path, curves: dict[str, Verification | None], title: str, caption: str) -> None:
    """Draw detection error trade-offs on normal-deviate axes (Martin et al., Eurospeech 1997), with the EERs marked.

    Args:
        curves: {"1d", "2d" or "concat": its error rates, or None if they could not be measured}.
    """
    ticks = ndtri(ERROR_TICKS)
    limits = ticks[[0, -1]]
    measured = {name: curve for name, curve in curves.items() if curve is not None}
    with picture(path, 5.6, 5.2, title, caption) as figure:
        axes = figure.subplots()
        axes.plot(limits, limits, color="0.8", linewidth=1)
        axes.annotate("equal errors", ticks[[2, 2]], color="0.5", fontsize=8, rotation=45, ha="right", va="bottom")
        for name, curve in measured.items():
            color, line = LINES[name]
            x, y = points = ndtri(np.clip([curve.false_accepts, curve.false_rejects], *FINITE))
            # Of millions of points, plot those that are about a pixel or more from the point before.
            moved = np.diff(np.round(points / 0.005), prepend=np.inf).any(axis=0)
            label = f"{model_name(name)}: EER {curve.eer:.1%}"
            axes.plot(x[moved], y[moved], line, color=color, linewidth=1.6, label=label)
            eer = ndtri(np.clip(curve.eer, *FINITE))
            axes.plot(eer, eer, "o", color=color, markeredgecolor="white")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [f"{100 * tick:g}%" for tick in ERROR_TICKS])
        axes.set(xlim=limits, ylim=limits, xlabel="false accepts", ylabel="false rejects", aspect="equal")
        axes.grid(color="0.93")
        if measured:
            axes.legend(loc="upper right")

"""Curves, bars and matrices of results. Several processes draw each picture once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.ticker import MaxNLocator
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from scipy.special import ndtri

from common.data import SpokenDigits
from common.evaluate import Predictions
from common.plots.figure import COLORS, new_figure, save
from common.run.console import model_name, shortened
from common.speakers import Verification

BLUE, ORANGE = COLORS[0], COLORS[5]
LINES = {"1d": (BLUE, "-"), "2d": (ORANGE, "--"), "concat": (COLORS[2], "-.")}
ERROR_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
MOST_NUMBERS = 26  # classes of a confusion matrix whose cells still have room for numbers


def draw_digit_training(
    directory: Path, name: str, history: list[dict[str, float]], test: Predictions, data: SpokenDigits
) -> None:
    """How a digit classifier learned, and which test digits it takes for which: ``{name}_{curves,confusion}.png``."""
    path = directory / f"{name}_curves.png"
    draw_learning_curves(path, history, f"Learning curves, {model_name(name)}", data.caption("train", "val"))
    path, title = directory / f"{name}_confusion.png", f"Digits, {model_name(name)}"
    draw_confusion(path, test.digit, test.predicted, "0123456789", "digit", title, data.caption("test"))


@rank_zero_only
def draw_learning_curves(path: Path, history: list[dict[str, float]], title: str, caption: str) -> None:
    """Loss and, where there are labels, accuracy after each epoch (see common.callbacks.History)."""
    measures = {"loss": "loss", "acc": "accuracy"} if "train_acc" in history[0] else {"loss": "loss"}
    figure = new_figure(7, 3, title, caption)
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    epochs = [epoch["epoch"] for epoch in history]
    kept = min(history, key=lambda epoch: epoch["val_loss"])
    few = {"marker": "o", "markersize": 3} if len(epochs) < 20 else {}  # one epoch alone makes no line
    for axes, (key, name) in zip(panels, measures.items(), strict=True):
        for stage, label, color, line in (("train", "training", ORANGE, "--"), ("val", "validation", BLUE, "-")):
            values = [epoch[f"{stage}_{key}"] for epoch in history]
            axes.plot(epochs, values, line, color=color, linewidth=1.6, label=label, **few)
        axes.axvline(kept["epoch"], color="0.75", linewidth=1, zorder=0)
        axes.plot(kept["epoch"], kept[f"val_{key}"], "o", color=BLUE, label=f"kept: epoch {kept['epoch']}")
        axes.set(xlabel="epoch", ylabel=name, xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y", color="0.93")
        if key == "acc":
            axes.set_ylim(0, 1.03)
    panels[-1].legend(fontsize=9, loc="best")
    save(figure, path)


@rank_zero_only
def draw_bars(path: Path, series: dict[str, dict[str, dict]], key: str, title: str, caption: str) -> None:
    """An accuracy of several models side by side for each series, with 95% intervals.

    Args:
        series: {series: {model: results}}; drawn from light to dark.
        key: which result, such as "test_acc"; its interval is there too.
    """
    figure = new_figure(7, 3.4, title, caption)
    axes = figure.subplots()
    width = 0.8 / len(series)
    for place, (label, results) in enumerate(series.items()):
        values = np.array([result[key] for result in results.values()])
        low, high = np.array([result[f"{key}_ci95"] for result in results.values()]).T
        x = np.arange(len(values)) + (place - (len(series) - 1) / 2) * width
        color = _lighter(BLUE, 1 - (place + 1) / len(series))
        axes.bar(x, values, width * 0.94, color=color, label=label)
        errors = np.clip([values - low, high - values], 0, None)  # rounding may leave a value outside its interval
        axes.errorbar(x, values, errors, fmt="none", ecolor="0.15", elinewidth=1, capsize=3)
        for at, value, top in zip(x, values, high, strict=True):
            axes.text(at, top + 0.015, f"{value:.3f}", ha="center", va="bottom", fontsize=9)
    axes.axhline(0.1, color="0.3", linewidth=1, linestyle=":")
    axes.text(len(values) - 0.48, 0.1, "chance", va="center", fontsize=9, color="0.3")
    axes.set_xticks(range(len(values)), map(model_name, results), fontsize=11)
    axes.set(xlim=(-0.5, len(values) - 0.5), ylim=(0, 1.1), ylabel="accuracy")
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.tick_params(axis="x", length=0)
    figure.legend(loc="outside right center", fontsize=9)
    save(figure, path)


def _lighter(color: str, by: float) -> tuple[float, float, float]:
    return tuple(1 - (1 - part) * (1 - 0.8 * by) for part in to_rgb(color))


@rank_zero_only
def draw_confusion(
    path: Path, true: np.ndarray, predicted: np.ndarray, names: Sequence[str], what: str, title: str, caption: str
) -> None:
    """Confusion matrix in clips, with the share that was right at the end of each row; errors have their own colour.

    Args:
        true, predicted: [n] indices into ``names``. Classes that do not occur are left out.
        what: what a class is, such as "digit".
    """
    classes, places = np.unique([true, predicted], return_inverse=True)
    count = len(classes)
    counts = np.zeros((count, count), dtype=int)
    np.add.at(counts, tuple(places.reshape(2, -1)), 1)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    labels = [shortened(names[i], 12) for i in classes]
    figure = new_figure(5.6, 5.2, title, caption)
    axes = figure.subplots()
    errors = shares * (1 - np.eye(count))
    axes.imshow(np.where(errors > 0, np.sqrt(errors), np.nan), cmap=_shades(ORANGE), vmin=0, vmax=1)
    right = np.where(np.eye(count, dtype=bool), shares, np.nan)
    axes.imshow(right, cmap=_shades(BLUE), vmin=0, vmax=1)
    fontsize = min(9.0, 130 / count)
    if count <= MOST_NUMBERS:
        for row, column in zip(*counts.nonzero(), strict=True):
            dark = row == column and shares[row, row] > 0.5
            text = {"ha": "center", "va": "center", "fontsize": fontsize, "color": "white" if dark else "black"}
            axes.text(column, row, f"{counts[row, column]}", **text)
        axes.text(count - 0.3, -0.75, "right", va="center", fontsize=fontsize, color="0.35")
        for row in np.flatnonzero(counts.sum(axis=1)):
            axes.text(count - 0.3, row, f"{shares[row, row]:.0%}", va="center", fontsize=fontsize, color="0.35")
    step = -(-count // MOST_NUMBERS)
    rotation = 90 if max(map(len, labels)) > 3 else 0
    axes.set_xticks(range(0, count, step), labels[::step], fontsize=min(9, 160 / count * step), rotation=rotation)
    axes.set_yticks(range(0, count, step), labels[::step], fontsize=min(9, 160 / count * step))
    _rule(axes, count)
    axes.set(xlabel=f"predicted {what}", ylabel=f"true {what}")
    save(figure, path)


def _shades(color: str) -> ListedColormap:
    return ListedColormap([_lighter(color, 1 - share) for share in np.linspace(0, 1, 64)])


def _rule(axes: Axes, count: int) -> None:
    """White lines between the cells of a matrix, and no frame."""
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.92", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


@rank_zero_only
def draw_det(path: Path, curves: dict[str, Verification | None], title: str, caption: str) -> None:
    """Detection error trade-off on normal-deviate axes (Martin et al., Eurospeech 1997), with the EERs marked."""
    figure = new_figure(5.6, 5.2, title, caption)
    axes = figure.subplots()
    ticks = ndtri(ERROR_TICKS)
    limits = ticks[[0, -1]]
    axes.plot(limits, limits, color="0.8", linewidth=1)
    axes.annotate("equal errors", ticks[[2, 2]], color="0.5", fontsize=8, rotation=45, ha="right", va="bottom")
    for name, curve in curves.items():
        if curve is None:
            continue
        color, line = LINES[name]
        x, y = ndtri(np.clip([curve.false_accepts, curve.false_rejects], 1e-5, 1 - 1e-5))
        axes.plot(*_thinned(x, y), line, color=color, linewidth=1.6, label=f"{model_name(name)}: EER {curve.eer:.1%}")
        axes.plot(*[ndtri(np.clip(curve.eer, 1e-5, 1 - 1e-5))] * 2, "o", color=color, markeredgecolor="white")
    labels = [f"{tick:.1%}" if tick < 0.01 else f"{tick:.0%}" for tick in ERROR_TICKS]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.set(xlim=limits, ylim=limits, xlabel="false accepts", ylabel="false rejects", aspect="equal")
    axes.grid(color="0.93")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")
    save(figure, path)


def _thinned(x: np.ndarray, y: np.ndarray, step: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    """The points of a curve that are more than a pixel from the one before; there may be millions."""
    cells = np.round(np.stack([x, y]) / step)
    kept = np.append(True, np.any(np.diff(cells), axis=0))
    return x[kept], y[kept]

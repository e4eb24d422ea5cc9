"""Pictures of results: learning curves, bars, conditions, confusion matrices and error trade-offs.

Every function writes one PNG file, ``path``, with a title and a caption that names the data. A key of a model in the
title is shown as ``model_name`` writes it.
"""

import functools
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator
from scipy.special import ndtri

from common.run.console import forgiving, is_detail, model_name, shortened
from common.run.files import PICTURE_MARK, write_atomically
from common.run.process import rank_zero_only
from common.speakers import Verification

STYLE = {
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
LINES = {
    "1d": (BLUE, "-"),
    "2d": (ORANGE, "--"),
    "concat": (GREEN, "-."),
    "fusion": ("#CC79A7", "-"),
    "untrained": ("0.7", ":"),
    "logmel": ("0.4", ":"),
    "supervised": ("0.55", "--"),
}
MORE_FONTS = re.compile("CJK|PingFang|YaHei|WenQuanYi|Arial Unicode")
ERROR_RATES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)  # on the axes of a detection error trade-off
MAX_CLASSES = 26  # of a confusion matrix that has room for every number and name


@contextmanager
def picture(path: Path, width: float, height: float, title: str, caption: str) -> Iterator[Figure]:
    """Give a new figure of ``width`` x ``height`` inches to the ``with`` block, and write it at the end.

    It does not depend on the user's matplotlib settings. Of several processes only the first one writes.

    Raises:
        UserError: the file cannot be written.
    """
    with style.context(["default", STYLE, {"font.family": _fonts()}]):
        figure = Figure((width, height), dpi=150, layout="constrained")  # not pyplot's, which would be kept
        figure.suptitle(model_name(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=9, color="0.35")
        yield figure
        content = io.BytesIO()
        with warnings.catch_warnings(record=True) as caught:
            figure.savefig(content, format="png", bbox_inches="tight", metadata={"Software": PICTURE_MARK.decode()})
        if any("missing from font" in str(each.message) for each in caught):
            _note_boxes()
    rank_zero_only(write_atomically)(path, content.getvalue())


@functools.cache
def _fonts() -> list[str]:
    """matplotlib's own font, and the installed ones that have the characters of more languages."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it is not content with their weights
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *sorted(name for name in installed if MORE_FONTS.search(name))[:4]]


@functools.cache  # once per process
def _note_boxes() -> None:
    print("Note: no font has some characters of the names; install one, such as Noto Sans CJK", file=sys.stderr)


@forgiving
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
        for axes, measure in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
            for stage, label, color, line in (("train", "training", ORANGE, "--"), ("val", "validation", BLUE, "-")):
                values = [row[f"{stage}_{measure}"] for row in history]
                axes.plot(epochs, values, line, marker=marker, markersize=3, color=color, label=label)
            axes.plot(kept["epoch"], kept[f"val_{measure}"], "o", color=BLUE, label=f"kept: epoch {kept['epoch']}")
            axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5), ylabel="loss")
            if measure == "acc":
                axes.set(ylabel="accuracy", ylim=(0, 1.03))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(axis="y", color="0.93")
        axes.legend()


@forgiving
def draw_bars(
    path: Path, series: dict[str, dict[str, dict]], title: str, caption: str, lines: dict[str, float] | None = None
) -> None:
    """Draw the test accuracies of several models side by side for each series, with 95% intervals.

    Args:
        series: {series: {model: metrics}}; the first series is the lightest.
        lines: accuracies to compare with, drawn across all bars; chance is 0.1 unless it is among them.
    """
    width = 0.8 / len(series)
    colors = matplotlib.colormaps["Blues"](np.linspace(0.4, 0.8, len(series)))
    models = max(map(len, series.values()), default=0)
    with picture(path, max(7, 2 + 1.4 * models), 4, title, caption) as figure:
        axes = figure.subplots()
        for index, (label, results) in enumerate(series.items()):
            values = np.array([result["test_acc"] for result in results.values()])
            low, high = np.array([result["test_acc_ci95"] for result in results.values()]).T
            x = np.arange(len(values)) + (index - (len(series) - 1) / 2) * width
            errors = np.clip([values - low, high - values], 0, None)  # rounding may put a value outside its interval
            bars = axes.bar(x, values, width, color=colors[index], label=label, yerr=errors, capsize=3)
            axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=9)
        for (label, value), line in zip(({"chance": 0.1} | (lines or {})).items(), (":", "--", "-."), strict=False):
            axes.axhline(value, color=ORANGE, linestyle=line, label=label)
        axes.set_xticks(range(len(values)), map(model_name, results))
        axes.set(ylim=(0, 1.1), yticks=np.linspace(0, 1, 6), ylabel="accuracy")
        figure.legend(loc="outside right center")


@forgiving
def draw_conditions(path: Path, results: dict[str, dict], title: str, caption: str) -> None:
    """Draw the accuracies of each model in each condition as points with their intervals.

    Args:
        results: {model: its metrics}; the conditions are the accuracies besides that of the validation.
    """
    keys = [key for key in next(iter(results.values())) if key.endswith("_acc") and not is_detail(key)][1:]
    with picture(path, 7, 0.8 + 0.42 * len(keys), title, caption) as figure:
        axes = figure.subplots()
        for index, (name, numbers) in enumerate(results.items()):
            values = np.array([numbers[key] for key in keys])
            low, high = np.array([numbers[f"{key}_ci95"] for key in keys]).T
            rows = np.arange(len(keys)) + 0.24 * (index - (len(results) - 1) / 2)
            style: dict[str, Any] = {"color": LINES[name][0], "marker": "os"[index % 2], "label": model_name(name)}
            axes.errorbar(values, rows, xerr=[values - low, high - values], linestyle="", capsize=2, **style)
        labels = [re.sub(r"(\d+)(db|ms)", r"\1 \2", key.removesuffix("_acc").replace("_", " ")) for key in keys]
        axes.set_yticks(range(len(keys)), ["clean", *(label.replace("db", "dB") for label in labels[1:])])
        axes.invert_yaxis()
        lowest = min(numbers[f"{key}_ci95"][0] for numbers in results.values() for key in keys)
        left = max(0, np.floor(20 * lowest - 1) / 20)
        if left < 0.1:
            axes.axvline(0.1, color="0.6", linestyle=":", label="chance")
        axes.set(xlim=(left, 1.005), xlabel="accuracy")
        axes.grid(axis="x", color="0.93")
        figure.legend(loc="outside right center")


@forgiving
def draw_confusion(
    path: Path, true: np.ndarray, predicted: np.ndarray, title: str, caption: str, names: Sequence[str] = "0123456789"
) -> None:
    """Draw a confusion matrix: numbers of clips, coloured by their share of the true class.

    Args:
        true, predicted: [n] indices into ``names``. Classes that do not occur are left out.
    """
    classes = np.union1d(true, predicted)
    rows, columns = ((indices == classes[:, None]).astype(int) for indices in (true, predicted))  # [classes, n]
    counts = rows @ columns.T
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


@forgiving
def draw_det(path: Path, curves: dict[str, Verification | None], title: str, caption: str) -> None:
    """Draw detection error trade-offs on normal-deviate axes (Martin et al., Eurospeech 1997), with the EERs marked.

    Args:
        curves: {"1d", "2d", "concat" or a control: its error rates, or None if they could not be measured}.
    """
    ticks = ndtri(ERROR_RATES)
    with picture(path, 5.8, 6, title, caption) as figure:
        axes = figure.subplots()
        axes.plot(ticks, ticks, color="0.8", linewidth=1, label="equal errors")
        for name, curve in curves.items():
            if curve is not None:
                color, line = LINES[name]
                # The normal deviate of no errors is infinite: they are drawn at the edge of the plot.
                x, y = ndtri(np.clip([curve.false_accepts, curve.false_rejects], ERROR_RATES[0], 0.999))
                eer = ndtri(max(curve.eer, ERROR_RATES[0]))
                low, high = curve.eer_ci95
                label = f"{model_name(name)}: EER {curve.eer:.1%} [{100 * low:.1f}, {100 * high:.1f}]"
                axes.plot(x, y, line, color=color, label=label)
                axes.plot(eer, eer, "o", color=color, markeredgecolor="white")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [f"{100 * rate:g}%" for rate in ERROR_RATES])
        limits = (ticks[0] - 0.05, ticks[-1])
        axes.set(xlim=limits, ylim=limits, xlabel="false accepts", ylabel="false rejects", aspect="equal")
        axes.grid(color="0.93")
        axes.legend(loc="upper right")


def ending(name: str, length: int) -> str:
    """At most ``length`` characters of a name: its end, because similar names tend to differ there."""
    return shortened(name[::-1], length)[::-1]

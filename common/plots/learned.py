"""The picture of what the classifiers of task 1 have learned, see ``common.saliency``."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator
from scipy.ndimage import uniform_filter
from torch import Tensor

from common.audio import MEL_BANDS, MEL_RANGE
from common.encoders import gabor_filters
from common.plots.figure import BLUE, ORANGE, picture
from common.run import model_name
from common.saliency import SHARES, Explanation, filter_shape

GAP = 6  # empty frames between clips that are drawn side by side
IMAGE: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
ORDERS = {  # name in the legend, colour, line and marker
    "salient": ("what speaks for the digit", ORANGE, "-o"),
    "loudest": ("the loudest", "0.25", "--s"),
    "random": ("random cells", "0.55", ":^"),
}


def draw_learned(path: Path, filters: Tensor, explained: dict[str, Explanation], caption: str) -> None:
    """Draw which parts of a clip each model decides by, a test of that, and the filters of the 1D model.

    Args:
        filters: [C, size] of the 1D model after training; before, they were ``gabor_filters``.
        explained: {"1d" or "2d": its explanation}, all of the same clips.
    """
    with picture(path, 12, 8.4, "What did it learn?", caption) as figure:
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.3, 1], hspace=0.03)[:, 0]
        _draw_saliency(upper, explained)
        bank, *tests = lower.subplots(1, 1 + len(explained), width_ratios=[1.4, *(1 for _ in explained)])
        _draw_filters(bank, filters)
        for axes, (model, explanation) in zip(tests, explained.items(), strict=True):
            _draw_deletion(axes, model, explanation)
        # One legend for all tests, which leaves the curves free. Its title would lie above, so it is the first entry.
        handles, labels = tests[0].get_legend_handles_labels()
        handles, labels = [Line2D([], [], linestyle=""), *handles], ["Silenced first:", *labels]
        lower.legend(handles, labels, loc="outside upper right", ncols=len(labels), columnspacing=1.2)


def _draw_saliency(figure: SubFigure, explained: dict[str, Explanation]) -> None:
    """Three rows: a clip of each digit side by side, and what speaks for and against the digit in each model."""
    first = next(iter(explained.values()))
    clip, *overlays = rows = figure.subplots(1 + len(explained), 1)
    frames = first.log_mel.shape[2]
    centres = np.arange(len(first.digit)) * (frames + GAP) + (frames - 1) / 2
    clip.imshow(_side_by_side(first.log_mel), cmap="Greys", vmin=-1, vmax=4, **IMAGE)
    clip.xaxis.tick_top()
    clip.set_xticks(centres, [f"“{digit}”" for digit in first.digit], fontsize=12, fontweight="bold")
    for axes, explanation in zip(overlays, explained.values(), strict=True):
        # Pale, so that the colours stand out.
        axes.imshow(_side_by_side(explanation.log_mel), cmap="Greys", vmin=-1, vmax=8, **IMAGE)
        axes.imshow(_in_colour(explanation.saliency), **IMAGE)
        axes.set_xticks(centres, [f"{p:.0%}" for p in explanation.probability])
    for axes, name in zip(rows, ("clip", *explained), strict=True):
        axes.set_yticks(_band(np.array([250, 1000, 4000])), ["250 Hz", "1 kHz", "4 kHz"])
        axes.set_ylabel(model_name(name), fontsize=11, fontweight="bold")
        axes.tick_params(axis="x", length=0)
        axes.spines[:].set_visible(False)
    what = "Clips of one second, what each model decides by, and the probability that it gives the digit"
    figure.suptitle(what, x=0.01, ha="left", fontsize=10)
    handles = [Patch(color=ORANGE, label="speaks for the digit"), Patch(color=BLUE, label="speaks against it")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)


def _side_by_side(clips: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """[n, F, T] or [n, F, T, colours] in one image with empty columns between: [F, n * (T + gap), ...]."""
    widths = [(0, 0), (0, 0), (0, GAP), (0, 0)][: clips.ndim]
    return np.concatenate(np.pad(clips, widths, constant_values=empty), axis=1)[:, :-GAP]


def _in_colour(saliency: np.ndarray) -> np.ndarray:
    """Orange for positive and blue for negative cells, the more opaque the larger: [n, F, T] -> [F, n * (T + gap), 4].

    Means of neighbouring cells are shown, because single ones are too small to see.
    """
    smooth = uniform_filter(saliency, (1, 3, 5), mode="constant")
    scale = np.quantile(np.abs(smooth), 0.995, axis=(1, 2), keepdims=True)  # of each clip
    opacity = np.clip(np.abs(smooth) / np.maximum(scale, 1e-12), 0, 1)
    colours = np.array([to_rgb(BLUE), to_rgb(ORANGE)])[(smooth > 0).astype(int)]  # [n, F, T, 3]
    return _side_by_side(np.concatenate([colours, opacity[..., None]], axis=3), empty=0)


def _draw_filters(axes: Axes, filters: Tensor) -> None:
    shapes = [filter_shape(f.detach().cpu()) for f in (gabor_filters(*filters.shape), filters)]
    before, after = np.array([[part.numpy() for part in shape] for shape in shapes])  # [centre and bandwidth, C] each
    axes.plot(*np.stack([before, after], axis=1), color="0.6", linewidth=1)
    axes.plot(*before, "o", color="0.5", markerfacecolor="white", markersize=5, label="before training")
    axes.plot(*after, "o", color="black", markersize=5, label="after training")
    axes.set_xscale("function", functions=(_mel, _hertz))
    axes.set_yscale("log")
    for axis, ticks in (
        (axes.xaxis, (100, 500, 1000, 2000, 4000, 8000)),
        (axes.yaxis, (25, 50, 100, 200, 400, 800, 1600, 3200)),
    ):
        axis.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.set_minor_locator(NullLocator())
    low, high = min(before[1].min(), after[1].min()), max(before[1].max(), after[1].max())
    axes.set(xlim=MEL_RANGE, ylim=(0.8 * low, 1.25 * high))
    axes.set(xlabel="centre frequency, Hz (mel scale)", ylabel="bandwidth, Hz")
    axes.set_title(f"The {len(filters)} filters of the 1D model", fontsize=10, loc="left")
    axes.grid(color="0.93")
    axes.legend(loc="upper left")


def _draw_deletion(axes: Axes, model: str, explanation: Explanation) -> None:
    for name, (label, color, line) in ORDERS.items():
        axes.plot(explanation.curves[name], line, color=color, markersize=5, label=label)
    axes.set_xticks(range(len(SHARES)), [f"{share:.0%}" for share in SHARES])
    axes.set(xlabel="share of each clip that is silenced", ylabel="mean probability of the digit", ylim=(0, 1.03))
    axes.set_title(f"{model_name(model)}: {explanation.clips} clips with parts silenced", fontsize=10, loc="left")
    axes.grid(axis="y", color="0.93")


def _mel(hertz: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + np.maximum(hertz, 0) / 700)


def _hertz(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)


def _band(hertz: np.ndarray) -> np.ndarray:
    """Where frequencies lie on an axis whose whole numbers are the centres of the mel bands."""
    low, high = _mel(np.array(MEL_RANGE))
    return (_mel(hertz) - low) / (high - low) * (MEL_BANDS + 1) - 1

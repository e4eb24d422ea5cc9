"""The picture of what the classifiers of task 1 have learned, see ``common.saliency``."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from common.audio import MEL_RANGE
from common.encoders import gabor_filters
from common.plots import BLUE, ORANGE, picture
from common.run import model_name
from common.saliency import Explanation, filter_shape

LEAST = 0.02  # loss of probability that has the full colour in a clip that loses no more anywhere


def draw_learned(path: Path, filters: Tensor, explained: dict[str, Explanation], caption: str) -> None:
    """Draw where occlusion hurts each model, and the filters of the 1D model.

    Args:
        filters: [C, size] of the 1D model after training; before, they were ``gabor_filters``.
        explained: {"1d" or "2d": its explanation}, all of the same clips.
    """
    with picture(path, 12, 8, "What did it learn?", caption) as figure:
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.5, 1], hspace=0.03)[:, 0]
        _draw_occlusion(upper, explained)
        _draw_filters(lower.subplots(), filters)


def _draw_occlusion(figure: SubFigure, explained: dict[str, Explanation]) -> None:
    """Draw a row with a clip of each digit, and a row for each model with what its probability loses where."""
    clips = next(iter(explained.values()))
    shape = 1 + len(explained), len(clips.digit)
    grid = figure.subplots(*shape, squeeze=False, sharey=True, subplot_kw={"xticks": []})
    place: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": (0, 1, *_mel(np.array(MEL_RANGE)))}
    for axes, digit, log_mel in zip(grid[0], clips.digit, clips.log_mel, strict=True):
        axes.imshow(log_mel, cmap="Greys", vmin=-1, vmax=4, **place)
        axes.set_title(f"“{digit}”", fontsize=12, fontweight="bold")
    colors = ListedColormap([BLUE, ORANGE])
    for row, explanation in zip(grid[1:], explained.values(), strict=True):
        for axes, log_mel, p, drop in zip(row, clips.log_mel, explanation.probability, explanation.drop, strict=True):
            axes.imshow(log_mel, cmap="Greys", vmin=-1, vmax=8, **place)  # pale, so that the colours stand out
            strength = np.clip(drop / max(drop.max(), LEAST), -1, 1)
            axes.imshow(strength, cmap=colors, vmin=-1, vmax=1, alpha=abs(strength), interpolation="nearest", **place)
            axes.set_xlabel(f"{p:.0%} → {p - drop.max():.0%}", fontsize=9)
    for axes, name in zip(grid[:, 0], ("clip", *explained), strict=True):
        axes.set_yticks(_mel(np.array([250, 1000, 4000])), ["250 Hz", "1 kHz", "4 kHz"])
        axes.set_ylabel(model_name(name), fontsize=11, fontweight="bold")
    for axes in grid.flat:
        axes.tick_params(length=0)
        axes.spines[:].set(visible=True, color="0.85")  # clips end in silence, which is white
    what = "Clips of one second; the probability of the digit, and what is left of it without its most important region"
    figure.suptitle(what, x=0.01, ha="left", fontsize=10)
    handles = [Patch(color=ORANGE, label="occlusion hurts"), Patch(color=BLUE, label="occlusion helps")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)


def _draw_filters(axes: Axes, filters: Tensor) -> None:
    shapes = [filter_shape(f.detach().cpu()) for f in (gabor_filters(*filters.shape), filters)]
    before, after = np.array([[part.numpy() for part in shape] for shape in shapes])  # [centre and bandwidth, C] each
    axes.plot(*np.stack([before, after], axis=1), color="0.6", linewidth=1)
    axes.plot(*before, "o", color="0.5", markerfacecolor="white", markersize=5, label="before training")
    axes.plot(*after, "o", color="black", markersize=5, label="after training")
    axes.set(xscale="log", xlabel="centre frequency, Hz", yscale="log", ylabel="bandwidth, Hz")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_locator(NullLocator())
    axes.set_title(f"The {len(filters)} filters of the 1D model", fontsize=10, loc="left")
    axes.grid(color="0.93")
    axes.legend(loc="upper left")


def _mel(hertz: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)

"""Embeddings in the plane: pictures coloured by digit or by speaker, and the points of the map of the report."""

import base64
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from common.audio import SAMPLE_RATE
from common.corpus import systematic_sample
from common.data import SpokenDigits
from common.plots import COLORS, ending, picture
from common.run import model_name, printable, write_atomically

# Ten colours that colour-blind readers can tell apart: Petroff's (arXiv:2107.02270), with black for one of two greys.
DIGIT_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#000000", "#92dadd",
)  # fmt: skip
SPEAKER_STYLES = tuple(itertools.product("o^sDvPX*<", COLORS))  # (marker, color); each cycle has its own marker
MAP_CLIPS, MAP_SIDE = 1000, 1000  # about 4 MB of sounds; the side of the map in its own units


def draw_embeddings(
    path: Path, layouts: dict[str, np.ndarray], colorings: dict[str, tuple[np.ndarray, Sequence[str]]], caption: str
) -> None:
    """Draw layouts of embeddings: a column for each layout, and a row with a legend for each coloring.

    The axes are the same for all colorings, so that two plots of one layout can be laid over each other.

    Args:
        layouts: {model: [n, 2]}.
        colorings: {"digit" or "speaker": (labels [n], the names that they index)}.
    """
    # Inches of a plot, and names in a column of its legend.
    side, rows = (5.6, 30) if len(layouts) == len(colorings) == 1 else (2.6, 14)
    width, height = side * len(layouts), side * len(colorings) + 0.9
    with picture(path, width, height, "Embeddings of test clips (t-SNE)", caption) as figure:
        figure.set_layout_engine("none")  # so that a legend does not change the axes
        edges = {"left": 0.1 / width, "right": 1, "bottom": 0.35 / height, "top": 1 - 0.6 / height}
        grid = figure.subplots(len(colorings), len(layouts), squeeze=False, gridspec_kw=edges | {"wspace": 0.05})
        for row, (coloring, (labels, names)) in zip(grid, colorings.items(), strict=True):
            columns = -(-len(np.unique(labels)) // rows)
            # The space keeps matplotlib from leaving a name that begins with "_" out of the legend.
            shown = [f" {ending(name, 32 // columns)}" for name in names]
            for axes, (model, layout) in zip(row, layouts.items(), strict=True):
                _scatter(axes, layout, labels, shown, coloring, side)
                axes.set_title(f"{model_name(model)} by {coloring}", fontsize=10)
            place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "ncols": columns}
            legend = row[-1].legend(**place, fontsize=8, handlelength=1, handletextpad=0, columnspacing=0.6)
            for handle in filter(None, legend.legend_handles):
                handle.set(sizes=[30], alpha=1)


def _scatter(
    axes: Axes, layout: np.ndarray, labels: np.ndarray, names: Sequence[str], coloring: str, side: float
) -> None:
    size = np.clip(450 * side**2 / len(layout), side, 4 * side**2)  # of a marker, in square points
    apart = 0.07 * np.ptp(layout, axis=0).max()  # between two digits that are written
    written = np.full((1, 2), np.inf)
    for label, (marker, color) in zip(np.unique(labels), itertools.cycle(SPEAKER_STYLES)):
        points = layout[labels == label]
        if coloring == "digit":
            marker, color = "o", DIGIT_COLORS[label]
            # The digit is also written above its points, because colours are hard to tell apart for some readers. The
            # point nearest to the median is inside a cluster even if there are several.
            near = points[np.linalg.norm(points - np.median(points, axis=0), axis=1).argsort()]
            free = np.linalg.norm(near[:, None] - written, axis=2).min(axis=1) >= apart
            middle = near[free.argmax()]  # the nearest, if none is free
            written = np.vstack([written, middle])
            text = axes.annotate(str(label), middle, (0, side + 4), textcoords="offset points", ha="center")
            text.set(fontsize=side + 8, fontweight="bold", path_effects=[withStroke(linewidth=3, foreground="white")])
        x, y = points.T
        axes.scatter(x, y, size, color=color, marker=marker, alpha=0.8, linewidths=0, label=names[label])
    axes.margins(0.08)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])  # t-SNE's coordinates have no meaning
    axes.spines[:].set(visible=True, color="0.85")


def write_map(
    path: Path, data: SpokenDigits, seed: int, layouts: dict[str, np.ndarray], predicted: dict[str, np.ndarray]
) -> None:
    """Write up to 1,000 test clips of all speakers and digits as JSON, with their sounds as MP3 in base64.

    Args:
        layouts: {model: [n, 2]} of all test clips.
        predicted: the digits that each classifier predicts for them, {"1d" or "2d": [n]}.

    Raises:
        UserError: the file cannot be written.
    """
    test = data.examples["test"]
    shown = systematic_sample(test.speaker.numpy(), test.digit.numpy(), min(1.0, MAP_CLIPS / len(test)), seed)
    places = [_to_map(layout) for layout in layouts.values()]
    points = []
    for index in np.flatnonzero(shown):
        clip = data.cached.clips[test.rows[index]]
        point = {"name": printable(clip.path), "speaker": printable(clip.speaker), "digit": clip.digit}
        point["predicted"] = {model: int(digits[index]) for model, digits in predicted.items()}
        point["places"] = [place[index].tolist() for place in places]
        point["sound"] = _to_mp3(data.cached.waves[test.rows[index]])
        points.append(point)
    write_atomically(path, json.dumps({"models": list(layouts), "colours": DIGIT_COLORS, "clips": points}) + "\n")


def _to_map(layout: np.ndarray) -> np.ndarray:
    """Scale a layout to the square of the map: [n, 2] -> [n, 2] whole numbers, y downwards."""
    size = np.ptp(layout, axis=0).max() or 1.0
    centred = (layout - (layout.max(axis=0) + layout.min(axis=0)) / 2) * [1, -1] / size
    return np.round((centred + 0.5) * MAP_SIDE).astype(int)


def _to_mp3(wave: np.ndarray) -> str:
    """A clip, [samples] int16 at 16 kHz, without the zeros around it, as MP3 of 24 kbit/s in base64: at most 4 kB."""
    content, part = io.BytesIO(), np.trim_zeros(wave)
    soundfile.write(content, part, SAMPLE_RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.9)
    return base64.b64encode(content.getvalue()).decode()

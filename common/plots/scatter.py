"""Embeddings in the plane: t-SNE layouts, and scatter plots of them by digit and by speaker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from common.plots.figure import DIGIT_COLORS, HEADER, STYLES, picture
from common.run.console import model_name, progress_bar, shortened


def tsne(z: np.ndarray, seed: int, name: str) -> tuple[np.ndarray, float]:
    """Standardise embeddings and lay them out in the plane with t-SNE (van der Maaten and Hinton, JMLR 9, 2008).

    Args:
        z: [n, D] embeddings.
        name: of the embeddings in the progress message.

    Returns:
        the layout [n, 2], and the perplexity: 30, or less if there are too few clips for it.
    """
    perplexity = max(1.0, min(30.0, (len(z) - 1) / 3))
    with progress_bar(f"t-SNE of {name}", len(z), "clips") as progress:
        x = StandardScaler().fit_transform(z)
        if not np.ptp(z, axis=0).any():  # scikit-learn's t-SNE crashes if all points are equal
            layout = np.zeros((len(x), 2))
        elif len(x) < 4:  # too few for neighbourhoods
            layout = PCA(2).fit_transform(x)
        else:
            layout = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=-1).fit_transform(x)
        progress.update(len(z))
    return layout, perplexity


def draw_embeddings(
    path: Path, layout: np.ndarray, labels: np.ndarray, names: Sequence[str], coloring: str, title: str, caption: str
) -> None:
    """Draw a layout [n, 2], coloured by labels [n] that index ``names``.

    The axes are the same in all plots, so that two colorings of one layout can be laid over each other.

    Args:
        coloring: "digit" or "speaker".
    """
    side, legend_width = 5.6, 1.9
    width, height = side + legend_width, side + 0.1 + HEADER
    with picture(path, width, side + 0.1, title, caption) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.1 / width, 0.1 / height, side / width, side / height))
        _scatter(axes, layout, labels, names, coloring, size=float(np.clip(14000 / len(layout), 5, 40)), fontsize=15)
        _add_legend(axes, coloring, rows=28, fontsize=10)


def draw_overview(
    path: Path,
    layouts: dict[str, np.ndarray],
    colorings: dict[str, tuple[np.ndarray, Sequence[str]]],
    title: str,
    caption: str,
) -> None:
    """Draw a grid of plots: a column for each layout and a row for each coloring.

    Args:
        layouts: {model: [n, 2]}.
        colorings: {"digit" or "speaker": (labels [n], names)}.
    """
    with picture(path, 2.35 * len(layouts) + 1.1, 2.7 * len(colorings), title, caption) as figure:
        grid = figure.subplots(len(colorings), len(layouts), squeeze=False)
        for axes, model in zip(grid[0], layouts, strict=True):
            axes.set_title(model_name(model), fontsize=11)
        for row, (coloring, (labels, names)) in zip(grid, colorings.items(), strict=True):
            for axes, layout in zip(row, layouts.values(), strict=True):
                _scatter(axes, layout, labels, names, coloring, float(np.clip(3500 / len(layout), 2, 14)), fontsize=11)
            row[0].set_ylabel(f"by {coloring}", fontsize=11)
            _add_legend(row[-1], coloring, rows=20, fontsize=7)


def _scatter(
    axes: Axes, layout: np.ndarray, labels: np.ndarray, names: Sequence[str], coloring: str, size: float, fontsize: int
) -> None:
    font: dict[str, Any] = {"fontsize": fontsize, "fontweight": "bold", "ha": "center", "va": "center"}
    font["path_effects"] = [withStroke(linewidth=3, foreground="white")]
    for index, label in enumerate(np.unique(labels)):
        points, name = layout[labels == label], names[label]
        if coloring == "digit":
            marker, color = "o", DIGIT_COLORS[label]
            # The digit is also written above its points, because colours are hard to tell apart for some readers.
            axes.annotate(name, _medoid(points), (0, fontsize), textcoords="offset points", **font)
        else:
            marker, color = STYLES[index % len(STYLES)]
        # The space keeps matplotlib from leaving a name that begins with "_" out of the legend.
        x, y = points.T
        axes.scatter(x, y, size, color=color, marker=marker, alpha=0.8, linewidths=0, label=f" {name}")
    low, high = layout.min(axis=0), layout.max(axis=0)
    half = 0.59 * max(*(high - low), 1e-6)
    (left, right), (bottom, top) = ((middle - half, middle + half) for middle in (low + high) / 2)
    # t-SNE's coordinates have no meaning, so they are not shown.
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="0.85")


def _medoid(points: np.ndarray) -> tuple[float, float]:
    """The point with the least summed distance to the others: it is inside a cluster even if there are several."""
    some = points[:: -(-len(points) // 1000)]
    x, y = some[np.linalg.norm(some[:, None] - some, axis=2).sum(axis=1).argmin()]
    return x, y


def _add_legend(axes: Axes, coloring: str, rows: int, fontsize: int) -> None:
    """Add a legend beside the plot, in columns of at most ``rows`` names; the more columns, the shorter the names."""
    handles, labels = axes.get_legend_handles_labels()
    columns = -(-len(handles) // rows)
    # Long names are cut at the beginning, because similar names tend to differ at the end.
    names = [shortened(label[::-1], 18 // columns)[::-1] for label in labels]
    names = [f" {name}" if name.startswith("_") else name for name in names]
    position: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "alignment": "left"}
    spacing: dict[str, Any] = {"handletextpad": 0.2, "columnspacing": 0.6, "labelspacing": 0.35}
    size: dict[str, Any] = {"fontsize": fontsize, "title_fontsize": fontsize + 1}
    legend = axes.legend(handles, names, title=coloring, ncols=columns, **position, **spacing, **size)
    for handle in filter(None, legend.legend_handles):
        handle.set(sizes=[4 * fontsize], alpha=1)

"""Embeddings in the plane: t-SNE layouts, and scatter plots of them by digit and by speaker."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from common.plots.figure import DIGIT_STYLES, HEADER, STYLES, new_figure, save
from common.run.console import model_name, printable, progress_bar


def tsne(z: np.ndarray, seed: int, name: str) -> tuple[np.ndarray, float]:
    """Lay embeddings out in the plane (van der Maaten and Hinton, JMLR 9, 2008), after standardising them.

    Args:
        z: [n, D].
        name: what the progress message calls them.

    Returns:
        the layout [n, 2], and the perplexity: 30, or less where there are too few clips for it.
    """
    perplexity = max(1.0, min(30.0, (len(z) - 1) / 3))
    with progress_bar(f"t-SNE of {name}", len(z), "clips") as progress:
        x = StandardScaler().fit_transform(z)
        if not np.ptp(z, axis=0).any():  # one clip, or all alike, at which scikit-learn's t-SNE crashes
            layout = np.zeros((len(x), 2))
        elif len(x) < 4:  # too few to have neighbourhoods
            layout = PCA(2).fit_transform(x)
        else:
            layout = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=-1).fit_transform(x)
        progress.update(len(z))
    return layout, perplexity


def draw_embeddings(
    path: Path, layout: np.ndarray, labels: np.ndarray, names: Sequence[str], coloring: str, title: str, caption: str
) -> None:
    """Scatter plot of a layout [n, 2], coloured by labels [n] that index ``names``.

    All plots have the points in the same place, so that two colorings of one layout can be laid over each other.

    Args:
        coloring: "digit" or "speaker".
    """
    side, legend_width = 5.6, 1.9
    width, height = side + legend_width, side + 0.1 + HEADER
    figure = new_figure(width, side + 0.1, title, caption)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.1 / width, 0.1 / height, side / width, side / height))
    _scatter(axes, layout, labels, names, coloring, size=float(np.clip(14000 / len(layout), 5, 40)), fontsize=15)
    _legend(axes, coloring, rows=28, fontsize=10)
    save(figure, path)


def draw_overview(
    path: Path,
    layouts: dict[str, np.ndarray],
    colorings: dict[str, tuple[np.ndarray, Sequence[str]]],
    title: str,
    caption: str,
) -> None:
    """All layouts beside each other, a row for each coloring.

    Args:
        layouts: {model: [n, 2]}.
        colorings: {"digit" or "speaker": (labels [n], names)}.
    """
    figure = new_figure(2.35 * len(layouts) + 1.1, 2.7 * len(colorings), title, caption)
    grid = figure.subplots(len(colorings), len(layouts), squeeze=False)
    for axes, model in zip(grid[0], layouts, strict=True):
        axes.set_title(model_name(model), fontsize=11)
    for row, (coloring, (labels, names)) in zip(grid, colorings.items(), strict=True):
        for axes, layout in zip(row, layouts.values(), strict=True):
            _scatter(axes, layout, labels, names, coloring, float(np.clip(3500 / len(layout), 2, 14)), fontsize=11)
        row[0].set_ylabel(f"by {coloring}", fontsize=11)
        _legend(row[-1], coloring, rows=20, fontsize=7)
    save(figure, path)


def _scatter(
    axes: Axes, layout: np.ndarray, labels: np.ndarray, names: Sequence[str], coloring: str, size: float, fontsize: int
) -> None:
    styles = DIGIT_STYLES if coloring == "digit" else STYLES
    halo = [withStroke(linewidth=3, foreground="white")]
    for place, label in enumerate(np.unique(labels)):
        points = layout[labels == label]
        style = styles[(label if coloring == "digit" else place) % len(styles)]
        axes.scatter(*points.T, s=size, alpha=0.8, linewidths=0, label=f"{coloring} {names[label]}", **style)
        if coloring == "digit":  # where the digit is, and not only which colour it has
            above = {"xytext": (0, fontsize), "textcoords": "offset points", "ha": "center", "va": "center"}
            font = {"fontsize": fontsize, "fontweight": "bold", "path_effects": halo}
            axes.annotate(names[label], _most_central(points), **above, **font)
    low, high = layout.min(axis=0), layout.max(axis=0)
    half = 0.59 * max(*(high - low), 1e-6)
    (left, right), (bottom, top) = ((middle - half, middle + half) for middle in (low + high) / 2)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.set(xticks=[], yticks=[])  # t-SNE's coordinates have no meaning of their own
    axes.spines[:].set(visible=True, color="0.85")


def _most_central(points: np.ndarray) -> np.ndarray:
    """The point from which the others are least far: inside a cluster even where there are several."""
    some = points[:: -(-len(points) // 1000)]
    return some[np.linalg.norm(some[:, None] - some, axis=2).sum(axis=1).argmin()]


def _end(name: str, length: int) -> str:
    """The last characters of a name: where many names are alike, it is in their beginnings."""
    name = printable(name)
    name = name if len(name) <= length else f"…{name[1 - length :]}"
    return f" {name}" if name.startswith("_") else name  # matplotlib would leave it out


def _legend(axes: Axes, coloring: str, rows: int, fontsize: int) -> None:
    """Names beside the plot, in columns of at most ``rows``; the more columns, the shorter the names."""
    handles, labels = axes.get_legend_handles_labels()
    columns = -(-len(handles) // rows)
    names = [_end(label.removeprefix(f"{coloring} "), 18 // columns) for label in labels]
    legend = axes.legend(
        handles,
        names,
        title=coloring,
        ncols=columns,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=fontsize,
        title_fontsize=fontsize + 1,
        handletextpad=0.2,
        columnspacing=0.6,
        labelspacing=0.35,
        alignment="left",
    )
    for handle in legend.legend_handles:
        handle.set(sizes=[4 * fontsize], alpha=1)

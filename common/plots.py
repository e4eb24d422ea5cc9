"""The pictures: t-SNE layouts of embeddings and detection error trade-offs. Drawn without a display."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from common.errors import printable
from common.speakers import Verification

matplotlib.rcParams["text.parse_math"] = False  # folders give speakers and corpora their names, dollars and all

# Ten colours that stay apart for colour-blind readers: Paul Tol's "muted" set, and black.
COLORS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
)  # fmt: skip
MARKERS = "o^sDvP"  # with more labels than colours, each round of colours has a shape of its own
ERROR_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def tsne(z: np.ndarray, seed: int, name: str) -> tuple[np.ndarray, float]:
    """Lay embeddings out in the plane (van der Maaten and Hinton, JMLR 9, 2008), after standardising them.

    Args:
        z: [n, D].
        name: what the progress message calls them.

    Returns:
        the layout [n, 2], and the perplexity: 30, or less where there are too few clips for it.
    """
    perplexity = max(1.0, min(30.0, (len(z) - 1) / 3))
    print(f"t-SNE of {len(z)} {name} embeddings ...", end=" ", file=sys.stderr, flush=True)
    started = time.monotonic()
    x = StandardScaler().fit_transform(z)
    if not np.ptp(z, axis=0).any():  # one clip, or all alike, at which scikit-learn's t-SNE crashes
        layout = np.zeros((len(x), 2))
    elif len(x) < 4:  # too few to have neighbourhoods
        layout = PCA(2).fit_transform(x)
    else:
        layout = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=-1).fit_transform(x)
    print(f"{time.monotonic() - started:.1f} s", file=sys.stderr)
    return layout, perplexity


def draw_embeddings(path: Path, layout: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str) -> None:
    """Scatter plot of a layout [n, 2], coloured by labels [n] that index ``names``."""
    figure, axes = plt.subplots(figsize=(8, 7), dpi=120, layout="constrained")
    present = np.unique(labels)
    size = float(np.clip(14000 / len(layout), 5, 40))
    for place, label in enumerate(present):
        points = layout[labels == label]
        style = {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place // len(COLORS) % len(MARKERS)]}
        axes.scatter(*points.T, s=size, alpha=0.8, linewidths=0, label=_legible(names[label]), **style)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])  # t-SNE's coordinates have no meaning of their own
    axes.set_title(title, fontsize=11)
    legend = {
        "loc": "center left",
        "bbox_to_anchor": (1.0, 0.5),
        "frameon": False,
        "ncols": 1 + (len(present) - 1) // 20,
    }
    for handle in axes.legend(title=title.split("\n")[0].rsplit(" ", 1)[-1], **legend).legend_handles:
        handle.set_sizes([40])
    _save(figure, path)


def _legible(name: str) -> str:
    name = printable(name)[:30]
    return f" {name}" if name.startswith("_") else name  # matplotlib keeps such labels out of legends


def draw_det(path: Path, curves: dict[str, Verification | None], title: str) -> None:
    """Detection error trade-off on normal-deviate axes (Martin et al., Eurospeech 1997), with the EERs marked."""
    figure, axes = plt.subplots(figsize=(7, 6.5), dpi=120, layout="constrained")
    ticks = norm.ppf(ERROR_TICKS)
    axes.plot(ticks[[0, -1]], ticks[[0, -1]], color="0.8", linewidth=1, label="equal error rates")
    for color, (name, curve) in zip(("#332288", "#CC6677", "#117733"), curves.items(), strict=False):
        if curve is None:
            continue
        errors = np.clip([curve.false_accepts, curve.false_rejects], 1e-5, 1 - 1e-5)
        axes.plot(*norm.ppf(errors), color=color, label=f"{name}: EER {curve.eer:.1%}")
        axes.plot(*[norm.ppf(np.clip(curve.eer, 1e-5, 1 - 1e-5))] * 2, "o", color=color)
    labels = [f"{tick:.1%}" if tick < 0.01 else f"{tick:.0%}" for tick in ERROR_TICKS]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.set(xlim=ticks[[0, -1]], ylim=ticks[[0, -1]], xlabel="false accepts", ylabel="false rejects", aspect="equal")
    axes.grid(color="0.92")
    axes.set_title(f"Speaker verification: detection error trade-off\n{title}", fontsize=11)
    axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    temporary = path.with_suffix(".partial")
    figure.savefig(temporary, format="png")
    plt.close(figure)
    temporary.replace(path)

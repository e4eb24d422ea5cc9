"""What all pictures share: style, title and caption, colours for colour-blind readers, and how a file is written."""

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure  # not pyplot, which takes longer to import and keeps every figure
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from common.run.console import shortened
from common.run.files import PICTURE_MARK, write_atomically

STYLE = {
    "text.parse_math": False,  # names of speakers and corpora come from folders and may contain dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.6",
    "axes.labelcolor": "0.2",
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "legend.frameon": False,
}
HEADER = 0.66  # inches

# Ten colours that colour-blind readers can tell apart: Petroff's (arXiv:2107.02270), with black for one of two greys.
DIGIT_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#000000", "#92dadd",
)  # fmt: skip
# Okabe and Ito's colours without yellow, which is too light on white. Each cycle through them has its own marker.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
STYLES = tuple(itertools.product("o^sDvPX*", COLORS))  # (marker, color)


@contextmanager
def picture(path: Path, width: float, height: float, title: str, caption: str) -> Iterator[Figure]:
    """Give a new figure to the ``with`` block and save it at the end, whatever the user's matplotlib settings are."""
    with style.context(["default", STYLE]):
        figure = new_figure(width, height, title, caption)
        yield figure
        save(figure, path)


def new_figure(width: float, height: float, title: str, caption: str) -> Figure:
    """A figure of ``width`` x ``height`` inches below a title and a caption, which names the data."""
    total = height + HEADER
    figure = Figure((width, total), dpi=150)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - HEADER / total))
    left = 0.1 / width
    figure.text(left, 1 - 0.1 / total, shortened(title, int(width * 9)), va="top", fontsize=12, fontweight="bold")
    figure.text(left, 1 - 0.36 / total, shortened(caption, int(width * 15)), va="top", fontsize=9, color="0.35")
    return figure


@rank_zero_only
def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, atomically; of several processes only the first one writes.

    Raises:
        UserError: the file cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": PICTURE_MARK.decode()})
    write_atomically(path, content.getvalue())

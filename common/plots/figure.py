"""What all pictures have in common: a head, colours that colour-blind readers tell apart, and how they are kept."""

import io
import itertools
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure  # not pyplot, which takes longer to import and keeps every figure

from common.run.console import shortened
from common.run.files import write_atomically

matplotlib.rcParams.update(
    {
        "text.parse_math": False,  # folders give speakers and corpora their names, dollars and all
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "0.6",
        "axes.labelcolor": "0.2",
        "xtick.color": "0.3",
        "ytick.color": "0.3",
        "legend.frameon": False,
    }
)

DPI = 150
HEADER = 0.66  # inches
MARK = b"Audio Deep Learning Tasks"  # in the metadata of each picture, near its beginning

# Ten colours that stay apart for colour-blind readers: Petroff's (arXiv:2107.02270), but black for one of two greys.
DIGIT_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#000000", "#92dadd",
)  # fmt: skip
# Okabe and Ito's colours without the yellow, which is too light on white. Each round of them has a shape of its own.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = "o^sDvPX*"
DIGIT_STYLES = [{"color": color, "marker": "o"} for color in DIGIT_COLORS]
STYLES = [{"color": color, "marker": marker} for marker, color in itertools.product(MARKERS, COLORS)]


def new_figure(width: float, height: float, title: str, caption: str) -> Figure:
    """A figure of ``width`` x ``height`` inches below a title and a line that says what was measured on what."""
    figure = Figure((width, height + HEADER), dpi=DPI)
    height += HEADER
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - HEADER / height))
    place = {"x": 0.1 / width, "verticalalignment": "top"}
    figure.text(y=1 - 0.1 / height, s=shortened(title, int(width * 9)), fontsize=12, fontweight="bold", **place)
    figure.text(y=1 - 0.36 / height, s=shortened(caption, int(width * 15)), fontsize=9, color="0.35", **place)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": MARK.decode()})
    write_atomically(path, content.getvalue())


def is_own_picture(path: Path) -> bool:
    """Whether ``save`` wrote this file."""
    with path.open("rb") as file:
        return MARK in file.read(256)

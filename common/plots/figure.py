"""How every picture looks and how it is written."""

import functools
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from common.run import PICTURE_MARK, model_name, shortened, write_atomically

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
MORE_FONTS = re.compile("CJK|PingFang|YaHei|WenQuanYi|Arial Unicode")


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
    write_atomically(path, content.getvalue())


@functools.cache
def _fonts() -> list[str]:
    """matplotlib's own font, and the installed ones that have the characters of more languages."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it is not content with their weights
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *sorted(name for name in installed if MORE_FONTS.search(name))[:4]]


@functools.cache  # once per process
def _note_boxes() -> None:
    print("Note: no font has some characters of the names; install one, such as Noto Sans CJK", file=sys.stderr)


def ending(name: str, length: int) -> str:
    """At most ``length`` characters of a name: its end, because similar names tend to differ there."""
    return shortened(name[::-1], length)[::-1]

"""Plots are drawn whatever the speakers and the corpus are called."""

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest

from common import plots

NAMES = ["$x^$", "_b", "\\frac{", "line\nend", "\udcff", "\x1b[1m", "a" * 250, "%s", "01"]


def test_names_are_shown_as_they_are(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: (figure.savefig(path), figures.append(figure)))
    labels = np.arange(3 * len(NAMES)) % len(NAMES)
    layout = np.random.default_rng(0).random((len(labels), 2))
    plots.draw_embeddings(tmp_path / "plot.png", layout, labels, NAMES, "embeddings by speaker\n$^$")
    shown = [text.get_text().strip() for text in figures[0].axes[0].get_legend().get_texts()]
    assert shown == ["$x^$", "_b", "\\frac{", "line end", "?", "?[1m", "a" * 30, "%s", "01"]
    plt.close(figures[0])


@pytest.mark.filterwarnings("error")
def test_a_title_with_a_dollar_is_no_formula(tmp_path):
    plots.draw_det(tmp_path / "det.png", {"1d": None}, "of $^$ clips")
    assert matplotlib.image.imread(tmp_path / "det.png").ndim == 3

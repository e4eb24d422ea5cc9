"""Pictures can be drawn whatever the speakers and the corpus are called, and show the right numbers."""

import os
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from scipy.stats import norm

from common.evaluate import tsne
from common.plots import draw_accuracies, draw_confusion, draw_det, draw_learning_curves
from common.plots.embeddings import draw_embeddings
from common.run import UserError, is_own_picture
from common.speakers import Verification

# Files that other tests left open may be collected here; they are not of pictures.
pytestmark = pytest.mark.filterwarnings("error", "ignore::pytest.PytestUnraisableExceptionWarning")
NUMBERS = [f"{number:02d}" for number in range(63)]
NAMES = ["$x^$", "_b", "\\frac{", "line\nend", "\udcff", "\x1b[1m", "a" * 250 + "1", "%s", "01"]
SHOWN = ["$x^$", "_b", "\\frac{", "line end", "?", "?[1m", "…" + "a" * 30 + "1", "%s", "01"]
LOSSES = [{"epoch": i, "train_loss": loss, "val_loss": loss + 0.1} for i, loss in enumerate((2.0, 1.0, 1.5), 1)]
POINTS = np.random.default_rng(0).random((224, 2))
TITLES = "title $^$", "caption of $^$ clips"


@pytest.mark.parametrize(("names", "shown"), [(NAMES, SHOWN), (NUMBERS, NUMBERS)], ids=["odd names", "many speakers"])
def test_every_speaker_has_its_own_style_and_its_literal_name_in_the_legend(tmp_path, drawn, names, shown):
    colorings = {"speaker": (np.arange(224) % len(names), names)}
    draw_embeddings(tmp_path / "a.png", {"1d": POINTS}, colorings, TITLES[1])
    axes = drawn[0].axes[0]
    styles = {(part.get_facecolor().tobytes(), part.get_paths()[0].vertices.tobytes()) for part in axes.collections}
    legend = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    assert len(styles) == len(names) and legend == shown


def test_the_overview_has_a_plot_of_each_layout_in_each_coloring_and_a_legend_for_each_coloring(tmp_path, drawn):
    index = np.arange(224)
    colorings = {"digit": (index % 10, "0123456789"), "speaker": (index % 63, ["long name " + n for n in NUMBERS])}
    draw_embeddings(tmp_path / "a.png", {"1d": POINTS, "2d": POINTS}, colorings, TITLES[1])
    axes = drawn[0].axes
    titles = [each.get_title() for each in axes]
    assert titles == ["1D by digit", "2D by digit", "1D by speaker", "2D by speaker"]
    assert [each.get_legend() is None for each in axes] == [True, False, True, False]
    names = [text.get_text() for text in axes[3].get_legend().get_texts()]
    assert len(set(names)) == 63, "names that are cut still differ"


def test_learning_curves_mark_the_epoch_with_the_lowest_validation_loss(tmp_path, drawn):
    history = [row | {"train_acc": 0.5, "val_acc": 0.4} for row in LOSSES]
    draw_learning_curves(tmp_path / "a.png", history, *TITLES)
    loss, accuracy = drawn[0].axes
    assert "kept: epoch 2" in [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert [list(line.get_ydata()) for line in loss.lines[:2]] == [[2.0, 1.0, 1.5], [2.1, 1.1, 1.6]]


def test_a_confusion_matrix_has_a_row_for_each_true_class_and_a_column_for_each_predicted_class(tmp_path, drawn):
    true, predicted = np.array([0, 0, 0, 2, 2]), np.array([0, 0, 2, 2, 1])
    draw_confusion(tmp_path / "a.png", true, predicted, *TITLES, ["a", "b", "c", "d"])
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"], "d does not occur"
    cells = {(0, 0): "2", (0, 2): "1", (2, 2): "1", (2, 1): "1"}
    assert {text.get_position()[::-1]: text.get_text() for text in axes.texts} == cells
    shares = [[2 / 3, 0, 1 / 3], [0, 0, 0], [0, 0.5, 0.5]]  # the true b has no clips
    assert np.allclose(axes.images[0].get_array(), shares)


def test_accuracies_are_drawn_with_intervals_values_and_the_lines_that_are_near(tmp_path, drawn):
    series = {"1d": {"clean": (0.8, [0.7, 0.9]), "white_20db": (0.75, [0.7, 1.0]), "reverb_300ms": (0.7, [0.7, 0.9])}}
    series |= {"2d": {row: (1.0, [0.9, 1.0]) for row in reversed(series["1d"])}}
    draw_accuracies(tmp_path / "a.png", series, *TITLES, {"chance": 0.1, "log-mel statistics": 0.66})
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clean", "white 20 dB", "reverb 300 ms"]
    assert axes.get_xlim()[0] == pytest.approx(0.65) and axes.yaxis_inverted() and len(axes.containers) == 2
    segments = axes.containers[0].lines[2][0].get_segments()
    assert np.allclose([line[:, 0] for line in segments], [[0.7, 0.9], [0.7, 1.0], [0.7, 0.9]])
    assert list(axes.containers[0].lines[0].get_xdata()) == [0.8, 0.75, 0.7]
    assert [text.get_text() for text in axes.texts] == ["0.800", "0.750", "0.700", "1.000", "1.000", "1.000"]
    assert axes.get_legend_handles_labels()[1] == ["log-mel statistics", "1D", "2D"], "chance is far below"


def test_detection_errors_are_drawn_as_normal_deviates(tmp_path, drawn):
    scores = np.linspace(6, -6, 300_000)
    curve = Verification(norm.sf(scores), norm.cdf(scores, 1), 0.3085, [0.2, 0.41])
    draw_det(tmp_path / "a.png", {"1d": curve, "2d": None}, *TITLES)
    x, y = next(line.get_data() for line in drawn[0].axes[0].lines if line.get_label() == "1D: EER 30.9% [20.0, 41.0]")
    # The scores of both kinds of pairs are normally distributed, one standard deviation apart: a straight line.
    assert np.allclose((x + y)[np.abs(x) < 2], -1)


def test_extreme_results_can_be_drawn(tmp_path, drawn):
    draw_learning_curves(tmp_path / "one_epoch.png", LOSSES[:1], *TITLES)
    draw_det(tmp_path / "no_curves.png", {"1d": None}, *TITLES)
    for true in (np.arange(1), np.arange(100)):
        draw_confusion(tmp_path / f"{len(true)}.png", true, true, *TITLES, 2 * NUMBERS)
    assert len(drawn[-1].axes[0].get_yticklabels()) == 25, "every fourth of 100 names"
    for z in (np.zeros((9, 8)), np.eye(8)[:1], np.eye(8)[:2], np.eye(8)[:3], np.eye(8)[:5]):
        labels, (points, _) = np.arange(len(z)), tsne(z, 0, "few clips")
        draw_embeddings(tmp_path / f"{len(z)}_clips.png", {"1d": points}, {"digit": (labels, "0123456789")}, "")
    assert [matplotlib.image.imread(path).ndim for path in tmp_path.iterdir()] == 9 * [3]


def test_a_picture_is_told_from_others_and_one_that_cannot_be_written_is_an_error(tmp_path):
    draw_learning_curves(tmp_path / "own.png", LOSSES, *TITLES)
    matplotlib.image.imsave(tmp_path / "other.png", np.zeros((4, 4)))
    assert is_own_picture(tmp_path / "own.png") and not is_own_picture(tmp_path / "other.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png: cannot be written"):
        draw_learning_curves(tmp_path / "folder.png", LOSSES, *TITLES)


def test_nothing_in_the_environment_changes_a_picture(tmp_path, repository):
    """Least of all the backend that a Jupyter kernel names to its children, without which matplotlib does not load."""
    (tmp_path / "matplotlibrc").write_text("figure.facecolor: red\ntext.usetex: True\nno setting\nfont.size: broken\n")
    inherited = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": str(tmp_path)}
    code = f"from common.plots import *; draw_confusion(Path('a.png'), *np.eye(2, 9, dtype=int), *{TITLES})"
    pictures = []
    for folder, variables in (("plain", {}), ("kernel", inherited)):
        (tmp_path / folder).mkdir()
        environment = os.environ | {"PYTHONPATH": str(repository)} | variables
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path / folder, env=environment, check=True)
        pictures.append((tmp_path / folder / "a.png").read_bytes())
    assert pictures[0] == pictures[1]

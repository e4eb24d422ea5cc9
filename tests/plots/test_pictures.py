"""Pictures can be drawn whatever the speakers and the corpus are called, and show the right numbers."""

import numpy as np
import pytest

from common.evaluate import tsne
from common.plots import (
    draw_accuracies,
    draw_conditions,
    draw_confusion,
    draw_learning_curves,
    draw_probes,
    draw_speakers,
)
from common.plots.embeddings import draw_embeddings
from common.run import UserError

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
    assert [each.get_title() for each in axes] == ["1D by digit", "2D by digit", "1D by speaker", "2D by speaker"]
    assert [each.get_legend() is None for each in axes] == [True, False, True, False]
    names = [text.get_text() for text in axes[3].get_legend().get_texts()]
    assert len(set(names)) == 63, "names that are cut still differ"


def test_learning_curves_mark_the_epoch_with_the_lowest_validation_loss(tmp_path, drawn):
    draw_learning_curves(tmp_path / "a.png", [row | {"train_acc": 0.5, "val_acc": 0.4} for row in LOSSES], *TITLES)
    loss, accuracy = drawn[0].axes
    assert [list(line.get_ydata()) for line in loss.lines[:2]] == [[2.0, 1.0, 1.5], [2.1, 1.1, 1.6]]
    assert [axes.lines[2].get_xydata().tolist() for axes in (loss, accuracy)] == [[[2, 1.1]], [[2, 0.4]]]


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
    series |= {"2d": {row: (1.0, [0.9, 1.0]) for row in series["1d"]}}
    draw_accuracies(tmp_path / "a.png", series, *TITLES, {"chance": 0.1, "log-mel statistics": 0.66})
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clean", "white 20 dB", "reverb 300 ms"]
    assert axes.get_xlim()[0] == pytest.approx(0.65) and axes.yaxis_inverted() and len(axes.containers) == 2
    segments = axes.containers[0].lines[2][0].get_segments()
    assert np.allclose([line[:, 0] for line in segments], [[0.7, 0.9], [0.7, 1.0], [0.7, 0.9]])
    assert list(axes.containers[0].lines[0].get_xdata()) == [0.8, 0.75, 0.7]
    assert [text.get_text() for text in axes.texts] == ["0.800", "0.750", "0.700", "1.000", "1.000", "1.000"]
    assert axes.get_legend_handles_labels()[1] == ["log-mel statistics", "1D", "2D"], "chance is far below"


def test_each_task_draws_its_own_accuracies(tmp_path, drawn):
    def row(**accuracies: float) -> dict:
        values = {f"{key}_acc": accuracy for key, accuracy in accuracies.items()}
        return values | {f"{key}_ci95": [0.0, 1.0] for key in values}

    path, models = tmp_path / "a.png", ("1d", "2d", "concat")
    draw_conditions(path, {"1d": row(test=0.9, white_0db=0.5), "2d": row(test=0.8, white_0db=0.7)}, "")
    untrained = {f"untrained_{name}": row(test=0.3) for name in models}
    draw_probes(path, {name: row(test=0.9) for name in models} | untrained | {"logmel": row(test=0.7)}, "")
    speakers = row(test=0.9, text_independent=0.6, mismatch=0.5, mismatch_text_independent=0.2)
    draw_speakers(path, {"1d": speakers | {"text_independent_chance": 0.1}, "logmel": speakers}, "")
    draw_speakers(path, {"1d": row(test=0.9, mismatch=0.5)}, "")
    shown = [[text.get_text() for text in figure.axes[0].texts] for figure in drawn]
    assert shown[0] == ["0.900", "0.500", "0.800", "0.700"] and shown[1] == ["0.900"] * 3 + ["0.300"] * 3
    assert shown[2:] == [["0.600"] * 2 + ["0.200"] * 2], "without other digits there is no picture"


def test_extreme_results_can_be_drawn_and_a_picture_that_cannot_be_written_is_a_user_error(tmp_path, drawn):
    draw_learning_curves(tmp_path / "one_epoch.png", LOSSES[:1], *TITLES)
    for true in (np.arange(1), np.arange(100)):
        draw_confusion(tmp_path / "confusion.png", true, true, *TITLES, 2 * NUMBERS)
    assert len(drawn[-1].axes[0].get_yticklabels()) == 25, "every fourth of 100 names"
    for z in (np.zeros((9, 8)), np.eye(8)[:2], np.eye(8)[:5]):
        colorings = {"digit": (np.arange(len(z)), "0123456789")}
        draw_embeddings(tmp_path / "few.png", {"1d": tsne(z, max(1.0, (len(z) - 1) / 3), 0)}, colorings, "")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png: cannot be written"):
        draw_learning_curves(tmp_path / "folder.png", LOSSES, *TITLES)

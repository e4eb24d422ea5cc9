"""Pictures can be drawn whatever the speakers and the corpus are called, and colour-blind people can read them."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import norm

from common import plots, scatter
from common.evaluate import tsne
from common.plots import COLORS
from common.run.files import is_own_picture
from common.run.process import rank_zero_only
from common.scatter import DIGIT_COLORS
from common.speakers import Verification

pytestmark = pytest.mark.filterwarnings("error")
NUMBERS = [f"{number:02d}" for number in range(63)]
NAMES = ["$x^$", "_b", "\\frac{", "line\nend", "\udcff", "\x1b[1m", "a" * 250 + "1", "%s", "01"]
SHOWN = ["$x^$", "_b", "\\frac{", "line end", "?", "?[1m", "…" + "a" * 30 + "1", "%s", "01"]
LOSSES = [{"epoch": i, "train_loss": loss, "val_loss": loss + 0.1} for i, loss in enumerate((2.0, 1.0, 1.5), 1)]
POINTS = np.random.default_rng(0).random((224, 2))
TITLES = "title $^$", "caption of $^$ clips"


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are saved."""
    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: figures.append(self) or savefig(self, *args, **kw))
    return figures


def draw_layout(path: Path, labels: np.ndarray, names: Sequence[str], coloring: str) -> None:
    scatter.draw_embeddings(path, {"1d": POINTS}, {coloring: (labels, names)}, TITLES[1])


@pytest.mark.parametrize(("names", "shown"), [(NAMES, SHOWN), (NUMBERS, NUMBERS)], ids=["odd names", "many speakers"])
def test_every_speaker_has_its_own_style_and_its_literal_name_in_the_legend(tmp_path, drawn, names, shown):
    draw_layout(tmp_path / "a.png", np.arange(224) % len(names), names, "speaker")
    axes = drawn[0].axes[0]
    styles = {(part.get_facecolor().tobytes(), part.get_paths()[0].vertices.tobytes()) for part in axes.collections}
    legend = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    assert len(styles) == len(names) and legend == shown


def test_all_plots_of_a_layout_lie_at_one_place_and_have_equal_axes_and_digit_colours(tmp_path, drawn):
    index, nine = np.arange(224), np.full(224, 9)
    for labels, coloring in ((index % 10, "digit"), (nine, "digit"), (index % 63, "speaker")):
        draw_layout(tmp_path / "a.png", labels, NUMBERS, coloring)
    axes = [figure.axes[0] for figure in drawn]
    corner = [(figure.get_tightbbox().x0, figure.get_tightbbox().y1) for figure in drawn]
    assert np.allclose(corner, corner[0])
    pixels = np.stack([each.transData.transform(POINTS) for each in axes])
    assert np.array_equal(pixels, np.broadcast_to(pixels[0], pixels.shape))
    assert np.allclose(*np.ptp(pixels[0], axis=0) / np.ptp(POINTS, axis=0)), "a unit has the same length on both axes"
    assert np.array_equal(*(each.collections[-1].get_facecolor() for each in axes[:2]))


def test_the_overview_has_a_plot_of_each_layout_in_each_coloring_and_a_legend_for_each_coloring(tmp_path, drawn):
    index = np.arange(224)
    colorings = {"digit": (index % 10, "0123456789"), "speaker": (index % 63, ["long name " + n for n in NUMBERS])}
    scatter.draw_embeddings(tmp_path / "a.png", {"1d": POINTS, "2d": POINTS}, colorings, TITLES[1])
    axes = drawn[0].axes
    titles = [each.get_title() for each in axes]
    assert titles == ["1D by digit", "2D by digit", "1D by speaker", "2D by speaker"]
    assert [each.get_legend() is None for each in axes] == [True, False, True, False]
    names = [text.get_text() for text in axes[3].get_legend().get_texts()]
    assert len(set(names)) == 63, "names that are cut still differ"


def test_nothing_is_cut_off(tmp_path, drawn):
    draw_layout(tmp_path / "a.png", np.arange(224) % 12, [f"{'W' * 27} {n}" for n in NUMBERS], "speaker")
    legend = drawn[0].axes[0].get_legend().get_window_extent()
    assert legend.width > 200 and matplotlib.image.imread(tmp_path / "a.png").shape[1] > legend.x1


# Machado et al. (IEEE TVCG 15, 2009), severity 1: red-, green- and blue-blind.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("palette", [COLORS, DIGIT_COLORS])
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colour_blind_readers_can_tell_the_colours_apart(palette, blindness):
    rgb = np.array([matplotlib.colors.to_rgb(color) for color in palette])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.transpose(BLINDNESS[blindness])
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.clip(linear, 0, 1) @ np.transpose(to_xyz) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)  # CIE L*a*b*
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 15
    assert lab[:, 0].max() < 88, "darker than the white background"


def test_learning_curves_mark_the_epoch_with_the_lowest_validation_loss(tmp_path, drawn):
    history = [row | {"train_acc": 0.5, "val_acc": 0.4} for row in LOSSES]
    plots.draw_learning_curves(tmp_path / "a.png", history, *TITLES)
    loss, accuracy = drawn[0].axes
    assert "kept: epoch 2" in [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert [list(line.get_ydata()) for line in loss.lines[:2]] == [[2.0, 1.0, 1.5], [2.1, 1.1, 1.6]]


def test_a_confusion_matrix_has_a_row_for_each_true_class_and_a_column_for_each_predicted_class(tmp_path, drawn):
    true, predicted = np.array([0, 0, 0, 2, 2]), np.array([0, 0, 2, 2, 1])
    plots.draw_confusion(tmp_path / "a.png", true, predicted, *TITLES, ["a", "b", "c", "d"])
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"], "d does not occur"
    cells = {(0, 0): "2", (0, 2): "1", (2, 2): "1", (2, 1): "1"}
    assert {text.get_position()[::-1]: text.get_text() for text in axes.texts} == cells
    shares = [[2 / 3, 0, 1 / 3], [0, 0, 0], [0, 0.5, 0.5]]  # the true b has no clips
    assert np.allclose(axes.images[0].get_array(), shares)


def test_accuracies_are_drawn_with_intervals_values_and_the_lines_that_are_near(tmp_path, drawn):
    series = {"1d": {"clean": (0.8, [0.7, 0.9]), "white_20db": (0.75, [0.7, 1.0]), "reverb_300ms": (0.7, [0.7, 0.9])}}
    series |= {"2d": {row: (1.0, [0.9, 1.0]) for row in reversed(series["1d"])}}
    plots.draw_accuracies(tmp_path / "a.png", series, *TITLES, {"chance": 0.1, "log-mel statistics": 0.66})
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
    plots.draw_det(tmp_path / "a.png", {"1d": curve, "2d": None}, *TITLES)
    x, y = next(line.get_data() for line in drawn[0].axes[0].lines if line.get_label() == "1D: EER 30.9% [20.0, 41.0]")
    # The scores of both kinds of pairs are normally distributed, one standard deviation apart: a straight line.
    assert np.allclose((x + y)[np.abs(x) < 2], -1)


def test_a_curve_without_errors_is_inside_the_plot(tmp_path, drawn):
    curve = Verification(np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]), 0.0, [0.0, 0.1])
    plots.draw_det(tmp_path / "a.png", {"1d": curve}, *TITLES)
    axes = drawn[0].axes[0]
    for line in axes.lines[1:]:  # the curve and the dot at its EER
        assert min(np.min(line.get_data()[0]), np.min(line.get_data()[1])) > axes.get_xlim()[0]


def test_extreme_results_can_be_drawn(tmp_path, drawn):
    plots.draw_learning_curves(tmp_path / "one_epoch.png", LOSSES[:1], *TITLES)
    plots.draw_det(tmp_path / "no_curves.png", {"1d": None}, *TITLES)
    for true in (np.arange(1), np.arange(100)):
        plots.draw_confusion(tmp_path / f"{len(true)}.png", true, true, *TITLES, 2 * NUMBERS)
    assert len(drawn[-1].axes[0].get_yticklabels()) == 25, "every fourth of 100 names"
    for z in (np.zeros((9, 8)), np.eye(8)[:1], np.eye(8)[:2], np.eye(8)[:3], np.eye(8)[:5]):
        labels, (points, _) = np.arange(len(z)), tsne(z, 0, "few clips")
        scatter.draw_embeddings(tmp_path / f"{len(z)}_clips.png", {"1d": points}, {"digit": (labels, "0123456789")}, "")
    assert [matplotlib.image.imread(path).ndim for path in tmp_path.iterdir()] == 9 * [3]


def test_the_matplotlib_settings_of_the_user_have_no_effect_and_do_not_change(tmp_path):
    plots.draw_learning_curves(tmp_path / "a.png", LOSSES, *TITLES)
    users = {"axes.facecolor": "red", "font.size": 20, "axes.spines.top": True, "text.usetex": True}
    users |= {"savefig.dpi": 30, "savefig.bbox": "tight", "savefig.pad_inches": 2, "savefig.transparent": True}
    with matplotlib.rc_context(users):
        before = dict(matplotlib.rcParams)
        plots.draw_learning_curves(tmp_path / "b.png", LOSSES, *TITLES)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_first_process_alone_writes_pictures_and_they_are_told_from_others(tmp_path, monkeypatch):
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        plots.draw_learning_curves(tmp_path / f"rank{rank}.png", LOSSES, *TITLES)
    matplotlib.image.imsave(tmp_path / "other.png", np.zeros((4, 4)))
    (tmp_path / "empty.png").touch()
    assert {path.name for path in tmp_path.iterdir() if is_own_picture(path)} == {"rank0.png"}


def test_a_picture_that_fails_is_one_line_and_costs_nothing_else(tmp_path, capsys):
    plots.draw_accuracies(tmp_path / "a.png", {"no\nmodel": {}}, *TITLES, {})
    (tmp_path / "folder.png").mkdir()
    plots.draw_learning_curves(tmp_path / "folder.png", LOSSES, *TITLES)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'a.png'} could not be drawn: ")
    assert len(lines) == 2 and "folder.png: cannot be written" in lines[1] and not (tmp_path / "a.png").exists()


@pytest.mark.filterwarnings("default")
def test_characters_that_no_font_has_are_noted_once(tmp_path, capsys, monkeypatch, recwarn):
    monkeypatch.setattr(plots, "_fonts", lambda: ["DejaVu Sans"])
    plots._note_boxes.cache_clear()
    for name in "ab":
        plots.draw_learning_curves(tmp_path / f"{name}.png", LOSSES, "curves", "\u6570\u636e\u96c6: 20 clips")
    assert (
        capsys.readouterr().err
        == "Note: no font has some characters of the names; install one, such as Noto Sans CJK\n"
    )
    assert len(recwarn) == 0 and (tmp_path / "b.png").exists()

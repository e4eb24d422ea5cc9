"""Pictures are drawn whatever the speakers and the corpus are called, and can be read by colour-blind people."""

import itertools

import matplotlib.image
import numpy as np
import pytest

from common.evaluate import accuracy_metrics
from common.plots import results as plots
from common.plots import scatter
from common.plots.figure import COLORS, DIGIT_COLORS, is_own_picture, new_figure, save
from common.speakers import Verification, equal_error_rate

NAMES = ["$x^$", "_b", "\\frac{", "line\nend", "\udcff", "\x1b[1m", "a" * 250 + "1", "%s", "01"]
HISTORY = [
    {"epoch": epoch, "train_loss": loss, "val_loss": loss + 0.1, "train_acc": 0.5, "val_acc": 0.4}
    for epoch, loss in ((1, 2.0), (2, 1.0), (3, 1.5))
]


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The figures that are drawn, which are still written."""
    figures = []
    for module in (plots, scatter):
        monkeypatch.setattr(module, "save", lambda figure, path: (save(figure, path), figures.append(figure)))
    return figures


def layout(clips: int) -> np.ndarray:
    return np.random.default_rng(0).random((clips, 2))


@pytest.mark.filterwarnings("error")
def test_names_are_shown_as_they_are(tmp_path, drawn):
    labels = np.arange(3 * len(NAMES)) % len(NAMES)
    scatter.draw_embeddings(tmp_path / "plot.png", layout(len(labels)), labels, NAMES, "speaker", "$^$", "of $^$ clips")
    shown = [text.get_text().strip() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert shown == ["$x^$", "_b", "\\frac{", "line end", "?", "?[1m", "…" + "a" * 16 + "1", "%s", "01"]


@pytest.mark.parametrize("speakers", [3, 20, 56])
def test_each_speaker_has_a_style_of_its_own_and_a_place_in_the_legend(tmp_path, drawn, speakers):
    names = [f"{number:02d}" for number in range(speakers)]
    scatter.draw_embeddings(
        tmp_path / "plot.png", layout(4 * speakers), np.arange(4 * speakers) % speakers, names, *"..."
    )
    axes = drawn[0].axes[0]
    styles = {(part.get_facecolor().tobytes(), part.get_paths()[0].vertices.tobytes()) for part in axes.collections}
    assert len(styles) == speakers
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
    box, figure = axes.get_legend().get_window_extent(), drawn[0].bbox
    assert box.x1 <= figure.x1 and box.y0 >= 0 and box.y1 <= figure.y1


def test_both_colorings_have_the_points_in_the_same_places(tmp_path, drawn):
    places, ones = layout(40), np.ones(40, int)
    scatter.draw_embeddings(tmp_path / "a.png", places, np.arange(40) % 10, "0123456789", "digit", "by digit", "")
    scatter.draw_embeddings(tmp_path / "b.png", places, ones, ["x", "a long name of a speaker"], "speaker", "by", "")
    first, second = (figure.axes[0] for figure in drawn)
    pixels = [axes.transData.transform(places) for axes in (first, second)]
    assert np.array_equal(*pixels) and drawn[0].bbox.size.tolist() == drawn[1].bbox.size.tolist()
    unit = first.transData.transform([[0, 0], [1, 1]])
    assert np.ptp(unit, axis=0)[0] == pytest.approx(np.ptp(unit, axis=0)[1]), "equal axes"


def test_a_digit_has_its_colour_whatever_others_there_are(tmp_path, drawn):
    for digits in ([0, 1, 9], [9]):
        labels = np.array(digits * 4)
        scatter.draw_embeddings(tmp_path / "a.png", layout(len(labels)), labels, "0123456789", "digit", "", "")
    first, second = (figure.axes[0].collections[-1].get_facecolor() for figure in drawn)
    assert np.array_equal(first, second)


# Machado et al. (IEEE TVCG 15, 2009), severity 1: red-, green- and blue-blind.
BLINDNESS = {
    "nobody": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(color: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of an sRGB colour, as somebody sees it."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = seen @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ np.clip(linear, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("palette", [COLORS, DIGIT_COLORS])
@pytest.mark.parametrize("seen", BLINDNESS)
def test_colours_stay_apart_for_colour_blind_readers(palette, seen):
    colors = [lab(color, np.array(BLINDNESS[seen])) for color in palette]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2)) > 15
    assert max(color[0] for color in colors) < 88, "and from the white of the page"


def test_the_kept_epoch_is_the_one_with_the_lowest_validation_loss(tmp_path, drawn):
    plots.draw_learning_curves(tmp_path / "a.png", HISTORY, "", "")
    loss, accuracy = drawn[0].axes
    assert "kept: epoch 2" in [text.get_text() for text in accuracy.get_legend().get_texts()]
    lines = {line.get_label(): list(line.get_ydata()) for line in loss.lines}
    assert lines["training"] == [2.0, 1.0, 1.5] and lines["validation"] == [2.1, 1.1, 1.6]


@pytest.mark.filterwarnings("error")
def test_one_epoch_and_a_loss_alone_can_be_drawn(tmp_path, drawn):
    history = [{"epoch": 1, "train_loss": 2.0, "val_loss": 2.1}]
    plots.draw_learning_curves(tmp_path / "a.png", history, "", "")
    assert len(drawn[0].axes) == 1


def test_a_confusion_matrix_counts_rows_of_truth_and_columns_of_predictions(tmp_path, drawn):
    true, predicted = np.array([0, 0, 0, 2, 2]), np.array([0, 0, 2, 2, 1])
    plots.draw_confusion(tmp_path / "a.png", true, predicted, ["a", "b", "c", "d"], "letter", "", "")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"], "d does not occur"
    shown = {(int(text._y), int(text._x)): text.get_text() for text in axes.texts if text._x in (0, 1, 2)}
    assert shown == {(0, 0): "2", (0, 2): "1", (2, 2): "1", (2, 1): "1"}
    assert [text.get_text() for text in axes.texts if text._x > 2.5] == ["right", "67%", "50%"], "b is never said"


@pytest.mark.parametrize("classes", [1, 26, 200])
def test_confusion_matrices_of_any_size_can_be_drawn(tmp_path, drawn, classes):
    true = np.arange(3 * classes) % classes
    plots.draw_confusion(tmp_path / "a.png", true, true, [f"s{i}" for i in range(classes)], "speaker", "", "")
    assert len(drawn[0].axes[0].get_yticklabels()) <= 26


def test_bars_stand_at_their_values(tmp_path, drawn):
    series = {"untrained": {"1d": accuracy_metrics("test", 5, 10)}, "trained": {"1d": accuracy_metrics("test", 9, 10)}}
    plots.draw_bars(tmp_path / "a.png", series, "test_acc", "", "")
    assert [bar.get_height() for bar in drawn[0].axes[0].patches] == [0.5, 0.9]


@pytest.mark.filterwarnings("error")
def test_a_curve_of_a_million_thresholds_is_thinned_and_stays_in_place(tmp_path, drawn):
    rng = np.random.default_rng(0)
    same = rng.random(400_000) < 0.5
    curve = equal_error_rate(rng.normal(size=len(same)) + same, same)
    plots.draw_det(tmp_path / "det.png", {"1d": curve, "2d": None}, "$^$", "of $^$ clips")
    (line,) = (line for line in drawn[0].axes[0].lines if line.get_label().startswith("1D"))
    x, y = line.get_data()
    assert len(curve.false_accepts) > 200_000 and len(x) < 5000
    assert line.get_label() == f"1D: EER {curve.eer:.1%}"
    # Two normal distributions that are one standard deviation apart make a straight line.
    middle = np.abs(x) < 2
    assert np.abs(x + y + 1)[middle].max() < 0.05


@pytest.mark.filterwarnings("error")
def test_no_curve_at_all_is_an_empty_plot(tmp_path):
    plots.draw_det(tmp_path / "det.png", {"1d": None}, "title", "caption")
    assert matplotlib.image.imread(tmp_path / "det.png").ndim == 3


def test_perfect_verification_can_be_drawn(tmp_path):
    ends = Verification(np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]), 0.0, 0.5)
    plots.draw_det(tmp_path / "det.png", {"1d": ends}, "title", "caption")


def test_own_pictures_are_known_from_others(tmp_path):
    save(new_figure(2, 2, "title", "caption"), tmp_path / "own.png")
    matplotlib.image.imsave(tmp_path / "other.png", np.zeros((4, 4)))
    (tmp_path / "empty.png").touch()
    assert [is_own_picture(tmp_path / f"{name}.png") for name in ("own", "other", "empty")] == [True, False, False]

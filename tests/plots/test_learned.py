"""The picture of what was learned shows its numbers where they belong."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from common.audio import MEL_BANDS
from common.encoders import gabor_filters
from common.plots.figure import BLUE, ORANGE
from common.plots.learned import GAP, _in_colour, draw_learned
from common.saliency import SHARES, Explanation, filter_shape

# Files that other tests left open may be collected here; they are not of pictures.
pytestmark = pytest.mark.filterwarnings("error", "ignore::pytest.PytestUnraisableExceptionWarning")

LAST = {"salient": 0.0, "loudest": 0.5, "random": 0.9}  # points of the curves


def explanation(digits: list[int]) -> Explanation:
    n = len(digits)
    log_mel, saliency = np.random.default_rng(0).normal(size=(2, n, MEL_BANDS, 101))
    curves = {name: np.linspace(0.9, end, len(SHARES)) for name, end in LAST.items()}
    return Explanation(np.array(digits), log_mel, saliency, np.linspace(0.1, 0.84, n), curves, 5 * n)


@pytest.mark.parametrize("digits", [[4], [0, 9], list(range(10))])
def test_clips_filters_and_curves_are_drawn_whatever_digits_there_are(tmp_path, drawn, capsys, digits):
    filters = gabor_filters(32, 256).roll(1, dims=0)
    filters.requires_grad_()
    draw_learned(tmp_path / "a.png", filters, {"1d": explanation(digits), "2d": explanation(digits)}, "caption")
    assert capsys.readouterr().err == "" and matplotlib.image.imread(tmp_path / "a.png").shape[1] > 1500
    clip, one, two, bank, *tests = drawn[0].axes
    assert [each.get_ylabel() for each in (clip, one, two)] == ["clip", "1D", "2D"]
    assert [text.get_text() for text in clip.get_xticklabels()] == [f"“{digit}”" for digit in digits]
    assert one.get_xticklabels()[0].get_text() == "10%" and one.get_xticks()[0] == 50, "in the middle of 101 frames"
    widths = {image.get_array().shape[1] for axes in (clip, one, two) for image in axes.images}
    assert widths == {len(digits) * (101 + GAP) - GAP}
    lines, shapes = bank.lines[-2:], [filter_shape(f.detach()) for f in (gabor_filters(32, 256), filters)]
    for line, (centre, bandwidth) in zip(lines, shapes, strict=True):
        assert np.array_equal(line.get_xdata(), centre) and np.array_equal(line.get_ydata(), bandwidth)
    assert [line.get_label() for line in lines] == ["before training", "after training"]
    assert [axes.get_title(loc="left")[:3] for axes in tests] == ["1D:", "2D:"]
    for axes in tests:
        assert [round(float(line.get_ydata()[-1]), 2) for line in axes.lines] == list(LAST.values())


def test_cells_for_the_digit_are_orange_and_those_against_it_blue():
    saliency = np.zeros((2, MEL_BANDS, 101))
    saliency[0, 10:16, 20:30], saliency[1, 40:46, 50:60] = 1, -1000  # each clip has a scale of its own
    image = _in_colour(saliency)
    assert image.shape == (MEL_BANDS, 2 * 101 + GAP, 4)
    assert image[12, 25].tolist() == pytest.approx([*to_rgb(ORANGE), 1])
    assert image[42, 101 + GAP + 55].tolist() == pytest.approx([*to_rgb(BLUE), 1])
    opaque = image[..., 3] > 0
    assert not opaque[20:38].any() and not opaque[:, 101 : 101 + GAP].any()

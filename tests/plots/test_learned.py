"""The picture of what was learned shows its numbers where they belong."""

import numpy as np
import pytest

from common.audio import MEL_BANDS
from common.encoders import gabor_filters
from common.plots.learned import draw_learned
from common.saliency import GROUPS, Explanation, filter_shape


@pytest.mark.parametrize("digits", [[4], [0, 9], list(range(10))])
def test_clips_and_filters_are_drawn_whatever_digits_there_are(tmp_path, drawn, digits):
    n = len(digits)
    drop = np.zeros((n, GROUPS, 20))
    drop[:, 2, 8], drop[:, 5, 12] = 0.08, -0.02
    log_mel = np.random.default_rng(0).normal(size=(n, MEL_BANDS, 101))
    explanation = Explanation(np.array(digits), log_mel, np.linspace(0.1, 0.84, n), drop)
    filters = gabor_filters(32, 256).roll(1, dims=0).requires_grad_()
    draw_learned(tmp_path / "a.png", filters, {"1d": explanation, "2d": explanation}, "caption")
    *grid, bank = drawn[0].axes
    clips, models = grid[:n], grid[n:]
    assert [axes.get_ylabel() for axes in (clips[0], *models[::n])] == ["clip", "1D", "2D"]
    assert [axes.get_title() for axes in clips] == [f"“{digit}”" for digit in digits]
    assert models[0].get_xlabel() == models[n].get_xlabel() == "10% → 2%"
    for axes in models:
        occlusion = axes.images[1]
        assert occlusion.get_extent() == axes.images[0].get_extent() and occlusion.origin == "lower"
        red, _, blue, _ = occlusion.to_rgba(occlusion.get_array()).transpose(2, 0, 1)  # [G, S] each
        shown = occlusion.get_alpha()
        assert shown[2, 8] == 1 and shown[5, 12] == pytest.approx(0.25) and (shown > 0).sum() == 2
        assert red[2, 8] > blue[2, 8] and red[5, 12] < blue[5, 12], "orange and blue"
    lines, shapes = bank.lines[-2:], [filter_shape(f.detach()) for f in (gabor_filters(32, 256), filters)]
    for line, (centre, bandwidth) in zip(lines, shapes, strict=True):
        assert np.array_equal(line.get_xdata(), centre) and np.array_equal(line.get_ydata(), bandwidth)
    assert [line.get_label() for line in lines] == ["before training", "after training"]

"""Pictures of results: learning curves, bars, confusion matrices, error trade-offs, and embeddings in the plane."""

from common.plots.results import draw_bars, draw_confusion, draw_det, draw_digit_training, draw_learning_curves
from common.plots.scatter import draw_embeddings, draw_overview, tsne

__all__ = [
    "draw_bars",
    "draw_confusion",
    "draw_det",
    "draw_digit_training",
    "draw_embeddings",
    "draw_learning_curves",
    "draw_overview",
    "tsne",
]

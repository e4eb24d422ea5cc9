"""Spoken digits: the data, encoders, losses and evaluations of the five tasks, for use from Python.

    from common import ContrastiveModel, SpokenDigits, embed, linear_probe, train

    data = SpokenDigits.open("recordings", ratio=0.5)
    model = train(ContrastiveModel(), data, "my_model", epochs=20)
    train_set, val_set, test_set = (embed(model.embedder, data.loader(name)) for name in ("train", "val", "test"))
    print(linear_probe("concat", train_set, val_set, test_set)["test_acc"])

`help()` of each name gives shapes, units, errors and sources. A module is imported when one of its names is first used:
PyTorch and Lightning take seconds.
"""

import importlib

_HOME = {
    name: f"common.{module}"
    for module, names in {
        "api": "train load",
        "augmentation": "random_channel random_masks random_rates random_shifts warp",
        "audio": "LogMel SAMPLE_RATE to_float",
        "run.cli": "settings",
        "corpus.cache": "standardise",
        "corpus.clips": "Clip Corpus Split open_folder split_clips",
        "data": "Batch Examples SpokenDigits",
        "encoders": "EMBEDDING_DIM Encoder1D Encoder2D",
        "run.console": "UserError",
        "evaluate": "Embeddings embed linear_probe outputs predict_digits score_digits score_in_noise wilson_interval",
        "losses": "info_nce",
        "modules": "ContrastiveModel DigitClassifier Embedder",
        "plots.results": "draw_bars draw_confusion draw_det draw_learning_curves",
        "voice.recordings": "as_batches read_recording read_recordings",
        "plots.scatter": "draw_embeddings draw_overview tsne",
        "speakers": "Verification equal_error_rate halves identify split_by_digit verify whiten",
    }.items()
    for name in names.split()
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'common' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__

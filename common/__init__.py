"""Spoken digits: the data, encoders, losses and evaluations of the five tasks, for use from Python.

    from common import ContrastiveModel, SpokenDigits, embed, linear_probe

    data, model = SpokenDigits("recordings", ratio=0.5), ContrastiveModel()
    pl.Trainer(max_epochs=20, devices=1).fit(model, data.train_dataloader(), data.val_dataloader())
    train_set, val_set, test_set = (embed(model.embedder, data.loader(name)) for name in ("train", "val", "test"))
    results, predicted = linear_probe("concat", train_set, val_set, test_set, data.speakers)
    print(results["test_acc"], results["test_acc_ci95"])

`help()` of each name gives shapes, units, errors and sources. A module is imported when one of its names is first used,
because importing PyTorch and Lightning takes seconds.
"""

import getpass
import importlib
import importlib.util
import os

try:
    getpass.getuser()
except (KeyError, OSError):  # a user id without a name, as in containers, for which PyTorch could not be imported
    os.environ["LOGNAME"] = str(os.getuid())

# Jupyter tells the processes that it starts to draw in its notebook, and where they cannot, matplotlib does not load.
# This stands here because other libraries, such as Lightning, load it as well.
if importlib.util.find_spec("matplotlib_inline") is None:
    os.environ.pop("MPLBACKEND", None)

_MODULES = {
    "acoustics": "active_power mix random_microphone random_room room_response",
    "audio": "LogMel SAMPLE_RATE to_float",
    "augmentation": "random_channel random_masks random_rates random_shifts warp",
    "batches": "Batch EmbeddedBatch Examples",
    "calibration": "calibrate expected_calibration_error fit_temperature",
    "checkpoints": "load",
    "conditions": "conditions other_microphones",
    "corpus.clips": "Clip Corpus Split open_folder split_clips",
    "corpus.decode": "standardise",
    "data": "SpokenDigits",
    "encoders": "EMBEDDING_DIM Encoder1D Encoder2D",
    "evaluate": "Embeddings Predictions calibrated embed linear_probe predict_digits tsne",
    "intervals": "accuracy_metrics ci95 compare mean_ci95 resampled_speakers",
    "losses": "info_nce",
    "modules": "ContrastiveModel DigitClassifier",
    "networks": "ContrastiveNetwork DigitNetwork Embedder LogMelStatistics VoiceEmbedder",
    "plots": "draw_accuracies draw_classifier draw_confusion draw_det draw_learning_curves",
    "plots.embeddings": "draw_embeddings write_map",
    "plots.learned": "draw_learned",
    "run.cli": "Settings",
    "run.console": "UserError",
    "run.output": "Run",
    "saliency": "Explanation clips_of_each_digit deletion_curve explain filter_shape occlusion",
    "speaker_space": "SpeakerSpace fit_spaces fuse",
    "speakers": "Recognition Verification count_similarities equal_error_rate fit_neighbours halves recognise verify",
    "training": "fit",
    "voice.recordings": "read_recording",
}
_MODULE_OF = {name: f"common.{module}" for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'common' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__

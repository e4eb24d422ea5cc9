"""The modules of tasks 1 and 2, as these tasks train them."""

import warnings

import timing  # noqa: F401 - puts the repository on the path

import task1
import task2
from common.augmentation import Augmentation
from common.models import ContrastiveModel, DigitClassifier

# Some benchmarks take steps without a Trainer, in which nothing is logged.
warnings.filterwarnings("ignore", ".*`self.trainer` reference is not registered.*")


def digit_classifier(name: str) -> DigitClassifier:
    """The classifier of task 1 for the format "1d" or "2d"."""
    return DigitClassifier((name,), task1.AUGMENTATION, task1.DEFAULTS.lr, loss=task1.LOSS, optimizer=task1.OPTIMIZER)


def contrastive_model() -> ContrastiveModel:
    augmentation = Augmentation(task2.DEFAULTS.augment, rooms=False)
    return ContrastiveModel(augmentation, task2.DEFAULTS.lr, task2.LOSS, task2.OPTIMIZER)


MODELS = {
    "task 1, 1D": lambda: digit_classifier("1d"),
    "task 1, 2D": lambda: digit_classifier("2d"),
    "task 2": contrastive_model,
}

"""What the report says about the tasks and their numbers, and where the outputs are that it shows."""

from collections.abc import Iterable
from typing import NamedTuple


class Pictures(NamedTuple):
    """Pictures of one kind: a heading, how many stand side by side at most, a caption, and their files."""

    heading: str
    columns: int
    caption: str
    files: tuple[str, ...]


class Task(NamedTuple):
    """What the page says about a task, and where its results are."""

    directory: str
    title: str
    question: str
    pictures: tuple[Pictures, ...]
    record: str = "metrics.json"  # the file that is there when the task has finished

    @property
    def script(self) -> str:
        return f"{self.directory.split('_')[0]}.py"


CURVES = (
    "Loss and accuracy after each epoch. Where the encoders are trained, the training clips are augmented, which makes "
    "them harder than those of the validation. The dot marks the epoch whose weights were kept."
)
CONFUSION = "Test clips by the digit that was said (row) and the one that was heard (column). Orange cells are errors."
CONFIGURATIONS = tuple(f"{name}_{mode}" for name in ("1d", "2d", "concat") for mode in ("frozen", "finetuned"))
MODELS = ("supervised_1d", "supervised_2d", "contrastive_1d", "contrastive_2d")


def _named(names: Iterable[str], suffix: str) -> tuple[str, ...]:
    return tuple(f"{name}_{suffix}.png" for name in names)


TASKS = (
    Task(
        "task1_supervised",
        "Task 1: digits from labels alone",
        "Two small networks, one on the waveform (1D) and one on the log-mel spectrogram (2D), learn the digits from "
        "scratch and are tested on people whom they never heard.",
        (
            Pictures("Learning curves", 2, CURVES, _named(("1d", "2d"), "curves")),
            Pictures("Confusion matrices", 2, CONFUSION, _named(("1d", "2d"), "confusion")),
        ),
    ),
    Task(
        "task2_contrastive",
        "Task 2: embeddings without labels",
        "Both encoders learn together that the two formats of a clip belong together. A linear classifier on the "
        "frozen embeddings then shows what they know about digits; untrained encoders are the control.",
        (
            Pictures(
                "Probes and loss",
                2,
                "Test accuracy of the probes with 95% intervals; contrastive loss after each epoch, with a dot at the "
                "one that was kept.",
                ("probes.png", "curves.png"),
            ),
        ),
    ),
    Task(
        "task3_visualization",
        "Task 3: what the embeddings look like",
        "Every point is a test clip, laid out by t-SNE so that neighbours in the embedding stay neighbours. Distances "
        "between far clusters mean nothing. A model's two plots have the points in the same places.",
        (
            Pictures("Overview", 1, "All models by digit and by speaker.", ("overview.png",)),
            Pictures("By digit", 2, "Coloured by digit.", _named(MODELS, "digit")),
            Pictures("By speaker", 2, "Coloured by speaker.", _named(MODELS, "speaker")),
        ),
        record="metrics.txt",
    ),
    Task(
        "task4_biometrics",
        "Task 4: who is speaking",
        "Half of each test speaker's clips are enrolled; the others are named by their nearest neighbours among them. "
        "The embeddings of task 2 were never told who speaks.",
        (
            Pictures(
                "Who is taken for whom",
                2,
                "Clips by their speaker (row) and the one who was named (column). Orange cells are errors.",
                _named(("1d", "2d", "concat"), "confusion"),
            ),
            Pictures(
                "Verification",
                2,
                "Do two clips come from one speaker? The stricter the threshold, the more pairs of one speaker are "
                "refused and the fewer of two accepted. Dots mark where both go wrong equally often.",
                ("det.png",),
            ),
        ),
    ),
    Task(
        "task5_finetune",
        "Task 5: fine-tuning",
        "A linear layer on the encoders of task 2 learns the digits, with the encoders frozen or trained further. "
        "Compare with task 1, which starts from nothing.",
        (
            Pictures("Learning curves", 2, CURVES, _named(CONFIGURATIONS, "curves")),
            Pictures("Confusion matrices", 3, CONFUSION, _named(CONFIGURATIONS, "confusion")),
        ),
    ),
)

MEANINGS = {
    "train_acc": ("Training accuracy", "share right of the clips that the probe was fitted on."),
    "val_acc": (
        "Validation accuracy",
        "share right of held-out clips of the training speakers. Their voices are known, so it flatters; it serves to "
        "choose, not to compare.",
    ),
    "val_loss": ("Validation loss", "cross-entropy in nats on the same clips; 2.303 is what guessing gives."),
    "test_acc": (
        "Test accuracy",
        "share right of clips of people whom no model heard in training: the number to quote. Below it its 95% "
        "interval (Wilson) and its number of clips.",
    ),
    "test_loss": ("Test loss", "cross-entropy in nats on the test clips; being wrong with confidence costs most."),
    "noise_20db_acc": ("At 20 dB", "test accuracy with white noise 20 dB below the speech: a quiet room."),
    "noise_10db_acc": ("At 10 dB", "the same at 10 dB: the noise is plainly heard."),
    "noise_0db_acc": ("At 0 dB", "the same at 0 dB: the noise is as loud as the speech."),
    "C": ("C", "regularisation of the probe, chosen on validation; smaller is stronger."),
    "test_k": ("k", "how many neighbours vote, chosen among the enrolled clips."),
    "text_independent_acc": (
        "Other digits",
        "the same where digits 0 to 4 are enrolled and 5 to 9 asked, so that only the voice can help.",
    ),
    "text_independent_k": ("k, other digits", "how many neighbours vote there."),
    "eer": ("EER", "equal error rate of verification: 0 is perfect, 0.5 is guessing."),
}
SPEAKER_MEANING = "share of the clips asked about whose speaker was named. Below it its 95% interval and their number."

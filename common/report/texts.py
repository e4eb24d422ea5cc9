"""What the report says about the tasks, their pictures and their numbers."""

from typing import NamedTuple


class Task(NamedTuple):
    """Where a task writes, and what the reader should know about it."""

    directory: str
    title: str
    summary: str
    caption: str  # of its pictures
    only_pictures: bool = False  # such a task writes no metrics.json; it has finished when metrics.txt is there


TASKS = (
    Task(
        "task1_supervised",
        "Task 1: digits from labels alone",
        "Two small networks, one on the waveform (1D) and one on the log-mel spectrogram (2D), learn the digits from "
        "scratch and are tested on unseen speakers.",
        "Test clips by true digit (row) and predicted digit (column); the dot marks the epoch whose weights were kept.",
    ),
    Task(
        "task2_contrastive",
        "Task 2: embeddings without labels",
        "Both encoders learn to give the waveform and the spectrogram of a clip similar embeddings. Linear classifiers "
        "(probes) on the frozen embeddings show what they know about digits; untrained encoders are the control.",
        "Contrastive loss (the dot marks the epoch whose weights were kept), and test accuracy with 95% intervals.",
    ),
    Task(
        "task3_visualization",
        "Task 3: what the embeddings look like",
        "t-SNE puts test clips with similar embeddings close together; distances between far clusters mean nothing.",
        "Each point is a test clip, coloured by its digit or its speaker. Both plots of a model have the same layout.",
        only_pictures=True,
    ),
    Task(
        "task4_biometrics",
        "Task 4: who is speaking",
        "Half of each test speaker's clips are enrolled; the speakers of the others are predicted from their nearest "
        "neighbours among these. The encoders of task 2 were trained without speaker labels.",
        "Clips by true speaker (row) and predicted speaker (column); the dots mark the equal error rates.",
    ),
    Task(
        "task5_finetune",
        "Task 5: fine-tuning",
        "A linear layer on the encoders of task 2 learns the digits, with the encoders frozen or trained further. "
        "Compare with task 1, which trains from scratch.",
        "Test clips by true digit (row) and predicted digit (column); the dot marks the epoch whose weights were kept.",
    ),
)

MEANINGS = {  # of those numbers in metrics.json whose names do not tell it
    "val_acc": "for held-out clips of the training speakers. Their voices are known, so it is optimistic: use it to "
    "choose a model, not to compare results.",
    "test_acc": "for speakers unseen in training: the number to quote. Below it are its 95% interval and its number of "
    "clips.",
    "noise_20db_acc": "test accuracy with white noise 20 dB below the speech, as in a quiet room; at 0 dB the noise is "
    "as loud as the speech.",
    "text_independent_acc": "test accuracy where digits 0 to 4 are enrolled and 5 to 9 are queried, so that only the "
    "voice can help.",
    "eer": "equal error rate of verification (do two clips come from one speaker?): 0 is perfect, 0.5 is guessing.",
}

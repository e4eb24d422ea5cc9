"""What is shown of finished tasks: the report of one run, and the means of several."""

TASKS = {  # folder: title, what the reader should know
    "task1_supervised": (
        "Task 1: digits from labels alone",
        "Two small networks, one on the waveform (1D) and one on the log-mel spectrogram (2D), learn the digits from "
        "scratch and are tested on unseen speakers.",
    ),
    "task2_contrastive": (
        "Task 2: embeddings without labels",
        "Both encoders learn to give the waveform and the spectrogram of a clip similar embeddings. Linear classifiers "
        "(probes) on the frozen embeddings show what they know about digits; the controls were not trained.",
    ),
    "task3_visualization": (
        "Task 3: what the embeddings look like",
        "Each point is a test clip, and t-SNE puts clips with similar embeddings close together; distances between far "
        "clusters mean nothing. The plots of a model by digit and by speaker have the same layout.",
    ),
    "task4_biometrics": (
        "Task 4: who is speaking",
        "Half of each test speaker's clips are enrolled; the speakers of the others are predicted from their nearest "
        "neighbours among these. The encoders of task 2 were trained without speaker labels.",
    ),
    "task5_finetune": (
        "Task 5: fine-tuning",
        "A linear layer on the encoders of task 2 learns the digits, with the encoders frozen or trained further. "
        "Compare with task 1, which trains from scratch.",
    ),
}

"""What is shown of finished tasks: the report of one run, and the means of several."""

TASKS = {  # folder: title
    "task1_supervised": "Task 1: digits from labels alone",
    "task2_contrastive": "Task 2: embeddings without labels, and what linear probes find in them",
    "task3_visualization": "Task 3: what the embeddings look like",
    "task4_biometrics": "Task 4: who is speaking, by embeddings that were learned without speaker labels",
    "task5_finetune": "Task 5: digits by fine-tuning the encoders of task 2, to compare with task 1",
}

"""The five tasks as a user runs them: once, without a network, on 1% of the clips for one epoch."""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

import common.training
from common.corpus import SYNTHETIC_NAME

pytestmark = pytest.mark.slow

FORMATS = ("1d", "2d", "concat")
CONFIGURATIONS = [f"{name}_{mode}" for name in FORMATS for mode in ("frozen", "finetuned")]
PLOTS = {
    f"{model}_{coloring}.png"
    for model in ("supervised_1d", "supervised_2d", "contrastive_1d", "contrastive_2d")
    for coloring in ("digit", "speaker")
}
CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/history.csv")
METRICS = {"metrics.json", "metrics.txt"}


def training(*models: str) -> set[str]:
    """The files that the training of a digit classifier leaves."""
    return {f"{model}_{part}" for model in models for part in (*CHECKPOINTS, "curves.png", "confusion.png")}


FILES = {
    "task1_supervised": METRICS | training("1d", "2d") | {"conditions.png", "learned.png"},
    "task2_contrastive": METRICS | {*CHECKPOINTS, "curves.png", "probes.png"},
    "task3_visualization": PLOTS | {"overview.png", "map.json", "metrics.txt"},
    "task4_biometrics": METRICS | {"speakers.png"} | {f"{name}_confusion.png" for name in FORMATS},
    "task5_finetune": METRICS | training(*CONFIGURATIONS),
}
PICTURES = sorted(f"{folder}/{name}" for folder, files in FILES.items() for name in files if name.endswith(".png"))
CONDITIONS = "white_20db white_10db white_0db babble_20db babble_10db reverb_300ms reverb_600ms telephone"
DIGITS = {"val_loss", "test_loss", "test_ece", "test_ece_calibrated", "temperature"}
CHANNELS = ("", "mismatch_")
SPEAKER_ROWS = [
    *(f"{name}{end}" for name in (*FORMATS, "logmel", "untrained") for end in ("", "_without_digits")),
    *("fusion_without_digits", "supervised"),
]
# The models in the metrics of each task, their accuracies, and their other measures.
MEASURES = {
    "task1_supervised": (["1d", "2d"], f"val test {CONDITIONS}", DIGITS),
    "task2_contrastive": ([*FORMATS, *(f"untrained_{name}" for name in FORMATS), "logmel"], "train val test", {"C"}),
    "task4_biometrics": (
        SPEAKER_ROWS,
        "test text_independent mismatch mismatch_text_independent",
        {"chance", "text_independent_chance", *(f"{c}{p}eer" for c in CHANNELS for p in ("", "text_independent_"))},
    ),
    "task5_finetune": (CONFIGURATIONS, "val test", DIGITS),
}
CLIPS = {"train": 160, "val": 40, "test": 100}
SHORT = ["--ratio", "0.01", "--epochs", "1", "--batch-size", "16", "--num-workers", "0"]  # the batches to be fast
SYNTHETIC = ["--dataset", "synthetic", *SHORT]
# What an earlier job may have left in the environment of a shell.
STALE = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4"}
STALE |= {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "NODE_RANK": "1", "MASTER_PORT": "1"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, run_script, run_here) -> tuple[Path, dict[str, tuple[str, str]]]:
    """The folder of the five runs, and what each of them printed. Task 5 is checked while it runs."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("pipeline")
    result = run_script("task1.py", *SHORT, folder=folder, **STALE)
    assert result.returncode == 0, result.stderr
    printed = {"task1_supervised": (result.stdout, result.stderr)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(common.training, "fit", fit_that_checks(folder / "task2_contrastive/checkpoints/best.ckpt"))
        for task, name in enumerate(FILES, start=1):
            if task > 1:
                with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
                    run_here(f"task{task}.py", *SYNTHETIC)
                printed[name] = out.getvalue(), err.getvalue()
    return folder, printed


def fit_that_checks(pretrained: Path) -> Callable:
    """In place of ``fit``: also sees that each model of task 5 starts from the encoders of task 2 and is alone.

    The check comes after the models before it were trained, so that weights which two models share would show.
    """
    fit, models = common.training.fit, []

    def check(module, data, run, checkpoints, label):
        if run.folder.name.startswith("task5"):
            expected = weights_of(pretrained)
            for key, value in module.network.embedder.state_dict().items():
                assert torch.equal(value, expected[f"embedder.{key}"]), f"{label} does not start from {key} of task 2"
            earlier = {value.data_ptr() for model in models for value in model.parameters()}
            assert not any(value.data_ptr() in earlier for value in module.parameters()), f"{label} shares weights"
            models.append(module)
        return fit(module, data, run, checkpoints, label)

    return check


@pytest.fixture(scope="module")
def folder(pipeline) -> Path:
    return pipeline[0]


@pytest.fixture
def metrics(folder) -> dict[str, dict]:
    return {name: read_metrics(folder / name) for name in MEASURES}


def read_metrics(folder: Path) -> dict[str, dict]:
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, by their names in an ``Embedder`` and a head."""
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items()}


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_each_task_writes_its_files_and_no_others_beside_one_cache_for_all(folder):
    assert {name: files_of(folder / name) for name in FILES} == FILES
    assert {path.name for path in folder.iterdir()} == {*FILES, "data"}
    assert len(list((folder / "data").rglob("*.npy"))) == 1


@pytest.mark.parametrize("name", FILES)
def test_each_task_prints_its_results_with_the_corpus_and_no_warnings(pipeline, name):
    folder, printed = pipeline
    text, (out, errors) = (folder / name / "metrics.txt").read_text(), printed[name]
    assert f"Corpus: {SYNTHETIC_NAME}" in text and "AudioMNIST" not in text
    assert text in out and max(map(len, text.splitlines())) <= 100
    assert not any(sign in errors for sign in ("Warning", "Traceback", "site-packages")), errors
    assert ("SYNTHETIC SPEECH" in errors) == (name == "task1_supervised"), "announced where it was not asked for"
    epochs = [line for line in out.splitlines() if "  epoch " in line]
    assert len(epochs) == sum(file.endswith(".ckpt") for file in FILES[name])
    assert all("epoch 1/1" in line for line in epochs)


@pytest.mark.parametrize("name", MEASURES)
def test_metrics_have_the_keys_of_the_contract_and_the_circumstances_of_the_run(metrics, name):
    models, accuracies, measures = MEASURES[name]
    assert set(metrics[name]) == {"run", *models}
    for model in models:
        result = metrics[name][model]
        for part in accuracies.split():
            accuracy, clips = result.pop(f"{part}_acc"), result.pop(f"{part}_clips")
            assert accuracy * clips == pytest.approx(round(accuracy * clips))
            if part not in ("train", "val"):  # their speakers are trained on, and tell nothing about others
                low, high = result.pop(f"{part}_acc_ci95")
                assert 0 <= low <= accuracy <= high <= 1 and low < high
            prefix = "" if part == "test" else f"{part}_"
            assert result.pop(f"{prefix}worst_speaker_acc") <= accuracy and result.pop(f"{prefix}worst_speaker")
            if "text_independent" not in part:
                assert clips == (50 if name == "task4_biometrics" else CLIPS.get(part, 100))
        differences = [key for key in result if re.fullmatch(r"(mismatch_)?(over|minus)_\w+(?<!_ci95)", key)]
        for comparison in differences:
            low, high = result.pop(f"{comparison}_ci95")
            assert -1 <= low <= result.pop(comparison) <= high <= 1
        for key in [key for key in result if key.endswith("_ci95")]:
            low, high = result.pop(key)
            assert 0 <= low <= result[key.removesuffix("_ci95")] <= high <= 1
        assert set(result) == measures and all(value >= 0 for value in result.values())
    run = metrics[name]["run"]
    assert (run["corpus"], run["clips"], run["seed"], run["speakers"]) == (SYNTHETIC_NAME, CLIPS, 42, 60)
    assert run["train_speakers"] == [f"{i:02d}" for i in range(1, 61) if i % 3], "every third speaker is a test"
    assert run["arguments"]["ratio"] == 0.01 and run["seconds"] > 0 and {"torch", "python"} <= set(run["versions"])
    assert 68_000 <= sum(run["parameters"].values()) <= 70_000 and set(run["parameters"]) == {"1d", "2d"}
    assert (run["task1_checkpoint"] is None) == (name != "task4_biometrics")
    assert (run["task2_checkpoint"] is None) == (name in ("task1_supervised", "task2_contrastive"))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_frozen_encoders_are_bit_identical_and_fine_tuned_ones_are_not(folder, name):
    pretrained = weights_of(folder / "task2_contrastive/checkpoints/best.ckpt")
    tuned = weights_of(folder / f"task5_finetune/{name}_checkpoints/best.ckpt")
    for form in ("1d", "2d") if name.startswith("concat") else (name[:2],):
        keys = [key for key in pretrained if f"encoders.{form}." in key]
        moved = {key for key in keys if not torch.equal(tuned[key], pretrained[key])}
        if name.endswith("frozen"):
            assert keys and not moved
        else:
            assert {key for key in keys if key.endswith(("weight", "running_mean"))} <= moved


def test_every_picture_shows_something_of_its_own(folder):
    contents = set()
    for path in PICTURES:
        contents.add((folder / path).read_bytes())
        image = matplotlib.image.imread(folder / path)
        assert image.shape[0] > 300 and image.shape[1] > 300
        width = image.shape[1] * (2 if "task3" in path else 3) // 3  # legends of scatter plots have colours too
        assert (np.ptp(image[::2, :width:2, :3], axis=2) > 0.2).sum() > 125, f"{path}: nothing in colour is drawn"
    assert len(contents) == len(PICTURES)


def test_the_same_seed_repeats_every_number_and_picture(metrics, folder, run_here, monkeypatch, tmp_path):
    """With a cache of its own, and in another process than task 1 before."""
    monkeypatch.chdir(tmp_path)
    repeated = {1: "task1_supervised", 2: "task2_contrastive"}
    for task, name in repeated.items():
        run_here(f"task{task}.py", *(SYNTHETIC if task > 1 else SHORT))
        again = read_metrics(Path(name))
        for run in (metrics[name]["run"], again["run"]):
            del run["seconds"]
        assert json.dumps(again) == json.dumps(metrics[name])
    for path in PICTURES:
        if path.startswith(tuple(repeated.values())):
            assert Path(path).read_bytes() == (folder / path).read_bytes(), path


def test_encoders_that_were_trained_on_speakers_of_a_fold_are_not_tested_on_it(folder, run_here, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit, match="test speakers were in its training; use its --fold"):
        run_here("task4.py", *SYNTHETIC, "--fold", "1", "--output-dir", str(tmp_path / "refused"))
    assert not (tmp_path / "refused").exists()


# --- processes


def test_two_processes_train_one_model_and_count_every_clip_once(run_script, write_tones, tmp_path):
    corpus = write_tones(tmp_path / "tones", ["01", "02", "03"], digits=[0, 1], repetitions=10)
    flags = ["--data-dir", str(corpus), "--batch-size", "8", "--num-workers", "0", "--epochs", "1"]
    hardware = ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
    result = run_script("task2.py", *flags, *hardware, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Linear probes") == result.stdout.count("epoch 1/1") == 1, "only one process reports"
    assert files_of(tmp_path / "task2_contrastive") == FILES["task2_contrastive"]
    assert read_metrics(tmp_path / "task2_contrastive")["concat"]["test_clips"] == 20


def test_what_trains_nothing_imports_no_lightning(repository):
    """It takes longer to import than these take for their work."""
    code = "import sys, task3, task4, common.voice, common.report.__main__; print('pytorch_lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr

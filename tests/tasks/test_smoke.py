"""The five tasks as a user runs them: once, without a network, on 1% of the clips for one epoch."""

import base64
import json
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from common.corpus import SYNTHETIC_NAME

pytestmark = pytest.mark.slow

FORMATS = ("1d", "2d", "concat")
CONFIGURATIONS = [f"{name}_{mode}" for name in FORMATS for mode in ("frozen", "finetuned")]
PLOTS = [
    f"{model}_{coloring}.png"
    for model in ("supervised_1d", "supervised_2d", "contrastive_1d", "contrastive_2d")
    for coloring in ("digit", "speaker")
]
CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/history.csv")
METRICS = {"metrics.json", "metrics.txt"}


def training(*models: str) -> set[str]:
    """The files that the training of a digit classifier leaves."""
    return {f"{model}_{part}" for model in models for part in (*CHECKPOINTS, "curves.png", "confusion.png")}


FILES = {
    "task1_supervised": METRICS | training("1d", "2d") | {"conditions.png", "learned.png"},
    "task2_contrastive": METRICS | {*CHECKPOINTS, "curves.png", "probes.png"},
    "task3_visualization": {*PLOTS, "overview.png", "map.json", "metrics.txt"},
    "task4_biometrics": METRICS | {"det.png", "speakers.png"} | {f"{name}_confusion.png" for name in FORMATS},
    "task5_finetune": METRICS | training(*CONFIGURATIONS),
}
FOLDERS = list(FILES)
PICTURES = sorted(f"{folder}/{name}" for folder, files in FILES.items() for name in files if name.endswith(".png"))
CALIBRATION = ("test_ece", "test_ece_calibrated", "temperature")
CONDITIONS = "white_20db white_10db white_0db babble_20db babble_10db reverb_300ms reverb_600ms telephone"
EQUAL_ERROR_RATES = ("eer", "same_digit_eer", "other_digits_eer", "eer_3_clips", "eer_5_clips")
# The models in the metrics of each task, their accuracies, and their other measures.
MEASURES = {
    "task1_supervised": (["1d", "2d"], f"val test {CONDITIONS}", {"val_loss", "test_loss", *CALIBRATION}),
    "task2_contrastive": ([*FORMATS, *(f"untrained_{name}" for name in FORMATS), "logmel"], "train val test", {"C"}),
    "task4_biometrics": (
        [*FORMATS, "fusion", "untrained", "logmel", "supervised"],
        "test text_independent mismatch mismatch_text_independent",
        {"k", "text_independent_chance", *EQUAL_ERROR_RATES, *(f"mismatch_{key}" for key in EQUAL_ERROR_RATES)},
    ),
    "task5_finetune": (CONFIGURATIONS, "val test", {"val_loss", "test_loss", *CALIBRATION}),
}
CLIPS = {"train": 160, "val": 40, "test": 100}
SHORT = ["--ratio", "0.01", "--epochs", "1", "--num-workers", "0"]
SYNTHETIC = ["--dataset", "synthetic", *SHORT]


def at_once(run: Callable[..., object], *arguments: object) -> list:
    """Call a function that starts a process with each of the arguments, at the same time.

    Most of a short run is the import of PyTorch and Lightning, which needs one core.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, arguments))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, run_script) -> tuple[Path, dict[str, subprocess.CompletedProcess]]:
    """The folder of the five runs, and what each of them printed."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("pipeline")

    def run(task: int) -> subprocess.CompletedProcess:
        return run_script(f"task{task}.py", *(SYNTHETIC if task > 1 else SHORT), folder=folder)

    results = [*at_once(run, 1, 2), *at_once(run, 3, 4, 5)]
    for result in results:
        assert result.returncode == 0, result.stderr
    return folder, dict(zip(FOLDERS, results, strict=True))


@pytest.fixture(scope="module")
def folder(pipeline) -> Path:
    return pipeline[0]


@pytest.fixture
def metrics(folder) -> dict[str, dict]:
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return {name: json.loads((folder / name / "metrics.json").read_text(), parse_constant=refuse) for name in MEASURES}


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


def test_each_task_writes_its_files_and_no_others_beside_one_cache_for_all(folder):
    for name, files in FILES.items():
        assert {path.relative_to(folder / name).as_posix() for path in (folder / name).rglob("*.*")} == files
    assert {path.name for path in folder.iterdir()} == {*FOLDERS, "data"}
    assert len(list((folder / "data").rglob("*.*"))) == 1


@pytest.mark.parametrize("name", FOLDERS)
def test_each_task_prints_its_results_with_the_corpus_and_no_warnings(pipeline, name):
    folder, results = pipeline
    text, result = (folder / name / "metrics.txt").read_text(), results[name]
    assert f"Corpus: {SYNTHETIC_NAME}" in text and "AudioMNIST" not in text
    assert text in result.stdout
    assert not any(sign in result.stderr for sign in ("Warning", "Traceback", "site-packages")), result.stderr
    epochs = [line for line in result.stdout.splitlines() if "  epoch " in line]
    assert len(epochs) == sum(file.endswith(".ckpt") for file in FILES[name])
    assert all("epoch 1/1" in line for line in epochs)


@pytest.mark.parametrize("name", MEASURES)
def test_metrics_have_the_keys_of_the_contract(metrics, name):
    models, accuracies, measures = MEASURES[name]
    assert set(metrics[name]) == {"run", *models}
    for model in models:
        result = metrics[name][model]
        for part in accuracies.split():
            low, high = result.pop(f"{part}_acc_ci95")
            accuracy, clips = result.pop(f"{part}_acc"), result.pop(f"{part}_clips")
            assert 0 <= low <= accuracy <= high <= 1
            prefix = "" if part == "test" else f"{part}_"
            assert result.pop(f"{prefix}worst_speaker_acc") <= accuracy and result.pop(f"{prefix}worst_speaker")
            assert accuracy * clips == pytest.approx(round(accuracy * clips))
            if "text_independent" not in part:
                assert clips == (50 if name == "task4_biometrics" else CLIPS.get(part, 100))
        for comparison in [key for key in result if re.fullmatch(r"(mismatch_)?over_[a-z0-9]+", key)]:
            low, high = result.pop(f"{comparison}_ci95")
            assert -1 <= low <= result.pop(comparison) <= high <= 1
        for key in [key for key in result if key.endswith("_ci95")]:
            low, high = result.pop(key)
            assert 0 <= low <= result[key.removesuffix("_ci95")] <= high <= 1
        assert set(result) == measures and all(value is None or value >= 0 for value in result.values())


@pytest.mark.parametrize("name", MEASURES)
def test_metrics_record_the_circumstances_of_the_run(metrics, name):
    run = metrics[name]["run"]
    assert run["corpus"] == SYNTHETIC_NAME and run["corpus_commit"] is None
    assert run["clips"] == CLIPS and run["seed"] == 42
    assert run["speakers"] == 60 and run["train_speakers"] == [f"{i:02d}" for i in range(1, 61) if i % 3]
    assert run["arguments"]["ratio"] == 0.01 and run["arguments"]["epochs"] == 1
    assert 68_000 <= sum(run["parameters"].values()) <= 70_000 and set(run["parameters"]) == {"1d", "2d"}
    assert run["seconds"] > 0 and {"torch", "pytorch-lightning", "python"} <= set(run["versions"])
    assert (run["task1_checkpoint"] is None) == (name != "task4_biometrics")
    assert (run["task2_checkpoint"] is None) == (name in ("task1_supervised", "task2_contrastive"))


def test_checkpoints_are_plain_data_and_each_classifier_has_a_head_of_its_own(folder):
    heads = set()
    for path in folder.rglob("*.ckpt"):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        assert checkpoint["run"]["corpus"] == SYNTHETIC_NAME and "hyper_parameters" in checkpoint
        assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())
        if checkpoint["class"] == "DigitClassifier":
            heads.add(checkpoint["state_dict"]["head.1.weight"].numpy().tobytes())
    assert len(heads) == 2 + len(CONFIGURATIONS)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_frozen_encoders_are_bit_identical_and_fine_tuned_ones_are_not(folder, name):
    pretrained = state_of(folder / "task2_contrastive/checkpoints/best.ckpt")
    tuned = state_of(folder / f"task5_finetune/{name}_checkpoints/best.ckpt")
    for form in ("1d", "2d") if name.startswith("concat") else (name[:2],):
        keys = [key for key in tuned if f"encoders.{form}." in key]
        assert keys == [key for key in pretrained if f"encoders.{form}." in key] and keys
        moved = {key for key in keys if not torch.equal(tuned[key], pretrained[key])}
        statistics = {key for key in keys if "running_mean" in key}
        assert statistics
        if name.endswith("frozen"):
            assert not moved
        else:
            assert statistics <= moved and any(key.endswith("weight") for key in moved)


def test_every_picture_shows_something_of_its_own(folder):
    contents = set()
    for path in PICTURES:
        contents.add((folder / path).read_bytes())
        image = matplotlib.image.imread(folder / path)
        assert image.shape[0] > 300 and image.shape[1] > 300
        width = image.shape[1] * (2 if "task3" in path else 3) // 3  # legends of scatter plots have colours too
        assert (np.ptp(image[::2, :width:2, :3], axis=2) > 0.2).sum() > 125, f"{path}: nothing in colour is drawn"
    assert len(contents) == len(PICTURES)


def test_the_report_holds_all_pictures_and_sounds(folder, run_here, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    run_here("common/report/__main__.py")
    printed, page = capsys.readouterr(), Path("report.html").read_text(encoding="utf-8")
    Path("report.html").unlink()
    assert "report.html" in printed.out and printed.err == ""
    for path in PICTURES:
        if path.startswith("task3") and not path.endswith("overview.png"):
            continue  # it is part of the overview and of the map
        assert base64.b64encode((folder / path).read_bytes()).decode() in page, path
    clips = json.loads(re.search(r'<script type="application/json" id="clips">(.*?)</script>', page)[1])["clips"]
    assert len(clips) == 100 and SYNTHETIC_NAME in page and "What was found" in page
    assert not re.search(r"\b(src|href)=.?https?:", page) and "No results" not in page and len(page) < 8_000_000


# --- in two processes, and in this one


def test_two_processes_train_one_model_and_count_every_clip_once(run_script, write_tones, tmp_path):
    corpus = write_tones(tmp_path / "tones", ["01", "02", "03"], digits=[0, 1], repetitions=10)
    flags = ["--data-dir", str(corpus), "--batch-size", "8", "--num-workers", "0", "--epochs", "1"]
    hardware = ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
    result = run_script("task2.py", *flags, *hardware, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Linear probes") == result.stdout.count("epoch 1/1") == 1, "only one process reports"
    folder = tmp_path / "task2_contrastive"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == FILES["task2_contrastive"]
    assert json.loads((folder / "metrics.json").read_text())["concat"]["test_clips"] == 20


def test_the_same_seed_repeats_every_number_and_picture(metrics, folder, run_here, monkeypatch, tmp_path):
    """Run in this process, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    for task in range(1, 6):
        run_here(f"task{task}.py", *(SYNTHETIC if task > 1 else SHORT))
    for name, first in metrics.items():
        again = json.loads(Path(name, "metrics.json").read_text())
        for run in (first["run"], again["run"]):
            del run["seconds"]
        assert json.dumps(again) == json.dumps(first)
    for path in PICTURES:
        assert Path(path).read_bytes() == (folder / path).read_bytes(), path


def test_a_fold_tests_on_the_speakers_of_the_published_fold(folder, run_here, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    run_here("task1.py", *SYNTHETIC, "--fold", "1", "--output-dir", str(tmp_path / "fold"))
    run = json.loads((tmp_path / "fold/metrics.json").read_text())["run"]
    tested = {f"{number:02d}" for number in range(1, 61)} - set(run["train_speakers"])
    assert tested == {"05", "13", "18", "22", "26", "32", "33", "42", "45", "51", "52", "60"}  # arXiv:1807.03418
    assert run["clips"] == {"train": 180, "val": 60, "test": 60} and run["arguments"]["fold"] == 1
    with pytest.raises(SystemExit, match="test speakers were in its training; use its --fold"):
        run_here("task4.py", *SYNTHETIC, "--fold", "1", "--output-dir", str(tmp_path / "refused"))


def test_mixed_precision_gives_nearly_the_same_training_loss(run_here, write_tones, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tones(tmp_path / "tones", ["01", "02", "03"], digits=[0, 1], repetitions=4)
    flags = ["--data-dir", "tones", "--batch-size", "8", "--num-workers", "0", "--epochs", "1", "--accelerator", "cpu"]
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        run_here("task2.py", *flags, "--precision", precision, "--output-dir", precision)
        assert json.loads(Path(precision, "metrics.json").read_text())["run"]["arguments"]["precision"] == precision
        losses[precision] = np.loadtxt(Path(precision, "checkpoints/history.csv"), delimiter=",", skiprows=1)[1]
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], rel=0.2)
    assert losses["bf16-mixed"] != losses["32-true"]

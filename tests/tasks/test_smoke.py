"""The five tasks as a user runs them, once, in one folder, at a hundredth of the clips and one epoch."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from common.corpus.clips import SYNTHETIC_NAME

PLOTS = [
    f"{model}_{coloring}.png"
    for model in ("supervised_1d", "supervised_2d", "contrastive_1d", "contrastive_2d")
    for coloring in ("digit", "speaker")
]
CONFIGURATIONS = [f"{name}_{mode}" for name in ("1d", "2d", "concat") for mode in ("frozen", "finetuned")]
EMBEDDINGS = ("1d", "2d", "concat")


def training(*models: str) -> set[str]:
    """What each training of a digit classifier leaves."""
    return {f"{model}_{part}" for model in models for part in TRAINING}


TRAINING = ("checkpoints/best.ckpt", "checkpoints/history.csv", "curves.png", "confusion.png")
METRICS = {"metrics.json", "metrics.txt"}
FILES = {
    "task1_supervised": METRICS | training("1d", "2d") | {"examples.json"},
    "task2_contrastive": METRICS | {"checkpoints/best.ckpt", "checkpoints/history.csv", "curves.png", "probes.png"},
    "task3_visualization": {*PLOTS, "overview.png", "metrics.txt"},
    "task4_biometrics": METRICS | {"det.png"} | {f"{name}_confusion.png" for name in EMBEDDINGS},
    "task5_finetune": METRICS | training(*CONFIGURATIONS),
}
PICTURES = sorted(
    f"{directory}/{name}" for directory, files in FILES.items() for name in files if name.endswith(".png")
)
DIRECTORIES = list(FILES)
ACCURACIES = {
    "task1_supervised": {"1d": ("val", "test"), "2d": ("val", "test")},
    "task2_contrastive": dict.fromkeys(("1d", "2d", "concat"), ("train", "val", "test")),
    "task4_biometrics": dict.fromkeys(("1d", "2d", "concat"), ("test",)),
    "task5_finetune": dict.fromkeys(CONFIGURATIONS, ("val", "test")),
}
CLIPS = {"train": 160, "val": 40, "test": 100}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, run_script) -> dict:
    """The folder of the five runs, and what each of them printed."""
    pytest.importorskip("espeakng_loader")
    folder, runs = tmp_path_factory.mktemp("pipeline"), {}
    for task, directory in enumerate(DIRECTORIES, start=1):
        flags = ["--ratio", "0.01", "--epochs", "1", "--num-workers", "0"]
        flags += [] if task == 1 else ["--dataset", "synthetic"]
        runs[directory] = run_script(f"task{task}.py", *flags, folder=folder)
        assert runs[directory].returncode == 0, f"task {task}:\n{runs[directory].stderr}"
    return {"folder": folder, "runs": runs}


@pytest.fixture(scope="module")
def folder(pipeline) -> Path:
    return pipeline["folder"]


@pytest.fixture
def metrics(folder) -> dict[str, dict]:
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return {
        directory: json.loads((folder / directory / "metrics.json").read_text(), parse_constant=refuse)
        for directory in ACCURACIES
    }


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_each_task_writes_its_files_and_no_others(folder, directory):
    written = {path.relative_to(folder / directory).as_posix() for path in (folder / directory).rglob("*.*")}
    assert written == FILES[directory]


def test_nothing_else_is_written(folder):
    assert {path.name for path in folder.iterdir()} == {*DIRECTORIES, "data"}
    assert [path.name for path in (folder / "data").iterdir()] == ["cache"]
    assert len(list((folder / "data/cache").iterdir())) == 1, "one cache serves all tasks"


def test_without_a_network_the_fallback_cannot_be_missed(pipeline):
    told = pipeline["runs"]["task1_supervised"].stderr
    assert "AudioMNIST could not be had" in told and "SYNTHETIC SPEECH" in told and "--data-dir" in told
    assert "could not be had" not in pipeline["runs"]["task2_contrastive"].stderr, "it was asked for there"


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_no_run_prints_a_warning_or_a_traceback(pipeline, directory):
    told = pipeline["runs"][directory].stderr
    assert "Warning" not in told and "Traceback" not in told and "site-packages" not in told, told


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_results_name_the_corpus(pipeline, folder, directory):
    text = (folder / directory / "metrics.txt").read_text()
    assert f"Corpus: {SYNTHETIC_NAME}" in text and "AudioMNIST" not in text
    assert text in pipeline["runs"][directory].stdout


@pytest.mark.parametrize("directory", ACCURACIES)
def test_metrics_have_the_keys_of_the_contract(metrics, directory):
    for model, sets in ACCURACIES[directory].items():
        result = metrics[directory][model]
        for name in sets:
            low, high = result[f"{name}_acc_ci95"]
            accuracy, clips = result[f"{name}_acc"], result[f"{name}_clips"]
            assert 0 <= low <= accuracy <= high <= 1
            assert clips == (50 if directory == "task4_biometrics" else CLIPS[name])
            assert accuracy * clips == pytest.approx(round(accuracy * clips))
    extra = set(metrics[directory]) - set(ACCURACIES[directory])
    assert extra == ({"run", "untrained_1d", "untrained_2d", "untrained_concat"} if "task2" in directory else {"run"})


def test_metrics_have_what_else_each_task_measures(metrics):
    for model in ("1d", "2d"):
        for snr_db in (20, 10, 0):
            assert 0 <= metrics["task1_supervised"][model][f"noise_{snr_db}db_acc"] <= 1
    for directory in ("task1_supervised", "task5_finetune"):
        assert all(metrics[directory][model]["test_loss"] > 0 for model in ACCURACIES[directory])
    for name in ("1d", "2d", "concat"):
        assert metrics["task4_biometrics"][name]["test_k"] >= 1
        assert 0 <= metrics["task4_biometrics"][name]["eer"] <= 1
        assert 0 <= metrics["task4_biometrics"][name]["text_independent_acc"] <= 1


@pytest.mark.parametrize("directory", ACCURACIES)
def test_metrics_tell_how_they_came_about(metrics, directory):
    run = metrics[directory]["run"]
    assert run["corpus"] == SYNTHETIC_NAME and run["clips"] == CLIPS and run["seed"] == 42
    assert run["speakers"] == 60 and len(run["train_speakers"]) == 40 and "41" not in run["train_speakers"]
    assert run["arguments"]["ratio"] == 0.01 and run["arguments"]["epochs"] == 1
    assert 68_000 <= sum(run["parameters"].values()) <= 70_000 and set(run["parameters"]) == {"1d", "2d"}
    assert run["seconds"] > 0 and {"torch", "pytorch-lightning", "python"} <= set(run["versions"])


@pytest.mark.parametrize("directory", ["task1_supervised", "task2_contrastive", "task5_finetune"])
def test_one_epoch_was_asked_for_and_trained(pipeline, directory):
    lines = [line for line in pipeline["runs"][directory].stdout.splitlines() if "epoch " in line]
    checkpoints = sum(name.endswith(".ckpt") for name in FILES[directory])
    assert len(lines) == checkpoints and all("epoch 1/1" in line for line in lines)


def test_checkpoints_are_plain_data(folder):
    paths = sorted(folder.rglob("*.ckpt"))
    assert len(paths) == 9
    for path in paths:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        assert {"state_dict", "hyper_parameters", "model", "run"} <= set(checkpoint)
        assert checkpoint["run"]["corpus"] == SYNTHETIC_NAME
        assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_frozen_encoders_are_bit_identical_and_fine_tuned_ones_are_not(folder, name):
    pretrained = state_of(folder / "task2_contrastive/checkpoints/best.ckpt")
    tuned = state_of(folder / f"task5_finetune/{name}_checkpoints/best.ckpt")
    formats = ("1d", "2d") if name.startswith("concat") else (name.split("_")[0],)
    for form in formats:
        keys = [key for key in tuned if f"encoders.{form}." in key]
        assert keys == [key for key in pretrained if f"encoders.{form}." in key] and keys
        moved = {key for key in keys if not torch.equal(tuned[key], pretrained[key])}
        statistics = {key for key in keys if "running_mean" in key}
        assert statistics
        if name.endswith("frozen"):
            assert not moved
        else:
            assert statistics <= moved and any(key.endswith("weight") for key in moved)


def test_the_six_heads_are_six(folder):
    heads = [state_of(folder / f"task5_finetune/{name}_checkpoints/best.ckpt") for name in CONFIGURATIONS]
    trained = [[value for key, value in state.items() if key.startswith("head.")] for state in heads]
    assert all(trained)
    assert len({b"".join(value.numpy().tobytes() for value in head) for head in trained}) == 6


@pytest.mark.parametrize("path", PICTURES)
def test_pictures_show_something(folder, path):
    image = matplotlib.image.imread(folder / path)
    assert image.shape[0] > 300 and image.shape[1] > 300
    width = image.shape[1] * (2 if "task3" in path else 3) // 3  # the legends of scatter plots are colourful too
    drawing = image[:, :width, :3]
    assert (np.ptp(drawing, axis=2) > 0.2).sum() > 500, "nothing colourful is drawn"


def test_no_two_pictures_are_the_same(folder):
    assert len({(folder / path).read_bytes() for path in PICTURES}) == len(PICTURES)


def test_the_list_of_plots_is_whole(folder):
    text = (folder / "task3_visualization/metrics.txt").read_text()
    assert [line.strip() for line in text.splitlines() if line.strip().endswith(".png")] == [*PLOTS, "overview.png"]


def test_the_report_shows_it_all(folder, repository, tmp_path):
    """In a copy, so that what the tasks write stays what they wrote."""
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("data", "*.ckpt"))
    command = [sys.executable, "-m", "common.report"]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    told = subprocess.run(command, cwd=tmp_path / "copy", env=environment, capture_output=True, text=True, check=True)
    assert told.stderr == "" and "report.html" in told.stdout
    page = (tmp_path / "copy/report.html").read_text(encoding="utf-8")
    for path in PICTURES:
        assert base64.b64encode((folder / path).read_bytes()).decode() in page, path
    assert "://" not in page and "No results" not in page and "is not there" not in page
    assert page.count("<audio ") == 8 and SYNTHETIC_NAME in page


# --- mistakes


def test_a_missing_checkpoint_is_one_line_and_costs_no_earlier_results(folder, run_script):
    before = {path: path.read_bytes() for path in (folder / "task4_biometrics").iterdir()}
    flags = ["--dataset", "synthetic", "--ratio", "0.01", "--num-workers", "0", "--task2-checkpoint", "missing.ckpt"]
    answer = run_script("task4.py", *flags, folder=folder)
    assert answer.returncode == 1 and answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith("task4.py: error: --task2-checkpoint") and "missing.ckpt" in answer.stderr
    assert {path: path.read_bytes() for path in (folder / "task4_biometrics").iterdir()} == before


@pytest.mark.parametrize(
    "task, flag", [(3, "--task2-checkpoint"), (3, "--task1-checkpoint"), (5, "--task2-checkpoint")]
)
def test_tasks_3_and_5_refuse_a_missing_checkpoint_alike(folder, run_here, monkeypatch, task, flag):
    monkeypatch.chdir(folder)
    directory = folder / DIRECTORIES[task - 1]
    before = {path: path.read_bytes() for path in directory.rglob("*.*")}
    flags = ["--dataset", "synthetic", "--ratio", "0.01", "--num-workers", "0"]
    with pytest.raises(SystemExit) as caught:
        run_here(f"task{task}.py", *flags, flag, "missing")
    assert str(caught.value).startswith(f"task{task}.py: error: {flag}") and "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in directory.rglob("*.*")} == before


@pytest.mark.parametrize("task", range(1, 6))
def test_a_wrong_flag_is_exit_code_2_and_leaves_the_results(folder, run_here, monkeypatch, capsys, task):
    monkeypatch.chdir(folder)
    for flag, value in (("--ratio", "2"), ("--strategy", "nonsense")):
        with pytest.raises(SystemExit) as caught:
            run_here(f"task{task}.py", flag, value)
        assert caught.value.code == 2
        assert capsys.readouterr().err.startswith(f"task{task}.py: error: argument {flag}")
    assert (folder / DIRECTORIES[task - 1] / "metrics.txt").is_file()


# --- run_all.sh


@pytest.fixture
def shell(tmp_path, offline) -> dict[str, str]:
    """An environment in which `python` is this one and counts as active."""
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (commands / "python").chmod(0o755)
    return offline | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(commands)}


def run_all(script: Path, *flags: str, folder: Path, environment: dict) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(script), *flags], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    "flags",
    [
        *([], ["0.01"], ["--ratio", "0.01"], ["0.01", "--epochs"], ["1.0", "1", "--output-dir", "x"]),
        *(["1.0", "1", "--label-ratio=0.5"], ["1.0", "1", "--task2-checkpoint", "x"]),
    ],
)
def test_run_all_without_ratio_and_epochs_is_exit_code_2(repository, tmp_path, shell, flags):
    answer = run_all(repository / "run_all.sh", *flags, folder=tmp_path, environment=shell)
    assert answer.returncode == 2 and answer.stdout == "" and answer.stderr.count("\n") == 1


def test_run_all_leaves_a_wrong_argument_to_the_first_task(repository, tmp_path, shell):
    flags = ["1", "1", "--strategy", "nonsense"]
    answer = run_all(repository / "run_all.sh", *flags, folder=tmp_path, environment=shell)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1 and "--strategy" in answer.stderr


def test_run_all_stops_at_the_first_failing_task(repository, tmp_path, shell):
    (tmp_path / "work").mkdir()
    flags = ["0.01", "1", "--data-dir", "missing"]
    answer = run_all(repository / "run_all.sh", *flags, folder=tmp_path / "work", environment=shell)
    assert answer.returncode == 1 and "task2.py" not in answer.stdout + answer.stderr
    first, last = answer.stderr.splitlines()
    assert first.startswith("task1.py: error: --data-dir missing") and "task1.py failed with exit code 1" in last
    assert list((tmp_path / "work").iterdir()) == []


@pytest.fixture
def stand_ins(repository, tmp_path) -> Path:
    """A copy of run_all.sh beside five scripts that note their arguments; task 4 fails if a file tells it to."""
    project = tmp_path / "project"
    (project / "common/report").mkdir(parents=True)
    shutil.copy(repository / "run_all.sh", project)
    (project / "common/report/__main__.py").write_text("import sys; print('report of', len(sys.argv) - 1, 'tasks')\n")
    for task in range(1, 6):
        (project / f"task{task}.py").write_text(
            "import pathlib, sys\n"
            f"with open('log', 'a') as log: print({task}, *sys.argv[1:], file=log)\n"
            f"if {task} == 1:\n"
            "    pathlib.Path('task1_supervised').mkdir()\n"
            "    metrics = pathlib.Path(__file__).with_name('metrics.json').read_text()\n"
            "    pathlib.Path('task1_supervised/metrics.json').write_text(metrics)\n"
            f"sys.exit(7 if {task} == 4 and pathlib.Path('fail').exists() else 0)\n"
        )
    (project / "metrics.json").write_text('{"run": {\n  "corpus": "AudioMNIST"\n}}')
    (tmp_path / "work").mkdir()
    return project


def test_run_all_runs_the_five_tasks_in_order_with_all_flags(stand_ins, tmp_path, shell):
    work = tmp_path / "work"
    answer = run_all(stand_ins / "run_all.sh", "0.5", "3", "--seed", "7", folder=work, environment=shell)
    assert answer.returncode == 0, answer.stderr
    lines = (work / "log").read_text().splitlines()
    assert lines == [f"{task} --ratio 0.5 --epochs 3 --seed 7" for task in range(1, 6)]
    assert answer.stdout.endswith("report of 5 tasks\n")


def test_run_all_ends_with_the_code_of_the_failing_task(stand_ins, tmp_path, shell):
    work = tmp_path / "work"
    (work / "fail").touch()
    (work / "report.html").touch()  # of an earlier run
    answer = run_all(stand_ins / "run_all.sh", "0.5", "3", folder=work, environment=shell)
    assert answer.returncode == 7 and "task4.py failed" in answer.stderr and "report" not in answer.stdout
    assert not (work / "report.html").exists()
    assert [line[0] for line in (work / "log").read_text().splitlines()] == ["1", "2", "3", "4"]


def test_run_all_keeps_to_the_corpus_that_the_first_task_found(stand_ins, tmp_path, shell):
    (stand_ins / "metrics.json").write_text(json.dumps({"run": {"corpus": SYNTHETIC_NAME}}, indent=2))
    work = tmp_path / "work"
    assert run_all(stand_ins / "run_all.sh", "0.5", "3", folder=work, environment=shell).returncode == 0
    lines = (work / "log").read_text().splitlines()
    assert "--dataset" not in lines[0] and all(line.endswith("--dataset synthetic") for line in lines[1:])


def test_two_processes_train_one_model_and_count_every_clip_once(run_script, tmp_path):
    pytest.importorskip("espeakng_loader")
    flags = ["--ratio", "0.01", "--epochs", "1", "--num-workers", "0", "--dataset", "synthetic"]
    devices = ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
    result = run_script("task2.py", *flags, *devices, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Linear probes") == 1, "only one process reports"
    folder = tmp_path / "task2_contrastive"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == FILES["task2_contrastive"]
    assert json.loads((folder / "metrics.json").read_text())["concat"]["test_clips"] == CLIPS["test"]


def test_a_process_that_dies_ends_the_others_in_one_line(run_script, write_tones, tmp_path):
    corpus = write_tones(tmp_path / "tones", ["01", "02", "03"], digits=[0, 1], repetitions=10)
    (tmp_path / "sitecustomize.py").write_text(  # which every Python process that is started here imports
        "import os, pathlib, threading, time\n"
        "def die():\n"
        "    while not pathlib.Path('task2_contrastive/checkpoints/last.ckpt').exists():\n"
        "        time.sleep(0.01)\n"
        "    os._exit(3)\n"
        "if os.environ.get('LOCAL_RANK') == '1':\n"
        "    threading.Thread(target=die, daemon=True).start()\n"
    )
    flags = ["--data-dir", str(corpus), "--epochs", "10000", "--batch-size", "8", "--num-workers", "0"]
    devices = ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
    result = run_script("task2.py", *flags, *devices, folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr and result.stderr.count("error:") == 1, result.stderr
    assert "error: contrastive: one of 2 processes failed, which ended all" in result.stderr
    assert not (tmp_path / "task2_contrastive/metrics.json").exists()

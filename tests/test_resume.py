"""Runs that are stopped, killed, started twice or resumed: they end as an undisturbed run does."""

import contextlib
import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.data import SpokenDigits
from common.modules import ContrastiveModel, DigitClassifier
from common.run.console import UserError
from common.run.output import describe_run, start_output, write_metrics
from common.training import fit

EPOCHS = 3


class Killed(BaseException):
    """Stands for the end of the process: nothing may be done about it."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, write_tones) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    return write_tones(folder / "tones", ["01", "02", "03"], digits=[0, 1], repetitions=10)


@pytest.fixture
def train(corpus, tmp_path, monkeypatch, make_args) -> Callable[..., dict[str, torch.Tensor]]:
    """A function that trains in a folder below tmp_path and returns the weights; it may be killed in an epoch."""
    monkeypatch.chdir(tmp_path)

    def run(folder: str, make=lambda: DigitClassifier(("2d",), lr=1e-2), kill_in_epoch=None, **flags) -> dict:
        args = make_args(**{"data_dir": corpus, "epochs": EPOCHS, "output_dir": Path(folder)} | flags)
        data = SpokenDigits(args)
        torch.manual_seed(args.seed)
        module = make()
        run_info = describe_run(args, data, {})
        start_output(args.output_dir, run_info, args.resume)
        if kill_in_epoch is not None:
            step = module.training_step

            def dying_step(*inputs):  # batch and its number
                if module.current_epoch == kill_in_epoch and inputs[1] == 1:
                    raise Killed
                return step(*inputs)

            module.training_step = dying_step
        history = fit(module, data, args, args.output_dir / "model", "model", run_info)
        assert [epoch["train_loss"] for epoch in history] == [float(row["train_loss"]) for row in measured(folder)]
        return module.state_dict()

    return run


def measured(folder: str) -> list[dict[str, str]]:
    """The lines of history.csv, without the times."""
    with Path(folder, "model", "history.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize("make", [lambda: DigitClassifier(("1d", "2d"), lr=1e-2), lambda: ContrastiveModel(1e-2)])
def test_a_resumed_training_ends_with_the_same_weights(train, make, capsys):
    undisturbed = train("whole", make)
    for epoch in (1, 2):
        with pytest.raises(Killed):
            train("stopped", make, kill_in_epoch=epoch, resume=epoch > 1)
        torch.rand(epoch)  # whatever the new process drew before
    capsys.readouterr()
    assert_same(undisturbed, train("stopped", make, resume=True))
    told = capsys.readouterr().out
    assert measured("whole") == measured("stopped") and len(measured("whole")) == EPOCHS
    assert "resumed after epoch 2" in told and told.count("epoch 3/3") == 1 and "epoch 2/3" not in told


def test_a_training_that_had_ended_is_not_repeated(train, capsys):
    first = train("model")
    capsys.readouterr()
    assert_same(first, train("model", resume=True))
    told = capsys.readouterr().out
    assert "trained already" in told and "epoch 1/3" not in told


def test_without_resume_a_training_starts_anew(train, capsys):
    with pytest.raises(Killed):
        train("model", kill_in_epoch=1)
    capsys.readouterr()
    assert_same(train("other"), train("model"))
    assert capsys.readouterr().out.count("epoch 1/3") == 2


def test_a_training_that_early_stopping_ended_is_not_continued(train, monkeypatch, capsys):
    monkeypatch.setattr("common.training.PATIENCE", 1)
    same = {"train_loss": 1.0, "val_loss": torch.tensor(1.0)}
    monkeypatch.setattr(DigitClassifier, "on_validation_epoch_end", lambda self: self.log_dict(same))
    flags = {"make": lambda: DigitClassifier(("2d",), lr=1e-2)}
    monkeypatch.setattr(sys.modules[__name__], "EPOCHS", 9)
    train("model", **flags)
    epochs = capsys.readouterr().out.count("epoch ")
    assert 1 < epochs < 9
    train("model", resume=True, **flags)
    assert "trained already" in capsys.readouterr().out


def test_resume_with_nothing_to_resume_says_so_and_starts(train, capsys):
    train("model", resume=True)
    told = capsys.readouterr().out
    assert "nothing to resume in model" in told and "epoch 1/3" in told


@pytest.mark.parametrize("flags", [{"lr": 0.5}, {"batch_size": 4}, {"seed": 7}])
def test_resuming_with_other_arguments_is_refused_and_says_which(train, flags):
    with pytest.raises(Killed):
        train("model", kill_in_epoch=1)
    before = (Path("model/model/last.ckpt")).read_bytes()
    with pytest.raises(UserError, match="--resume") as caught:
        train("model", resume=True, **flags)
    (flag, value), told = next(iter(flags.items())), str(caught.value)
    assert f"--{flag.replace('_', '-')}" in told and f"now {value}" in told and "\n" not in told
    assert Path("model/model/last.ckpt").read_bytes() == before


def test_resuming_on_another_corpus_is_refused(train, corpus, tmp_path):
    with pytest.raises(Killed):
        train("model", kill_in_epoch=1)
    copy = shutil.copytree(corpus, tmp_path / "elsewhere" / corpus.name)
    (copy / "01/0_01_0.wav").write_bytes((copy / "01/0_01_1.wav").read_bytes())
    state = torch.load("model/model/last.ckpt", weights_only=True)
    state["run"]["arguments"]["data_dir"] = str(copy)  # so that the files alone differ
    torch.save(state, "model/model/last.ckpt")
    with pytest.raises(UserError, match="another corpus"):
        train("model", resume=True, data_dir=copy)


@pytest.mark.parametrize("content", [None, {}, {"run": "of another", "callbacks": {"History": {"epochs": []}}}])
def test_a_broken_last_checkpoint_is_one_line(train, content):
    with pytest.raises(Killed):
        train("model", kill_in_epoch=1)
    torch.save({"finished": False, "epoch": 1} | (content or {}), "model/model/last.ckpt")
    if content is None:
        Path("model/model/last.ckpt").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"--resume: .*last\.ckpt cannot be read"):
        train("model", resume=True)


@pytest.mark.parametrize("part", ["state_dict", "optimizer_states", "lr_schedulers", "loops"])
@pytest.mark.parametrize("content", ["absent", {"fit_loop": 1}, [{"a": torch.ones(2)}]])
def test_a_last_checkpoint_that_was_tampered_with_is_one_line_and_stays(train, part, content):
    with pytest.raises(Killed):
        train("model", kill_in_epoch=1)
    last = Path("model/model/last.ckpt")
    state = torch.load(last, weights_only=True)
    state[part] = content
    if content == "absent":
        del state[part]
    torch.save(state, last)
    before = last.read_bytes()
    with pytest.raises(UserError, match=r"--resume: .*last\.ckpt cannot be"):
        train("model", resume=True)
    assert last.read_bytes() == before


def test_a_full_disk_leaves_the_last_epoch_to_go_on_from(train, full_disk):
    whole = train("whole")
    with pytest.raises(Killed):
        train("model", kill_in_epoch=1)
    before = {path: path.read_bytes() for path in Path("model/model").iterdir()}
    with full_disk(50_000), pytest.raises(UserError) as caught:
        train("model", resume=True)
    assert ".ckpt: cannot be written" in str(caught.value) and "\n" not in str(caught.value)
    after = {path: path.read_bytes() for path in Path("model/model").iterdir()}
    after[Path("model/model/history.csv")] = before[Path("model/model/history.csv")]  # one line longer
    assert after == before
    assert_same(whole, train("model", resume=True))


def test_other_workers_do_not_hinder_resuming(train, monkeypatch):
    monkeypatch.setattr("common.data.spare_cores", lambda device: 1)
    with pytest.raises(Killed):
        train("model", kill_in_epoch=1)
    assert_same(train("whole"), train("model", resume=True, num_workers=1))  # workers read ahead


def test_a_finished_run_is_left_alone_and_ends_well(tmp_path, capsys):
    run = {"arguments": {"lr": 0.1}, "fingerprint": "f", "task2_checkpoint": None, "clips": {}, "speakers": 1}
    run |= {"corpus": "tones", "seed": 1}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/last.ckpt").write_bytes(b"x")
    write_metrics(tmp_path, "Title", {}, run)
    assert not (tmp_path / "model/last.ckpt").exists(), "there is nothing to resume in a finished run"
    before = (tmp_path / "metrics.json").read_bytes()
    with pytest.raises(SystemExit) as caught:
        start_output(tmp_path, run, resume=True)
    assert caught.value.code is None and "has finished" in capsys.readouterr().out
    assert (tmp_path / "metrics.json").read_bytes() == before


def test_a_new_run_removes_what_it_would_belie(tmp_path):
    for name in ("metrics.json", "metrics.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/last.ckpt").write_bytes(b"x")
    (tmp_path / "model/best.ckpt").write_bytes(b"x")
    start_output(tmp_path, {})
    assert {path.name for path in tmp_path.rglob("*.*")} == {"best.ckpt"}


# --- as processes


@pytest.fixture
def start(repository, offline, corpus, tmp_path) -> Callable[..., subprocess.Popen]:
    """A function that starts task 1 on the tones, in a folder of its own."""

    def run(*flags: str) -> subprocess.Popen:
        command = [sys.executable, "-u", str(repository / "task1.py"), "--data-dir", str(corpus), "--batch-size", "8"]
        return subprocess.Popen(
            [*command, "--num-workers", "0", *flags],
            cwd=tmp_path,
            env=offline,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def wait_for(process: subprocess.Popen, text: str) -> None:
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"ended without {text!r}: {process.stderr.read()}")


def interrupt(process: subprocess.Popen) -> str:
    """Press Ctrl-C, as often as it takes: Python drops one that comes while it tidies up. Returns the errors told."""
    for _ in range(4):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=40)[1]
    process.kill()
    pytest.fail("would not be interrupted")


def test_ctrl_c_says_how_to_go_on_and_a_second_run_in_the_folder_is_refused(start, tmp_path):
    first = start("--epochs", "20000")
    wait_for(first, "supervised 1d  epoch 2/")
    second = start("--epochs", "20000")
    told = second.communicate(timeout=120)
    assert second.returncode == 1 and told[1].count("\n") == told[1].count("clips") + 1
    assert "another run is writing there" in told[1]
    told = interrupt(first)
    assert first.returncode == 130 and "Traceback" not in told
    assert told.splitlines()[-1] == "task1.py: interrupted; no metrics were written; to go on, add --resume"
    assert sorted(path.name for path in (tmp_path / "task1_supervised").rglob("*.*")) == [
        "best.ckpt",
        "history.csv",
        "last.ckpt",
    ]
    torch.load(tmp_path / "task1_supervised/1d_checkpoints/best.ckpt", weights_only=True)


def test_a_killed_run_leaves_no_lock_and_resumes_to_equal_metrics(start, tmp_path):
    flags = ("--epochs", "30")  # it must not be over before it is killed
    process = start(*flags)
    wait_for(process, "supervised 2d  epoch 2/")
    process.kill()
    process.communicate(timeout=60)
    assert not (tmp_path / "task1_supervised/metrics.json").exists()
    resumed = start(*flags, "--resume")
    told, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    assert "supervised 1d: trained already" in told and "supervised 2d: resumed after epoch" in told
    metrics = json.loads((tmp_path / "task1_supervised/metrics.json").read_text())
    shutil.move(tmp_path / "task1_supervised", tmp_path / "resumed")
    whole = start(*flags)
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    expected = json.loads((tmp_path / "task1_supervised/metrics.json").read_text())
    for result in (metrics, expected):
        result["run"].pop("seconds")
    assert metrics == expected

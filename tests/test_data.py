"""Where the clips come from, and that each reaches the models once and with its own labels."""

import ctypes
import os
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from common import data
from common.corpus import download
from common.corpus.cache import read_clip, standardise
from common.corpus.clips import SYNTHETIC_NAME, audiomnist_names, open_folder
from common.corpus.download import DownloadError
from common.data import SpokenDigits, find_corpus, spare_cores
from common.run.console import UserError
from common.run.output import start_output


@pytest.fixture(autouse=True)
def fresh_folder(tmp_path, monkeypatch):
    """Work in an empty folder, and reach for no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOMNIST_URL", str(tmp_path / "nothing"))


@pytest.fixture
def no_fetch(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("nothing is to be fetched")

    monkeypatch.setattr(download, "fetch", refuse)


@pytest.fixture
def fetched(monkeypatch):
    """A download that works: the clips asked for, in order of the calls."""
    calls = []

    def fetch(clips, root, *_, **__):
        calls.append((list(clips), Path(root)))
        (Path(root) / "data").mkdir(parents=True, exist_ok=True)
        (Path(root) / download.MARKER).touch()
        return len(calls[-1][0])

    monkeypatch.setattr(download, "fetch", fetch)
    return calls


@pytest.fixture
def failing_fetch(monkeypatch):
    def fetch(*_, **__):
        raise DownloadError("no network today")

    monkeypatch.setattr(download, "fetch", fetch)


# --- sources


def test_data_dir_comes_before_everything(make_args, write_tones, no_fetch):
    write_tones(Path("data/AudioMNIST/data"), ["01", "02", "03"], digits=[1])
    write_tones(Path("mine"), ["07", "08", "09"], digits=[1])
    corpus = find_corpus(make_args(data_dir=Path("mine")))
    assert corpus.name == "mine" and {clip.speaker for clip in corpus.clips} == {"07", "08", "09"}


@pytest.mark.parametrize("dataset", ["auto", "audiomnist"])
@pytest.mark.parametrize("below", ["", "data"])
def test_a_copy_of_ones_own_comes_before_a_download(make_args, write_tones, no_fetch, dataset, below):
    write_tones(Path("data/AudioMNIST") / below, ["01", "02", "03"], digits=[1, 2])
    corpus = find_corpus(make_args(dataset=dataset))
    assert corpus.name == "AudioMNIST" and len(corpus.clips) == 12
    assert len(find_corpus(make_args(dataset=dataset, ratio=0.5)).clips) == 6


@pytest.mark.parametrize("dataset", ["auto", "audiomnist"])
def test_a_download_asks_for_the_clips_of_the_ratio_alone(make_args, fetched, dataset):
    corpus = find_corpus(make_args(dataset=dataset, ratio=0.01, seed=3))
    ((clips, root),) = fetched
    assert root == Path("data/AudioMNIST") and len(clips) == 300 and set(clips) <= set(audiomnist_names())
    assert corpus.name == "AudioMNIST" and list(corpus.clips) == clips and corpus.root == root / "data"


def test_an_earlier_download_is_extended_and_not_taken_for_the_whole(make_args, fetched, write_tones):
    find_corpus(make_args(ratio=0.01))
    write_tones(Path("data/AudioMNIST/data"), ["01", "02", "03"], digits=[1])
    corpus = find_corpus(make_args(ratio=0.05))
    assert [len(clips) for clips, _ in fetched] == [300, 1500] and len(corpus.clips) == 1500
    assert set(fetched[0][0]) <= set(fetched[1][0])


def test_without_a_network_synthetic_speech_is_announced(make_args, failing_fetch, capsys):
    corpus = find_corpus(make_args(ratio=0.01))
    assert corpus.name == SYNTHETIC_NAME and corpus.root is None and len(corpus.clips) == 300
    told = capsys.readouterr().err
    assert "no network today" in told and "SYNTHETIC SPEECH" in told and "not AudioMNIST" in told and "!!!" in told


def test_who_insists_on_audiomnist_gets_an_error(make_args, failing_fetch, capsys):
    with pytest.raises(UserError, match="no network today"):
        find_corpus(make_args(dataset="audiomnist", ratio=0.01))
    assert capsys.readouterr().err == ""


def test_who_asks_for_synthetic_speech_gets_it_whatever_there_is(make_args, write_tones, no_fetch, capsys):
    write_tones(Path("data/AudioMNIST/data"), ["01", "02", "03"], digits=[1])
    corpus = find_corpus(make_args(dataset="synthetic", ratio=0.01))
    assert corpus.name == SYNTHETIC_NAME and len(corpus.clips) == 300
    assert capsys.readouterr().err == ""


def test_synthetic_and_real_clips_of_a_ratio_are_the_same_ones(make_args, fetched):
    real, spoken = (find_corpus(make_args(dataset=name, ratio=0.01)) for name in ("audiomnist", "synthetic"))
    assert real.clips == spoken.clips


@pytest.mark.parametrize("dataset", ["synthetic", "auto"])
def test_a_ratio_of_no_clips_is_an_error_that_a_user_can_read(make_args, failing_fetch, dataset):
    with pytest.raises(UserError) as caught:
        SpokenDigits(make_args(dataset=dataset, ratio=1e-6))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="gives up root's rights in a forked process")
def test_folders_that_can_only_be_read_are_enough(make_args, write_tones, monkeypatch, tmp_path):
    """The cache goes to the user's own folder then, once."""
    corpus = write_tones(tmp_path / "tones", ["01", "02", "03"], [0, 1])
    work, home = tmp_path / "work", tmp_path / "home"
    (work / "data").mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    read_only = [work, work / "data", corpus, *corpus.iterdir()]
    for folder in read_only:
        folder.chmod(0o555)

    def work_there() -> None:
        version_and_process, no_rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(version_and_process, no_rights) == 0  # root may write everywhere
        first, second = (SpokenDigits(make_args(data_dir=corpus)).cached for _ in range(2))
        assert len(first.clips) == len(second.clips) == 12
        assert [cache.name for cache in home.glob("*/*")] == [first.key]
        with pytest.raises(UserError, match="--output-dir results: cannot write there"):
            start_output(Path("results"), {})

    child = os.fork()
    if child == 0:
        try:
            work_there()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    code = os.waitpid(child, 0)[1]
    for folder in read_only:
        folder.chmod(0o755)
    assert code == 0
    assert list(work.rglob("*")) == [work / "data"]


# --- loaders


@pytest.fixture
def tones(write_tones) -> Path:
    """5 speakers, whose names sort in natural order, x 3 digits x 5 repetitions; the last speaker is the test."""
    return write_tones(Path("tones"), ["2", "10", "1", "9", "b"], digits=[0, 4, 9], repetitions=5)


@pytest.fixture
def served(make_args, tones):
    return SpokenDigits(make_args(data_dir=tones))


def gather(loader) -> data.Batch:
    return data.Batch(*(torch.cat(parts) for parts in zip(*loader, strict=True)))


@pytest.mark.parametrize("workers", [0, 2])
def test_each_clip_is_served_once_with_its_own_labels(make_args, tones, workers):
    served = SpokenDigits(make_args(data_dir=tones, batch_size=7))
    corpus = open_folder(tones)
    clip_of = {standardise(*read_clip(corpus.root / clip.path)).tobytes(): clip for clip in corpus.clips}
    assert len(clip_of) == 75
    seen = []
    for name, size in (("train", 48), ("val", 12), ("test", 15)):
        everything = gather(served.loader(name, workers=workers))
        assert len(everything.inputs) == size and everything.inputs.dtype == torch.int16
        for wave, digit, speaker in zip(*everything, strict=True):
            clip = clip_of[wave.numpy().tobytes()]
            assert (clip.digit, clip.speaker) == (int(digit), served.speakers[speaker])
            seen.append(clip)
    assert len(seen) == len(set(seen)) == 75
    assert {clip.speaker for clip in seen[60:]} == {"b"}


def test_labels_stay_right_when_files_are_skipped(make_args, tones):
    (tones / "1/0_1_0.wav").write_bytes(b"")
    (tones / "9/4_9_2.wav").write_bytes(b"")
    corpus = open_folder(tones)
    served = SpokenDigits(make_args(data_dir=tones))
    skipped = {"1/0_1_0.wav", "9/4_9_2.wav"}
    clip_of = {
        standardise(*read_clip(tones / clip.path)).tobytes(): clip for clip in corpus.clips if clip.path not in skipped
    }
    for name in ("train", "val", "test"):
        for wave, digit, speaker in zip(*gather(served.loader(name)), strict=True):
            clip = clip_of.pop(wave.numpy().tobytes())
            assert (clip.digit, clip.speaker) == (int(digit), served.speakers[speaker])
    assert not clip_of


def test_names_of_the_sets(served):
    assert served.names("test") == ["b"]
    assert served.names("train", "val") == ["1", "2", "9", "10"]


def order(loader) -> list[bytes]:
    return [wave.numpy().tobytes() for wave in gather(loader).inputs]


def test_training_is_shuffled_anew_in_each_epoch_and_repeated_by_the_seed(make_args, tones):
    epochs = {}
    for key, seed in (("first", 1), ("again", 1), ("other", 2)):
        served = SpokenDigits(make_args(data_dir=tones, seed=1))
        served.args.seed = seed
        loader = served.train_dataloader()
        torch.manual_seed(0 if key == "first" else 5)  # the order is the seed's, whatever else drew numbers
        epochs[key] = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)  # as Lightning does
            epochs[key].append(order(loader))
    assert epochs["first"] == epochs["again"]
    assert epochs["first"][0] != epochs["first"][1] and sorted(epochs["first"][0]) == sorted(epochs["first"][1])
    assert epochs["first"][0] != epochs["other"][0]
    assert epochs["first"][0] != order(served.loader("train"))


def test_validation_and_test_come_whole_and_in_order(served):
    for name, loader in (("val", served.val_dataloader()), ("test", served.loader("test"))):
        rows = served.split._asdict()[name]
        assert order(loader) == [served.cached.waves[row].tobytes() for row in rows]


@pytest.mark.parametrize("batch_size, batches", [(8, 6), (10, 4), (64, 1)])
def test_only_a_last_batch_that_is_small_is_dropped_in_training(make_args, tones, batch_size, batches):
    served = SpokenDigits(make_args(data_dir=tones, batch_size=batch_size))
    sizes = [len(batch.digit) for batch in served.train_dataloader()]
    assert len(sizes) == batches and set(sizes) == {min(batch_size, 48)}


def test_workers_persist_from_epoch_to_epoch(make_args, tones, monkeypatch):
    monkeypatch.setattr("common.data.spare_cores", lambda device: 2)
    served = SpokenDigits(make_args(data_dir=tones, num_workers=2))
    assert all(loader.persistent_workers for loader in (served.train_dataloader(), served.val_dataloader()))


def test_no_worker_takes_a_core_that_computes(make_args, tones, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for threads, workers in ((8, 0), (5, 3), (1, 4)):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        assert SpokenDigits(make_args(data_dir=tones, num_workers=4)).num_workers == workers
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert spare_cores(torch.device("cuda")) == 8, "a GPU leaves the cores to them"


def test_other_inputs_keep_the_labels_and_leave_the_original_alone(served):
    inputs = {
        name: np.arange(3 * len(examples), dtype=np.float32).reshape(-1, 3)
        for name, examples in served.examples.items()
    }
    twin = served.with_inputs(inputs)
    for name in inputs:
        old, new = gather(served.loader(name)), gather(twin.loader(name))
        np.testing.assert_array_equal(new.inputs, inputs[name])
        assert torch.equal(old.digit, new.digit) and torch.equal(old.speaker, new.speaker)
        assert old.inputs.dtype == torch.int16
    assert twin.corpus is served.corpus


# --- few labels


def with_label_ratio(args, ratio: float):
    args.label_ratio = ratio
    return args


def test_few_labels_are_a_stratified_part_of_training_alone(make_args, tones):
    whole = SpokenDigits(make_args(data_dir=tones))
    few, fewer = (SpokenDigits(with_label_ratio(make_args(data_dir=tones), ratio)) for ratio in (0.5, 0.25))
    assert (len(few.split.train), len(fewer.split.train)) == (24, 12)
    assert set(fewer.split.train) < set(few.split.train) < set(whole.split.train)
    counts = np.unique(few.examples["train"].speaker * 10 + few.examples["train"].digit, return_counts=True)[1]
    assert len(counts) == 12 and set(counts) == {2}
    for name in ("val", "test"):
        assert order(few.loader(name)) == order(whole.loader(name))


def test_too_few_labels_name_the_flag(make_args, tones):
    with pytest.raises(UserError, match="--label-ratio") as caught:
        SpokenDigits(with_label_ratio(make_args(data_dir=tones), 0.001))
    assert "\n" not in str(caught.value)


# --- python -m common.data


def command_args(make_args, command: str, folder: Path | None = None, **overrides):
    args = make_args(**overrides)
    args.command, args.folder = command, folder
    return args


def test_show_tells_what_there_is(make_args, tones, capsys, no_fetch):
    (tones / "1/notes.txt").touch()
    (tones / "1/0_1_0.wav").write_bytes(b"")
    data.main(command_args(make_args, "show", data_dir=tones))
    told = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in told.splitlines()}
    assert rows["corpus"] == "tones" and rows["clips"] == "75"
    assert rows["speakers"] == "5: 1 to b" and rows["digits"] == "3: 0 to 9"
    assert rows["other files"] == "1 ignored" and "1 files unreadable" in rows["seconds"]
    assert "0.30 to 0.30" in rows["seconds"] and rows["seconds"].startswith("22 ")
    assert rows["train"].startswith("48 clips, 4: 1 to 10") and rows["val"].startswith("12 clips, 4: 1 to 10")
    assert rows["test"] == "15 clips, 1: b to b"


def test_show_downloads_nothing(make_args, capsys, no_fetch):
    data.main(command_args(make_args, "show"))
    assert "fetch" in capsys.readouterr().out
    assert not Path("data").exists()


def test_show_of_no_clips_is_an_error_that_a_user_can_read(make_args, no_fetch):
    with pytest.raises(UserError):
        data.main(command_args(make_args, "show", dataset="synthetic", ratio=1e-6))


def test_fetch_fetches_the_ratio_into_the_folder(make_args, fetched, capsys):
    data.main(command_args(make_args, "fetch", Path("here"), ratio=0.01))
    ((clips, root),) = fetched
    assert len(clips) == 300 and root == Path("here") and "300" in capsys.readouterr().out


def test_synthesize_writes_a_corpus_that_says_what_it_is(make_args, capsys):
    pytest.importorskip("espeakng_loader")
    data.main(command_args(make_args, "synthesize", Path("AudioMNIST"), ratio=0.002))
    corpus = open_folder(Path("AudioMNIST"))
    assert corpus.name == SYNTHETIC_NAME and len(corpus.clips) == 60
    assert "60" in capsys.readouterr().out
    assert find_corpus(make_args(data_dir=Path("AudioMNIST/data"))).name == SYNTHETIC_NAME


def test_synthesize_needs_a_folder(make_args):
    with pytest.raises(UserError, match="synthesize"):
        data.main(command_args(make_args, "synthesize"))


def test_synthetic_speech_in_audiomnists_place_is_not_audiomnist(make_args, write_tones, no_fetch):
    """It is used where the choice is free, under its own name, and refused where AudioMNIST is asked for."""
    write_tones(Path("data/AudioMNIST/data"), ["01", "02", "03"], digits=[1])
    Path("data/AudioMNIST/SYNTHETIC.txt").touch()
    assert find_corpus(make_args()).name == SYNTHETIC_NAME
    with pytest.raises(UserError, match=r"audiomnist|AudioMNIST"):
        find_corpus(make_args(dataset="audiomnist"))

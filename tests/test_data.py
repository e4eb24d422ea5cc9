"""Each clip reaches the models once per epoch, with its own labels, in an order that the seed fixes."""

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from common.corpus import open_folder
from common.corpus.cache import read_clip, standardise
from common.corpus.source import MARKER
from common.data import MIN_STEPS, Batch, EmbeddedBatch, SpokenDigits, spare_cores
from common.run import UserError


@pytest.fixture
def tones(write_tones, tmp_path, monkeypatch) -> Path:
    """5 speakers, whose names sort in natural order, x 3 digits x 5 repetitions; the last speaker is the test."""
    monkeypatch.chdir(tmp_path)
    return write_tones(Path("tones"), ["2", "10", "1", "9", "b"], digits=[0, 4, 9], repetitions=5)


@pytest.fixture
def open_data(tones):
    """A function that opens the tones in batches of eight, with some arguments of SpokenDigits."""
    return lambda **arguments: SpokenDigits(tones, **{"batch_size": 8, "accelerator": "cpu"} | arguments)


def gather(loader) -> Batch:
    """All batches of a loader as one."""
    return Batch(*(torch.cat(parts) for parts in zip(*loader, strict=True)))


def order(loader) -> list[bytes]:
    return [wave.numpy().tobytes() for wave in gather(loader).waveform]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_clip_comes_once_with_its_own_labels_although_some_files_are_skipped(open_data, tones, workers):
    (tones / "1/0_1_0.wav").write_bytes(b"")
    (tones / "9/4_9_2.wav").write_bytes(b"")
    readable = [clip for clip in open_folder(tones).clips if clip.path not in ("1/0_1_0.wav", "9/4_9_2.wav")]
    clip_of = {standardise(*read_clip(tones / clip.path)).tobytes(): clip for clip in readable}
    assert len(clip_of) == 73, "all tones differ"
    data = open_data(batch_size=7)
    sizes, test_speakers = {}, set()
    for name in ("train", "val", "test"):
        clips = gather(data.loader(name, workers=workers))
        assert clips.waveform.dtype == torch.int16 and clips.waveform.shape[1] == 16_000
        sizes[name] = len(clips.digit)
        for wave, digit, speaker in zip(*clips, strict=True):
            clip = clip_of.pop(wave.numpy().tobytes())
            assert (clip.digit, clip.speaker) == (int(digit), data.speakers[speaker])
            test_speakers |= {clip.speaker} if name == "test" else set()
    assert not clip_of and sizes == data.describe()["clips"] and sizes["test"] == 14
    assert test_speakers == {"9"}


def test_validation_clips_come_in_one_shuffled_order_and_test_clips_in_theirs(open_data):
    data, random = open_data(), torch.get_rng_state()
    val, test = ([data.cached.waves[row].tobytes() for row in rows] for rows in (data.split.val, data.split.test))
    shuffled = order(data.val_dataloader())
    assert shuffled == order(open_data().loader("val")) and order(data.loader("test")) == test
    assert shuffled != val and sorted(shuffled) == sorted(val), "else a batch holds one speaker alone"
    assert torch.equal(torch.get_rng_state(), random), "augmentation draws from this generator, a loader must not"


def test_training_clips_are_shuffled_anew_in_each_epoch_as_the_seed_says(open_data):
    epochs = {}
    for key, seed in (("first", 1), ("again", 1), ("other", 2)):
        data = open_data(seed=1)  # one split
        data.seed = seed
        loader = data.train_dataloader()
        torch.manual_seed(0 if key == "first" else 5)  # random numbers drawn elsewhere have no influence
        epochs[key] = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)  # as Lightning does
            epochs[key].append(order(loader))
    assert epochs["first"] == epochs["again"]
    assert epochs["first"][0] != epochs["first"][1] and sorted(epochs["first"][0]) == sorted(epochs["first"][1])
    assert epochs["first"][0] != epochs["other"][0]
    assert epochs["first"][0] != order(data.loader("train"))
    assert order(open_data(seed=1).train_dataloader(epoch=1)) == epochs["first"][1], "a resumed training"


@pytest.mark.parametrize("batch_size, batches", [(1, 48), (2, 24), (8, 24), (10, 24), (64, 24)])
def test_only_a_small_last_batch_is_dropped_in_training_and_none_has_a_clip_twice(open_data, batch_size, batches):
    data = open_data(batch_size=batch_size)
    sizes = [len(batch.digit) for batch in data.train_dataloader()]
    assert len(sizes) == batches and set(sizes) == {min(batch_size, 48)}
    if 48 % batch_size == 0 or batch_size > 48:  # else a batch has the end of one pass and the start of the next
        assert all(len(set(order([batch]))) == len(batch.digit) for batch in data.train_dataloader())


@pytest.mark.slow  # each process imports torch
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_loader_processes_map_the_cache_however_they_start(open_data, method):
    """macOS, Windows and Python 3.14 do not fork; a pickled memory map would be a copy of the corpus."""
    data = open_data()
    assert len(pickle.dumps(data.examples["train"])) < data.cached.waves.nbytes / 100
    loader = data.loader("train", workers=1)
    loader.multiprocessing_context = method
    assert order(loader) == order(data.loader("train"))


def test_workers_take_only_cores_that_do_not_compute(open_data, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    for threads, workers in ((8, 0), (5, 3), (1, 4)):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        assert open_data(num_workers=None).num_workers == workers
    assert open_data(num_workers=5).num_workers == 5, "a number that was given is obeyed"
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert spare_cores(torch.device("cuda")) == 8, "training on a GPU leaves all cores free"


def test_embeddings_take_the_place_of_waveforms_and_keep_the_labels(open_data):
    data = open_data()
    embeddings = {
        name: np.arange(3 * len(clips), dtype=np.float32).reshape(-1, 3) for name, clips in data.examples.items()
    }
    embedded = data.with_embeddings(embeddings)
    for name, expected in embeddings.items():
        (first, *_), clips = embedded.loader(name), gather(data.loader(name))
        assert isinstance(first, EmbeddedBatch) and first.embedding.dtype == torch.float32
        embedding, digit, speaker = gather(embedded.loader(name))
        np.testing.assert_array_equal(embedding, expected)
        assert torch.equal(digit, clips.digit) and torch.equal(speaker, clips.speaker)
        assert clips.waveform.dtype == torch.int16, "the original is unchanged"


def test_few_labels_are_a_stratified_part_of_the_training_and_validation_clips(open_data):
    whole, few, fewer = (open_data(label_ratio=ratio) for ratio in (1.0, 0.5, 0.25))
    assert (len(few.split.train), len(fewer.split.train), len(few.split.val)) == (24, 12, 6)
    assert set(fewer.split.train) < set(few.split.train) < set(whole.split.train)
    assert set(few.split.val) < set(whole.split.val)
    train = few.examples["train"]
    counts = np.unique(train.speaker * 10 + train.digit, return_counts=True)[1]
    assert len(counts) == 12 and set(counts) == {2}
    assert order(few.loader("test")) == order(whole.loader("test"))


@pytest.mark.parametrize("ratio", [1.0, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("batch_size", [2, 5])
def test_an_epoch_has_as_many_steps_with_few_labels_and_no_clip_much_more_often(open_data, ratio, batch_size):
    whole, data = (open_data(label_ratio=each, batch_size=batch_size) for each in (1.0, ratio))
    loader, clips = data.train_dataloader(), len(data.split.train)
    assert len(loader) == len(whole.train_dataloader()) == {2: 24, 5: 28}[batch_size]
    seen = Counter(order(loader))
    assert len(seen) == clips and max(seen.values()) - min(seen.values()) <= 1
    rows = list(loader.sampler)
    passes = [rows[start : start + clips] for start in range(0, len(rows) // clips * clips, clips)]
    assert all(sorted(each) == list(range(clips)) for each in passes)
    assert len(set(map(tuple, passes))) > 0.8 * len(passes), "each pass has an order of its own"


def test_an_epoch_of_a_small_corpus_has_a_minimum_of_steps_in_each_process(open_data):
    halves = open_data(batch_size=64, processes=2)
    for rank in (0, 1):
        batches = list(halves.train_dataloader(2, rank))
        assert len(batches) == MIN_STEPS and all(
            len(set(order([batch]))) == len(batch.digit) == 24 for batch in batches
        )


def test_the_description_can_be_written_as_json_and_names_corpus_clips_and_speakers(open_data, tones):
    (tones / "1/notes.txt").touch()
    (tones / "1/0_1_0.wav").write_bytes(b"")
    data = open_data()
    description = json.loads(json.dumps(data.describe()))
    assert description == {
        "corpus": "tones",
        "corpus_commit": None,
        "fingerprint": data.cached.key,
        "clips": {name: len(rows) for name, rows in data.split._asdict().items()},
        "skipped": 1,
        "ignored": 1,
        "speakers": 5,
        "train_speakers": ["1", "2", "10", "b"],
        "split": description["split"],
    }
    assert data.names("test") == ["9"] and data.caption("test") == "tones: 15 test clips of 1 speakers"


def test_the_description_of_a_download_names_its_commit(tones, write_tones):
    folder, commit = Path("data/AudioMNIST"), "0123456789abcdef" * 2 + "01234567"
    write_tones(folder / "data", ["01", "02", "03"], digits=[0, 1])
    (folder / MARKER).write_text(f"Downloaded from somewhere, commit {commit}; may hold only some clips.\n")
    assert SpokenDigits(folder).describe()["corpus_commit"] == commit


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"label_ratio": 0}, "--label-ratio: expected"),
        ({"label_ratio": 0.001}, "0 training and 0 validation clips are too few for 1 process(es); raise --ratio or"),
        ({"label_ratio": 0.06, "processes": 2}, "3 training and 1 validation clips are too few for 2 process(es)"),
        ({"fold": 1}, "--fold needs all of AudioMNIST's speakers"),
        ({"ratio": 0.03}, "raise --ratio"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(open_data, arguments, message):
    with pytest.raises(UserError) as caught:
        open_data(**arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("accelerator, available", [("gpu", None), ("mps", None), ("mps", "cuda")])
def test_an_accelerator_that_is_not_there_is_one_line(open_data, monkeypatch, accelerator, available):
    best = available and torch.device(available)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available: best)
    with pytest.raises(UserError, match=f"^--accelerator {accelerator}: PyTorch finds none on this machine; leave"):
        open_data(accelerator=accelerator)

"""Each clip reaches the models once per pass, with its own labels, in an order that the seed fixes."""

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from common.audio import to_float
from common.augmentation import Augmentation
from common.corpus import open_folder
from common.corpus.cache import read_clip, standardise
from common.data import MIN_STEPS, ORDER, Batch, SpokenDigits, epoch_seed
from common.run import UserError


@pytest.fixture
def tones(write_tones, tmp_path, monkeypatch) -> Path:
    """5 speakers, whose names sort in natural order, x 3 digits x 5 repetitions; the third speaker, 9, is the test."""
    monkeypatch.chdir(tmp_path)
    return write_tones(Path("tones"), ["2", "10", "1", "9", "b"], digits=[0, 4, 9], repetitions=5)


@pytest.fixture
def open_data(tones):
    """A function that opens the tones in batches of eight, with some arguments of SpokenDigits."""
    return lambda **arguments: SpokenDigits(tones, **{"batch_size": 8, "accelerator": "cpu"} | arguments)


def collect(loader) -> Batch:
    """All batches of a loader as one."""
    return Batch(*(torch.cat(parts) for parts in zip(*loader, strict=True)))


def order(loader) -> list[bytes]:
    return [wave.numpy().tobytes() for wave in collect(loader).waveform]


# --- which clips


def test_each_clip_is_in_one_set_with_its_own_labels_although_some_files_are_skipped(open_data, tones):
    (tones / "1/0_1_0.wav").write_bytes(b"")
    (tones / "9/4_9_2.wav").write_bytes(b"")
    readable = [clip for clip in open_folder(tones).clips if clip.path not in ("1/0_1_0.wav", "9/4_9_2.wav")]
    clip_of = {standardise(*read_clip(tones / clip.path)).tobytes(): clip for clip in readable}
    assert len(clip_of) == 73, "all tones differ"
    data = open_data(batch_size=7)
    sizes, speakers = {}, {}
    for name in ("train", "val", "test"):
        clips = collect(data.loader(name))
        assert clips.waveform.dtype == torch.int16 and clips.waveform.shape[1] == 16_000
        sizes[name], speakers[name] = len(clips.digit), {data.speakers[speaker] for speaker in clips.speaker}
        for wave, digit, speaker in zip(*clips, strict=True):
            clip = clip_of.pop(wave.numpy().tobytes())  # a clip of two sets would be missing
            assert (clip.digit, clip.speaker) == (int(digit), data.speakers[speaker])
    assert not clip_of and sizes == data.describe()["clips"] and sizes["test"] == 14
    assert speakers["test"] == {"9"} and not speakers["test"] & (speakers["train"] | speakers["val"])
    trained, selected = set(order(data.train_dataloader())), set(order(data.val_dataloader()))
    assert trained == set(order(data.loader("train"))) and selected == set(order(data.loader("val")))


def test_few_labels_are_a_stratified_part_of_the_training_and_validation_clips(open_data):
    whole, few, fewer = (open_data(label_ratio=ratio) for ratio in (1.0, 0.5, 0.25))
    assert (len(few.split.train), len(fewer.split.train), len(few.split.val)) == (24, 12, 6)
    assert set(fewer.split.train) < set(few.split.train) < set(whole.split.train)
    assert set(few.split.val) < set(whole.split.val)
    train = few.examples["train"]
    assert set(Counter(zip(train.speaker.tolist(), train.digit.tolist(), strict=True)).values()) == {2}
    assert order(few.loader("test")) == order(whole.loader("test"))


def test_embeddings_take_the_place_of_waveforms_and_keep_the_labels(open_data):
    data = open_data()
    data.augment_validation(Augmentation())
    embeddings = {
        name: np.arange(3 * len(clips), dtype=np.float32).reshape(-1, 3) for name, clips in data.examples.items()
    }
    embedded = data.with_embeddings(embeddings)
    for name, expected in embeddings.items():
        (embedding, *labels), (waveform, *expected_labels) = collect(embedded.loader(name)), collect(data.loader(name))
        np.testing.assert_array_equal(embedding, expected)
        assert all(map(torch.equal, labels, expected_labels)) and waveform.dtype == torch.int16
    np.testing.assert_array_equal(collect(embedded.val_dataloader()).waveform, embeddings["val"])


# --- in which order


def test_validation_clips_come_in_one_shuffled_order_and_test_clips_in_theirs(open_data):
    data, random = open_data(), torch.get_rng_state()
    val, test = ([data.cached.waves[row].tobytes() for row in rows] for rows in (data.split.val, data.split.test))
    shuffled = order(data.val_dataloader())
    assert shuffled == order(open_data().loader("val")) and order(data.loader("test")) == test
    assert shuffled != val and sorted(shuffled) == sorted(val), "else a batch holds one speaker alone"
    assert torch.equal(torch.get_rng_state(), random), "augmentation draws from this generator, a loader must not"


def test_training_clips_are_shuffled_anew_in_each_epoch_as_the_seed_says(open_data):
    data, other = open_data(seed=1), open_data(seed=1)
    other.seed = 2  # of the order alone
    orders = {}
    for key, source in (("first", data), ("again", data), ("other", other)):
        torch.manual_seed(0 if key == "first" else 5)  # random numbers drawn elsewhere have no influence
        orders[key] = [order(source.train_dataloader(epoch)) for epoch in (0, 1)]
    assert orders["first"] == orders["again"]
    assert orders["first"][0] != orders["first"][1] and sorted(orders["first"][0]) == sorted(orders["first"][1])
    assert orders["first"][0] != orders["other"][0]
    assert orders["first"][0] != order(data.loader("train"))
    seeds = {epoch_seed(seed, epoch, purpose) for seed in (1, 2) for epoch in (0, 1) for purpose in (0, 1, ORDER)}
    assert len(seeds) == 12


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("batch_size, steps", [(2, 24), (5, 28), (64, 24)])
def test_an_epoch_has_as_many_steps_with_few_labels_and_no_clip_much_more_often(open_data, ratio, batch_size, steps):
    data = open_data(label_ratio=ratio, batch_size=batch_size)
    loader, clips = data.train_dataloader(), len(data.split.train)
    sizes = [len(batch.digit) for batch in loader]
    assert len(sizes) == steps >= MIN_STEPS and set(sizes) == {min(batch_size, clips)}
    seen = Counter(order(data.train_dataloader()))
    assert len(seen) == clips and max(seen.values()) - min(seen.values()) <= 1
    rows = list(data.train_dataloader().sampler)
    passes = [rows[start : start + clips] for start in range(0, len(rows) // clips * clips, clips)]
    assert all(sorted(each) == list(range(clips)) for each in passes)
    assert len(set(map(tuple, passes))) > 0.8 * len(passes), "each pass has an order of its own"


@pytest.mark.slow  # the process imports torch
def test_loader_processes_map_the_cache_also_where_they_are_not_forked(open_data):
    """macOS, Windows and Python 3.14 do not fork; a pickled memory map would be a copy of the corpus."""
    data = open_data(num_workers=1)
    assert len(pickle.dumps(data.examples["train"])) < data.cached.waves.nbytes / 100
    loader = data.val_dataloader()
    loader.multiprocessing_context = "spawn"
    assert order(loader) == order(data.loader("val"))


# --- what the best epoch is chosen on


def test_validation_clips_are_augmented_once_beside_the_clean_ones_and_training_draws_as_without(open_data):
    data, random = open_data(), torch.get_rng_state()
    clean = collect(data.loader("val"))
    data.augment_validation(Augmentation(rooms=True))
    assert torch.equal(torch.get_rng_state(), random), "the training draws from these numbers"
    first, again = collect(data.val_dataloader()), collect(data.val_dataloader())
    assert all(torch.equal(*parts) for parts in zip(first, again, strict=True)), "equal in each epoch"
    assert torch.equal(first.digit, clean.digit.repeat(2)) and torch.equal(first.speaker, clean.speaker.repeat(2))
    same, changed = first.waveform.chunk(2)
    assert torch.equal(same, clean.waveform) and not any(map(torch.equal, changed, same))
    assert (to_float(changed).abs().amax(dim=1) > 0.9).all(), "levels as the cache has them"
    assert torch.equal(collect(data.loader("val")).waveform, clean.waveform), "accuracies are of clean clips"
    data.augment_validation(Augmentation(rooms=True), clips=5)
    assert len(collect(data.val_dataloader()).digit) == 10


# --- what is said of them


def test_the_record_names_the_clips_the_split_and_the_speakers(open_data, tones):
    (tones / "1/notes.wav").touch()
    (tones / "1/0_1_0.wav").write_bytes(b"")
    data = open_data()
    described = json.loads(json.dumps(data.describe()))
    assert (described["skipped"], described["ignored"]) == (1, 1) and described["fingerprint"] == data.cached.key
    assert described["train_speakers"] == ["1", "2", "10", "b"] and data.names("test") == ["9"]
    assert described["split"] != open_data(seed=7).describe()["split"]
    assert data.caption("test") == "tones: 15 test clips of 1 speakers"


def test_too_few_clips_are_one_line(open_data):
    few = r"^3 training and 1 validation clips are too few for 2 process\(es\); raise --ratio or --label-ratio"
    with pytest.raises(UserError, match=few):
        open_data(label_ratio=0.06, processes=2)

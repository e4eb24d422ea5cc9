"""python -m common.voice.identify: which of the enrolled people speaks, or nobody of them."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import tone
from test_predict import run_command, save

from common.batches import Batch
from common.checkpoints import load
from common.corpus.decode import standardise
from common.data import SpokenDigits
from common.evaluate import embed
from common.modules import ContrastiveModel
from common.networks import VoiceEmbedder
from common.run.console import UserError
from common.speaker_space import fit_spaces, fuse, load_spaces, store_spaces, unit_length
from common.speakers import equal_error_rate
from common.voice.identify import Enrolment
from common.voice.recordings import read_recording


def enrol(people: int = 3, clips: int = 4) -> tuple[Enrolment, np.ndarray]:
    """An enrolment of random people, and the index of each recording's person."""
    rng = np.random.default_rng(3)
    person = rng.permutation(np.repeat(np.arange(people), clips))
    z = rng.normal(size=(people, 5))[person] + rng.normal(size=(people * clips, 5))
    return Enrolment().fit(z, [f"p{i}" for i in person]), person


def soft_maximum(cosine) -> float:
    return float(0.05 * np.log(np.mean(np.exp(np.asarray(cosine) / 0.05))))


# --- similarity and threshold


def test_the_similarity_to_a_person_lies_between_mean_and_maximum():
    (enrolment, person), queries = enrol(), np.random.default_rng(1).normal(size=(6, 5))
    similarity = enrolment.similarity(queries)
    assert similarity.shape == (6, 3) and enrolment.people_.tolist() == ["p0", "p1", "p2"]
    for q, p in np.ndindex(6, 3):
        own = enrolment.z_[person == p] @ queries[q] / np.linalg.norm(queries[q])
        assert similarity[q, p] == pytest.approx(soft_maximum(own))
        assert own.mean() < similarity[q, p] < own.max()


def test_the_threshold_compares_each_recording_with_the_others_of_its_person_and_with_other_people():
    enrolment, person = enrol()
    genuine, impostor = [], []
    for i, own in enumerate(person):
        cosine = enrolment.z_ @ enrolment.z_[i]
        genuine.append(soft_maximum(cosine[(np.arange(len(person)) != i) & (person == own)]))
        impostor.append(max(soft_maximum(cosine[person == p]) for p in range(3) if p != own))
    expected = equal_error_rate(np.array(genuine + impostor), np.repeat([True, False], len(person)))
    found = enrolment.equal_errors()
    assert found[0] > 0 and found == pytest.approx(expected)


def test_a_threshold_takes_two_people_and_two_recordings_of_one():
    for people, clips in [(1, 5), (3, 1), (1, 1)]:
        with pytest.raises(UserError, match="too few recordings"):
            enrol(people, clips)[0].equal_errors()
    enrolment, person = enrol()
    with_a_single_recording = np.vstack([enrolment.z_, enrolment.z_[:1]]), np.append(person, 3)
    assert np.isfinite(Enrolment().fit(*with_a_single_recording).equal_errors()[1])


# --- the command


def training_clips() -> list[Batch]:
    """Clips of made-up speakers of three digits, for the speaker spaces."""
    rng = np.random.default_rng(0)
    waves = [tone(100 * (1 + digit) * rng.uniform(0.8, 5), 0.4, 16_000) for digit in range(3) for _ in range(30)]
    waves = np.stack([standardise(wave + 0.01 * rng.normal(size=len(wave)), 16_000) for wave in waves])
    return [Batch(torch.from_numpy(waves), torch.arange(90) // 30, torch.zeros(90, dtype=torch.long))]


@pytest.fixture
def people(tmp_path, monkeypatch):
    """Four recordings of Anna, whose voice is low, and of Ben, whose voice is high. Carl is a stranger.

    Another recording of each is the query. The encoders of best.ckpt are untrained.
    """
    monkeypatch.chdir(tmp_path)
    for name, kind, frequency in (("anna", "wav", 150), ("ben", "flac", 2000), ("carl", "ogg", 700)):
        soundfile.write(f"{name}.{kind}", tone(frequency, 0.4, 22_050), 22_050)
        folder = tmp_path / ("strangers" if name == "carl" else "people") / name
        folder.mkdir(parents=True)
        for i, change in enumerate((0.96, 0.98, 1.02, 1.04)):
            soundfile.write(folder / f"{i}.{kind}", tone(frequency * change, 0.4, 22_050), 22_050)
    torch.manual_seed(0)
    save(model := ContrastiveModel())
    store_spaces(tmp_path / "best.ckpt", embed(VoiceEmbedder(model.embedder), training_clips()))
    return tmp_path / "people"


@pytest.fixture
def identify(run_here, capsys):
    return functools.partial(run_command, run_here, capsys, "identify", "--task2-checkpoint", "best.ckpt")


def test_people_are_named_and_strangers_are_nobody(people, identify):
    queries = ["anna.wav", "ben.flac", "carl.ogg"]
    code, out, err = identify("--enrol", "people", "--json", *queries)
    threshold, answers = json.loads(out).values()
    assert code == 0 and [answer["file"] for answer in answers] == queries
    assert [answer["person"] for answer in answers] == ["anna", "ben", None]
    anna, ben, carl = (answer["similarity"] for answer in answers)
    assert carl < threshold <= min(anna, ben)
    assert err.startswith("8 recordings of 2 speaker(s) enrolled, ") and err.endswith(f"; threshold {threshold:.3f}\n")
    lines = f"anna    {anna:6.3f}  anna.wav\nben     {ben:6.3f}  ben.flac\nnobody  {carl:6.3f}  carl.ogg\n"
    assert identify("--enrol", "people", *queries) == (0, lines, err)


def test_a_given_threshold_decides_and_serves_one_person_too(people, identify):
    code, out, err = identify("--enrol", "people", "--threshold", "-1", "carl.ogg")
    assert code == 0 and out.split()[0] in ("anna", "ben") and "2 speaker(s) enrolled; threshold -1.000" in err
    assert identify("--enrol", "people", "--threshold=1", "anna.wav")[1].startswith("nobody")
    assert identify("--enrol", "strangers", "--threshold=0", "carl.ogg")[1].startswith("carl ")


def test_the_similarity_is_that_of_all_three_embeddings_in_their_spaces(people, identify):
    files = [*sorted(people.glob("anna/*")), *sorted(people.glob("ben/*")), "carl.ogg", "ben.flac", "anna.wav"]
    model = VoiceEmbedder(load("best.ckpt", ContrastiveModel).embedder)
    alone = [Batch(torch.from_numpy(read_recording(file))[None], *torch.zeros(2, 1)) for file in files]
    z = unit_length(fuse(load_spaces(Path("best.ckpt")), embed(model, alone)))
    answers = json.loads(identify("--enrol", "people", "--json", *files[8:])[1])["answers"]
    for answer, query in zip(answers, z[8:], strict=True):
        expected = {"anna": soft_maximum(z[:4] @ query), "ben": soft_maximum(z[4:8] @ query)}
        assert answer["closest"] == max(expected, key=expected.get)
        assert answer["similarity"] == pytest.approx(max(expected.values()), abs=1e-5)


def test_recordings_that_cannot_be_used_are_reported_and_the_others_answered(people, identify):
    code, out, err = identify("--enrol", "people", "--json", "nowhere.wav", "carl.ogg")
    nowhere, carl = json.loads(out)["answers"]
    assert code == 1 and "cannot be opened" in nowhere["error"] and carl["similarity"] < 1
    (people / "ben/2.flac").write_text("broken")
    (people / "zoe").mkdir()
    soundfile.write(people / "zoe/1.wav", np.zeros(8000), 16_000)
    code, out, err = identify("--enrol", "people", "carl.ogg")
    assert code == 1 and out.count("\n") == 1 and out.endswith("  carl.ogg\n")
    broken, silent, enrolled = err.splitlines()
    assert broken.startswith("people/ben/2.flac: it cannot be read as sound")
    assert silent == "people/zoe/1.wav: it is silent"
    assert enrolled.startswith("7 recordings of 2 speaker(s)")


@pytest.mark.parametrize(
    "folder, message", [("nowhere", "--enrol nowhere: no such folder"), ("strangers", "give --threshold")]
)
def test_an_error_is_one_line(people, identify, folder, message):
    code, out, _ = identify("--enrol", folder, "carl.ogg")
    assert out == "" and isinstance(code, str) and message in code and "\n" not in code


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork")
def test_the_checkpoint_of_task_2_holds_the_speaker_spaces_of_its_training_clips(
    tmp_path, monkeypatch, write_tones, run_here, capsys
):
    monkeypatch.chdir(tmp_path)
    write_tones(tmp_path / "tones", ["anna", "ben", "carl"], repetitions=2)
    run_here("task2.py", "--data-dir", "tones", "--epochs", "1", "--batch-size", "8", "--num-workers", "0")
    capsys.readouterr()
    code, out, _ = run_command(run_here, capsys, "identify", "--enrol", "tones", "tones/carl/3_carl_0.wav")
    assert code == 0 and out.startswith("carl"), "the query is among the enrolled recordings"
    path = tmp_path / "task2_contrastive/checkpoints/best.ckpt"
    embedder = VoiceEmbedder(load(path, ContrastiveModel).embedder)
    expected = fit_spaces(embed(embedder, SpokenDigits("tones").loader("train")))
    for name, space in load_spaces(path).items():
        assert np.allclose(space.covariance_, expected[name].covariance_, atol=1e-5)

"""python -m common.voice.identify: the person whose voice it is, out of those enrolled, or nobody of them."""

import json

import numpy as np
import pytest
import soundfile
import torch
from conftest import tone
from test_predict import stored

from common.checkpoints import load_encoders, store_spread
from common.data import SpokenDigits
from common.evaluate import Embeddings, embed
from common.modules import ContrastiveModel
from common.run.console import UserError
from common.speakers import equal_error_rate, unit_length
from common.voice.identify import SOFTNESS, Enrolment, choose_threshold, list_people


def enrolment(people: int = 3, clips: int = 4, seed: int = 0, width: int = 5) -> Enrolment:
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), clips)
    z = 2 * rng.normal(size=(people, width))[person] + rng.normal(size=(people * clips, width))
    return Enrolment([f"p{i}" for i in range(people)], unit_length(z), person)


def soft_maximum(values) -> float:
    return float(SOFTNESS * np.log(np.mean(np.exp(np.asarray(values) / SOFTNESS))))


# --- similarity and threshold


def test_the_similarity_to_a_person_lies_between_the_average_and_the_best():
    enrolled, queries = enrolment(), unit_length(np.random.default_rng(1).normal(size=(6, 5)))
    cosine = queries @ enrolled.z.T
    similarity = enrolled.similarity(cosine)
    assert similarity.shape == (6, 3)
    for q in range(6):
        for p in range(3):
            own = cosine[q, enrolled.person == p]
            assert similarity[q, p] == pytest.approx(soft_maximum(own))
            assert own.mean() < similarity[q, p] < own.max()


def test_the_threshold_is_found_by_asking_each_recording_without_itself_and_without_its_person():
    enrolled = enrolment(seed=3)
    known, strange = [], []
    for i, own in enumerate(enrolled.person):
        cosine = enrolled.z @ enrolled.z[i]
        others = np.arange(len(enrolled.person)) != i
        known.append(soft_maximum(cosine[others & (enrolled.person == own)]))
        strange.append(max(soft_maximum(cosine[enrolled.person == p]) for p in range(3) if p != own))
    expected = equal_error_rate(np.array(known + strange), np.array([True] * len(known) + [False] * len(strange)))
    found = enrolled.equal_errors()
    assert found.threshold == pytest.approx(expected.threshold) and found.eer == pytest.approx(expected.eer)


@pytest.mark.parametrize("people, clips", [(1, 5), (3, 1), (1, 1)])
def test_where_the_enrolled_recordings_cannot_tell_a_threshold_is_asked_for(people, clips, capsys):
    enrolled = enrolment(people, clips)
    with pytest.raises(UserError, match="--threshold"):
        choose_threshold(enrolled, None)
    assert choose_threshold(enrolled, 0.25) == 0.25


def test_somebody_with_one_recording_does_not_keep_the_others_from_a_threshold():
    enrolled = enrolment(3, 4)
    enrolled = Enrolment(
        [*enrolled.people, "one"], np.vstack([enrolled.z, enrolled.z[:1]]), np.append(enrolled.person, 3)
    )
    assert np.isfinite(enrolled.equal_errors().threshold)


# --- the command


@pytest.fixture
def people(tmp_path, monkeypatch):
    """anna speaks low and ben high, carl is a stranger; the checkpoint is untrained, its spread that of nothing."""
    monkeypatch.chdir(tmp_path)
    kinds = {"anna": ("wav", 150), "ben": ("flac", 2000), "carl": ("ogg", 700)}
    for name, (kind, frequency) in kinds.items():
        folder = tmp_path / ("strangers" if name == "carl" else "people") / name
        folder.mkdir(parents=True)
        for i in range(5):
            soundfile.write(folder / f"{i}.{kind}", tone(frequency * (1 + i / 50), 0.4, 22_050), 22_050)
    (tmp_path / "people/anna/notes.txt").write_text("no sound, and not meant to be")
    (tmp_path / "people/anna/._0.wav").write_text("hidden")
    (tmp_path / "people/readme.wav").write_text("not in a person's folder")
    (tmp_path / "people/nobody here").mkdir()
    torch.manual_seed(0)
    model = ContrastiveModel()
    torch.save(stored("contrastive", model), "best.ckpt")
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 256)).astype(np.float32)
    store_spread(tmp_path / "best.ckpt", Embeddings({"concat": z}, np.zeros(600), np.zeros(600)))
    return tmp_path


@pytest.fixture
def identify(run_here, capsys):
    def run_it(*words: str) -> tuple[object, str, str]:
        code = 0
        try:
            run_here("common/voice/identify.py", "--task2-checkpoint", "best.ckpt", *words)
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


def test_people_are_named_and_strangers_are_nobody(people, identify):
    for i in (3, 4):
        (people / f"people/anna/{i}.wav").rename(people / f"anna{i}.wav")
    (people / "people/ben/2.flac").rename(people / "ben2.flac")
    queries = ["anna3.wav", "anna4.wav", "ben2.flac"]
    code, out, err = identify("--enrol", "people", "--threshold", "-1", *queries)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["anna", "anna", "ben"]
    assert [line.split()[-1] for line in out.splitlines()] == queries
    assert "7 recordings of 2 speaker(s)" in err
    code, out, err = identify("--enrol", "people", "--json", *queries, "strangers/carl/0.ogg")
    result = json.loads(out)
    similarity = [answer["similarity"] for answer in result["answers"]]
    assert f"threshold {result['threshold']:.3f}" in err and "equal error rate" in err
    expected = [
        a["closest"] if s >= result["threshold"] else None for a, s in zip(result["answers"], similarity, strict=True)
    ]
    assert [answer["person"] for answer in result["answers"]] == expected
    between = (similarity[0] + similarity[3]) / 2
    assert similarity[3] < min(similarity[:3]), "the stranger is furthest"
    code, out, _ = identify("--enrol", "people", f"--threshold={between}", "anna3.wav", "strangers/carl/0.ogg")
    assert [line.split()[0] for line in out.splitlines()] == ["anna", "nobody"]


def test_the_embeddings_are_whitened_by_what_the_checkpoint_tells(people, identify):
    before = identify("--enrol", "people", "--json", "strangers/carl/0.ogg")[1]
    z = np.random.default_rng(1).normal(size=(600, 256)) * np.linspace(0.1, 3, 256) + 1
    store_spread(people / "best.ckpt", Embeddings({"concat": z}, np.zeros(600), np.zeros(600)))
    _, spread = load_encoders(people / "best.ckpt")
    assert np.allclose(spread.mean, z.mean(axis=0), atol=1e-5)
    assert np.allclose(spread.covariance, np.cov(z.T), atol=1e-5)
    assert identify("--enrol", "people", "--json", "strangers/carl/0.ogg")[1] != before


def test_recordings_that_cannot_be_used_are_named_and_the_others_answered(people, identify):
    (people / "people/ben/2.flac").write_text("broken")
    (people / "people/zoe").mkdir()
    soundfile.write(people / "people/zoe/1.wav", np.zeros(8000), 16_000)
    code, out, err = identify("--enrol", "people", "nowhere.wav", "strangers/carl/0.ogg")
    assert code == 1 and out.count("\n") == 1 and out.endswith("strangers/carl/0.ogg\n")
    told = err.splitlines()
    assert told[0].startswith("people/ben/2.flac: it cannot be read as sound")
    assert told[1:3] == ["people/zoe/1.wav: it is silent", "zoe: not enrolled, for none of the recordings can be used"]
    assert (
        "9 recordings of 2 speaker(s)" in told[3] and told[4] == "nowhere.wav: there is no such file" and len(told) == 5
    )


def test_only_sound_files_in_peoples_folders_are_recordings(people):
    found = list_people(people / "people")
    assert {name: [file.name for file in files] for name, files in found.items()} == {
        "anna": [f"{i}.wav" for i in range(5)],
        "ben": [f"{i}.flac" for i in range(5)],
    }


@pytest.mark.parametrize(
    "words, named",
    [
        (["--enrol", "nowhere", "a.wav"], "--enrol nowhere"),
        (["--enrol", "people/anna", "a.wav"], "--enrol people/anna: no recordings"),
        (["--enrol", "silence", "a.wav"], "none of its 1 recordings"),
        (["--enrol", "strangers", "a.wav"], "--threshold"),
        (["--enrol", "people", "--task2-checkpoint", "nowhere.ckpt", "a.wav"], "--task2-checkpoint: there is no"),
        (["--enrol", "people", "--task2-checkpoint", "plain.ckpt", "a.wav"], "does not tell how embeddings spread"),
        (["--enrol", "people", "--task2-checkpoint", "narrow.ckpt", "a.wav"], "does not tell how embeddings spread"),
        (["--enrol", "people", "--task2-checkpoint", "nan.ckpt", "a.wav"], "does not tell how embeddings spread"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(people, identify, words, named):
    (people / "silence/zoe").mkdir(parents=True)
    soundfile.write("silence/zoe/1.wav", np.zeros(8000), 16_000)
    whole = torch.load("best.ckpt", weights_only=True)
    nan = [part.clone().fill_(float("nan")) for part in whole["spread"]]
    narrow = [whole["spread"][0][:7], whole["spread"][1][:7, :7]]
    for name, spread in {"plain": None, "nan": nan, "narrow": narrow}.items():
        torch.save(whole | {"spread": spread}, f"{name}.ckpt")
    code, out, _ = identify(*words)
    assert out == "" and isinstance(code, str) and named in code and "\n" not in code


@pytest.mark.parametrize(
    "words",
    [
        ["--enrol", "people"],
        ["strangers/carl/0.ogg"],
        ["--enrol", "best.ckpt", "a.wav"],
        ["--enrol", "people", "--threshold", "2", "a.wav"],
        ["--enrol", "people", "--threshold", "nan", "a.wav"],
        ["--enrol", "people", "--threshold", "x", "a.wav"],
    ],
)
def test_wrong_arguments_end_with_code_2_and_one_line(people, identify, words):
    code, out, err = identify(*words)
    assert code == 2 and out == "" and err.count("\n") == 1


def test_help_has_an_example_and_says_where_the_threshold_comes_from(identify):
    code, out, _ = identify("--help")
    assert code == 0 and "--enrol people" in out and "equal error rate" in out


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_checkpoint_of_task_2_tells_how_its_training_clips_spread(
    tmp_path, monkeypatch, write_tones, make_args, run_here, identify, capsys
):
    monkeypatch.chdir(tmp_path)
    write_tones(tmp_path / "tones", ["anna", "ben", "carl"], repetitions=2)
    run_here("task2.py", "--data-dir", "tones", "--epochs", "1", "--batch-size", "8", "--num-workers", "0")
    (tmp_path / "best.ckpt").symlink_to("task2_contrastive/checkpoints/best.ckpt")
    data = SpokenDigits(make_args(data_dir=tmp_path / "tones"))
    model, spread = load_encoders(tmp_path / "best.ckpt")
    z = embed(model.embedder, data.loader("train")).z["concat"]
    assert np.allclose(spread.mean, z.mean(axis=0), atol=1e-5)
    assert np.allclose(spread.covariance, np.cov(z.T), atol=1e-5)
    query = "tones/carl/3_carl_0.wav"
    capsys.readouterr()
    code, out, _ = identify("--enrol", "tones", query)
    assert code == 0 and out.split() == ["carl", out.split()[1], query], "its own recording is among those enrolled"

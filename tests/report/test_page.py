"""The report of a run: one page that holds everything, shows names as they are, and says what is missing."""

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from common.corpus.clips import SYNTHETIC_NAME
from common.data import SpokenDigits
from common.evaluate import accuracy_metrics
from common.plots.figure import new_figure, save
from common.report.examples import choose_examples, write_examples
from common.report.page import write_page
from common.report.texts import TASKS
from common.run.output import write_listing, write_metrics

CORPUS = "<b>&\"'$title"
RUN = {
    "corpus": CORPUS,
    "clips": {"train": 80, "val": 20, "test": 50},
    "speakers": 6,
    "seed": 42,
    "arguments": {"data_dir": "/x/<script>alert(1)</script>"},
    "parameters": {"1d": 35136, "2d": 33088},
    "skipped": 0,
    "ignored": 0,
    "versions": {"python": "3"},
}
RESULT = accuracy_metrics("val", 18, 20) | accuracy_metrics("test", 40, 50) | {"test_loss": 0.5}
EXAMPLE = {"clip": "<i>/7_<i>_0.wav", "speaker": "<i>", "digit": 7, "heard": {"1d": 7, "2d": 1}, "wav": "UklGRg=="}
MODELS = {
    "task1_supervised": ("1d", "2d"),
    "task2_contrastive": ("1d", "untrained_1d"),
    "task4_biometrics": ("1d", "2d", "concat"),
    "task5_finetune": ("1d_frozen", "1d_finetuned", "2d_frozen", "2d_finetuned"),
}
VOID = ("meta", "link", "img", "br")


class Page(HTMLParser):
    """What a page holds; parsing fails where an element is not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open, self.words, self.elements = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == [], "all elements are closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def outputs(tmp_path) -> Path:
    """What five finished tasks leave, with small pictures."""
    save(new_figure(1, 1, "", ""), tmp_path / "picture.png")
    picture = (tmp_path / "picture.png").read_bytes()
    for task in TASKS:
        folder = tmp_path / task.directory
        folder.mkdir()
        for group in task.pictures:
            for name in group.files:
                (folder / name).write_bytes(picture)
        if task.directory in MODELS:
            write_metrics(folder, "Title", dict.fromkeys(MODELS[task.directory], RESULT), RUN)
        else:
            write_listing(folder, "Title", [], RUN)
    (tmp_path / "task1_supervised/examples.json").write_text(json.dumps([EXAMPLE]))
    return tmp_path


@pytest.fixture
def page(outputs) -> Page:
    write_page(outputs / "report.html", outputs, [])
    return Page(outputs / "report.html")


def test_the_page_holds_every_picture_and_sound_and_needs_no_network(page, outputs):
    sources = [image["src"] for image in page.all("img")]
    assert len(sources) == len(list(outputs.glob("*/*.png"))) == 4 + 2 + 9 + 4 + 12
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert base64.b64decode(sources[0].split(",")[1]) == (outputs / "picture.png").read_bytes()
    assert all(sound["src"].startswith("data:audio/wav;base64,") for sound in page.all("audio"))
    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(key) or "#").startswith(("data:", "#")), attributes
    assert page.all("script") == [] and "://" not in (outputs / "report.html").read_text(encoding="utf-8")


def test_names_are_shown_as_they_are(page):
    assert page.text.count(CORPUS) > 5 and "<script>alert(1)</script>" in page.text and "speaker <i>" in page.text
    assert page.all("b") == page.all("i") == []


def test_the_page_can_be_read_without_seeing_it(page):
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("table")) == len(page.all("caption")) == 5 and all("scope" in cell for cell in page.all("th"))
    headings = [tag for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert headings[:2] == ["h1", "h2"] and headings.count("h1") == 1
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert all(link["href"].removeprefix("#") in ids for link in page.all("a"))


def test_tables_say_what_was_measured_and_on_how_many_clips(page):
    assert "0.8000 0.670 to 0.888, n = 50" in page.text
    assert "35,136 (1D) + 33,088 (2D) encoder parameters" in page.text
    assert "1D heard 7: right" in page.text and "2D heard 1: wrong" in page.text


def test_synthetic_numbers_are_said_to_be_synthetic(outputs):
    write_metrics(outputs / "task1_supervised", "Title", {"1d": RESULT}, RUN | {"corpus": SYNTHETIC_NAME})
    write_page(outputs / "report.html", outputs, [])
    told = Page(outputs / "report.html").text
    assert "not AudioMNIST numbers" in told and "different corpora" in told


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"run": {}}'])
def test_an_unfinished_task_is_said_to_be(outputs, content):
    metrics = outputs / "task1_supervised/metrics.json"
    metrics.unlink() if content is None else metrics.write_text(content)
    (outputs / "task3_visualization/metrics.txt").unlink()
    (outputs / "task2_contrastive/probes.png").unlink()
    last = outputs / "task1_supervised/2d_checkpoints/last.ckpt"
    last.parent.mkdir()
    last.touch()
    write_page(outputs / "report.html", outputs, ["1", "2"])
    page = Page(outputs / "report.html")
    assert page.text.count("No results") == 2 and "python task1.py --resume" in page.text
    assert "python task3.py" in page.text and "probes.png is not there" in page.text
    assert len(page.all("img")) == 2 + 4 + 12 - 1, "no picture stands there without its numbers"


def test_an_empty_folder_has_a_page_too(tmp_path):
    write_page(tmp_path / "report.html", tmp_path, [])
    assert Page(tmp_path / "report.html").text.count("No results") == 5


# --- the clips to listen to


def test_examples_are_what_the_models_heard(tmp_path, write_tones, make_args, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = SpokenDigits(make_args(data_dir=write_tones(tmp_path / "tones", ["01", "02", "03"], repetitions=2)))
    digit = data.examples["test"].digit.numpy()
    write_examples(tmp_path / "examples.json", data, {"1d": digit, "2d": np.roll(digit, 2)})
    examples = json.loads((tmp_path / "examples.json").read_text())
    assert len(examples) == 8 and {example["speaker"] for example in examples} == {"03"}
    for example in examples:
        row = [clip.path for clip in data.cached.clips].index(example["clip"])
        assert example["digit"] == data.cached.clips[row].digit == example["heard"]["1d"]
        assert example["heard"]["2d"] == (example["digit"] - 1) % 10
        sound = base64.b64decode(example["wav"])
        assert sound[:4] == b"RIFF" and sound[44:] == data.cached.waves[row].tobytes()


def test_the_worst_mistakes_come_first_and_right_clips_beside_them():
    digit = np.arange(40) % 10
    heard = np.stack([digit, digit])
    heard[0, [3, 13, 23, 5, 6]] += 1
    heard[1, 6] += 1
    chosen = choose_examples(digit, heard, 8)
    assert chosen[0] == 6 and len(set(chosen)) == 8
    assert sorted(digit[chosen[:4]].tolist()) == [3, 3, 5, 6], "digits vary"
    assert not set(chosen[4:]) & {3, 13, 23, 5, 6}


@pytest.mark.parametrize("wrong, expected", [(0, 0), (1, 1), (9, 7), (10, 8)])
def test_where_there_are_few_of_a_kind_the_other_fills_up(wrong, expected):
    digit = np.arange(10)
    heard = digit.copy()
    heard[:wrong] += 1
    chosen = choose_examples(digit, heard[None], 8)
    assert len(chosen) == 8 and sum(heard[chosen] != digit[chosen]) == expected

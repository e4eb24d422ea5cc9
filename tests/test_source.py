"""What the source must not do, and what it must do in one place only."""

import re

import pytest


@pytest.fixture(scope="module")
def source(repository) -> dict[str, str]:
    files = [*repository.glob("*.py"), *(repository / "common").glob("*.py")]
    assert len(files) > 15
    return {str(path.relative_to(repository)): path.read_text() for path in files}


def places(source: dict[str, str], pattern: str) -> list[str]:
    return [f"{name}: {match[0]}" for name, text in source.items() for match in re.finditer(pattern, text)]


def test_every_checkpoint_is_read_as_weights_only(source):
    calls = places(source, r"torch\.load\([^\n]*")
    assert len(calls) >= 2
    assert all("weights_only=True" in call for call in calls)
    assert not places(source, r"weights_only\s*=\s*False|load_from_checkpoint|import pickle|allow_pickle\s*=\s*True")


def test_settings_are_not_made_by_running_text(source):
    assert not places(source, r"(?<![.\w])(exec|eval)\(")


@pytest.mark.parametrize(
    "what", [r"pl\.Trainer\(", r"inference_mode|torch\.no_grad", r"EarlyStopping|ModelCheckpoint", r"json\.dump"]
)
def test_the_tasks_share_one_trainer_one_extraction_and_one_way_to_write_metrics(source, what):
    assert not places({name: text for name, text in source.items() if name.startswith("task")}, what)


@pytest.mark.parametrize("what", [r"pl\.Trainer\(", r"\(EarlyStopping\)", r"inference_mode\(\)"])
def test_what_the_tasks_share_is_there_once(source, what):
    assert len(places(source, what)) == 1


def test_no_script_stands_beside_the_five(repository):
    assert {path.name for path in repository.glob("*.py")} == {f"task{task}.py" for task in range(1, 6)}

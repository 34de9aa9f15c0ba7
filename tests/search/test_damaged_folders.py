"""Is whatever is damaged or planted in the folder of a search named, before anything of it is believed?"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from ray import tune

from engine.errors import EngineError, RunError
from engine.recipes import Recipe, recipe_to_dict
from engine.search import Sweep, Trial, sweep
from engine.search.folder import SweepFolder
from engine.search.lineage import stages_of
from engine.search.tuning import silenced

SETTINGS = {"method.reconstruction_weight": 0.5, "method.num_segments": 2}
DEEP = "[" * 100_000
STAGE = {"until_epoch": 2, "run": "trial-0001", "settings": SETTINGS}


@pytest.fixture
def folder(make_sweep: Callable[..., Sweep], tmp_path: Path) -> Path:
    """A folder of a search with two trials."""
    definition = make_sweep()
    opened = SweepFolder(definition, definition.base(), tmp_path / "s", "auto")
    opened.note(Trial(0, SETTINGS, "finished", 2, {"validation/accuracy": 0.5}))
    opened.note(Trial(1, SETTINGS, "running", 1, {"validation/accuracy": 0.25}))
    opened.close()
    return opened.path


@pytest.fixture
def reopened(make_sweep: Callable[..., Sweep], folder: Path) -> Callable[[], dict[int, Trial]]:
    """A function: what is known of the trials when the folder is opened again."""

    def open_again() -> dict[int, Trial]:
        definition = make_sweep()
        opened = SweepFolder(definition, definition.base(), folder, "auto")
        opened.close()
        return opened.trials

    return open_again


def _line(**changes: Any) -> str:
    whole = {"number": 1, "settings": SETTINGS, "status": "finished", "epochs": 2, "metrics": {"validation/loss": 1.0}}
    values = {**whole, "error": None, "generation": 0, "lineage": [], **changes}
    return json.dumps({name: value for name, value in values.items() if value != "absent"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "the whole"),
        (DEEP, "is damaged"),
        ("{", "is damaged"),
        ('"\\ud800"', "lone surrogate"),
        (_line().replace('"number": 1', '"number": 1, "number": 0'), "the field 'number' twice"),
        (_line(number="absent"), "number"),
        (_line(number=-1), "number"),
        (_line(number=1.0), "number"),
        (_line(number=True), "number"),
        (_line(number=10**9), "number"),
        (_line(status="won"), "status"),
        (_line(epochs="2"), "epochs"),
        (_line(metrics={"validation/accuracy": "high"}), "metrics.validation/accuracy"),
        (_line(metrics=[]), "metrics"),
        (_line(error=3), "error"),
        (_line(extra=1), "extra"),
        (_line(settings={}), r"settings: has other fields than the search \('method\.num_segments"),
        (_line(settings={**SETTINGS, "epochs": 3}), r"other fields than the search \('epochs'\)"),
        (_line(settings={**SETTINGS, "method.num_segments": 4}), "method.num_segments=4 is none of its values"),
        (_line(settings={**SETTINGS, "method.num_segments": True}), "method.num_segments=True is none"),
        (_line(settings={**SETTINGS, "method.reconstruction_weight": "a"}), "method.reconstruction_weight='a' is none"),
        (_line(lineage=[{**STAGE, "run": "../../elsewhere"}]), "lineage.0.run"),
        (_line(lineage=[{**STAGE, "run": "/tmp"}]), "lineage.0.run"),
        (_line(lineage=[{**STAGE, "until_epoch": -1}]), "lineage.0.until_epoch"),
        (_line(lineage=[{**STAGE, "until_epoch": 3}]), "lineage and epochs=2 contradict each other"),
        (_line(lineage=[STAGE, STAGE]), "lineage and epochs=2 contradict each other"),
        (_line(lineage=[{**STAGE, "settings": {}}]), "settings: has other fields"),
    ],
    ids=range(27),
)
def test_a_line_that_says_what_cannot_be_is_named(folder: Path, reopened: Any, line: str, said: str) -> None:
    log = folder / "trials.jsonl"
    before = log.read_text()
    log.write_text(f"{before.splitlines()[0]}\n{line}\n{before}")
    with pytest.raises(RunError, match=rf"trials\.jsonl: line 2: .*{said}"):
        reopened()
    # Nothing has been changed, and the folder is free again.
    log.write_text(before)
    assert sorted(reopened()) == [0, 1]


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "{}", DEEP, "\0", '{"name": 3}', '{"name": "tiny", "name": "tiny"}'], ids=range(8)
)
def test_a_damaged_definition_is_named(folder: Path, reopened: Any, text: str) -> None:
    (folder / "sweep.json").write_text(text)
    with pytest.raises(RunError, match=r"s/sweep\.json: "):
        reopened()
    assert (folder / "sweep.json").read_text() == text


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _as_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_large(path: Path) -> None:
    os.truncate(path, 20 * 2**30)


@pytest.mark.parametrize("spoil", [_as_pipe, _as_link, _as_folder, _as_large])
@pytest.mark.parametrize("name", ["sweep.json", "trials.jsonl"])
def test_what_is_no_file_of_the_folder_is_refused(folder: Path, reopened: Any, name: str, spoil: Any) -> None:
    spoil(folder / name)
    with pytest.raises(RunError, match=rf"s/{name}: "):
        reopened()


@pytest.mark.parametrize("name", ["trials", "trials/trial-0000", "trials/trial-0003-from-epoch-2"])
def test_no_link_to_other_runs_is_followed(folder: Path, reopened: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(tmp_path / "other")
    with pytest.raises(RunError, match=rf"{name}: is no folder, or a symbolic link to one"):
        reopened()


@pytest.mark.parametrize("name", [".lock", "tune.txt", "trials.jsonl"])
def test_a_link_in_a_file_s_place_costs_its_target_nothing(
    folder: Path, make_sweep: Callable[..., Sweep], tmp_path: Path, name: str
) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    target.chmod(0o600)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    with pytest.raises(RunError, match=name):
        definition = make_sweep()
        opened = SweepFolder(definition, definition.base(), folder, "auto")
        with silenced(opened.path / "tune.txt"):
            print("from Ray Tune")
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("mine", 0o600)


def test_what_ray_tune_left_behind_is_removed(folder: Path, reopened: Any, tmp_path: Path) -> None:
    (folder / ".tune" / "tune").mkdir(parents=True)
    (folder / ".tune" / "tune" / "result.json").touch()
    reopened()
    assert not (folder / ".tune").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    (folder / ".tune").symlink_to(tmp_path / "other")
    reopened()
    assert not (folder / ".tune").is_symlink() and (tmp_path / "other" / "precious").exists()


def test_a_second_command_is_told_at_once_who_searches(folder: Path, make_sweep: Callable[..., Sweep]) -> None:
    definition = make_sweep()
    held = SweepFolder(definition, definition.base(), folder, "auto")
    # Images that do not exist: they are not looked at first.
    missing = make_sweep(fields=("data.root=nowhere",))
    with pytest.raises(RunError, match=rf"another process is searching in this folder \(process {os.getpid()} on "):
        sweep(missing, run_dir=folder)
    held.close()


def test_a_folder_that_cannot_be_is_refused_before_images_are_looked_at(
    make_sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = make_sweep(fields=("data.root=nowhere",))
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"--run-dir=.*/file/s: .*/file is no folder"):
        sweep(missing, run_dir=tmp_path / "file" / "s")
    with pytest.raises(RunError, match="the home folder of ~nobody-of-this-name is not known"):
        sweep(missing, run_dir="~nobody-of-this-name/s")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(RunError, match=r"--run-dir=.*/file/s: .*/file is no folder"):
        sweep(missing, run_dir="~/s")


@pytest.fixture
def lineage(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> dict[str, Any]:
    """What a lineage.json holds; the file is in the folder of the test."""
    stage = {"run": "trial-0001", "step": 4, "weights_sha256": "0" * 64, "recipe": recipe_to_dict(tiny_recipe())}
    found = {"stages": [stage], "checkpoint": {"folder": "/x", "manifest_sha256": "0" * 64}}
    (tmp_path / "lineage.json").write_text(json.dumps(found))
    assert len(stages_of(tmp_path)) == 1
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("stages",), [], "stages"),
        (("stages",), {}, "stages"),
        (("stages", 0, "step"), "4", "stages.0.step"),
        (("stages", 0, "step"), 0, "stages.0.step"),
        (("stages", 0, "run"), "../x", "stages.0.run"),
        (("stages", 0, "weights_sha256"), "none", "stages.0.weights_sha256"),
        (("stages", 0, "recipe"), {}, "stages.0.recipe: "),
        (("stages", 0, "recipe", "epochs"), -1, "stages.0.recipe: epochs"),
        (("checkpoint",), None, "checkpoint"),
        (("checkpoint", "folder"), 3, "checkpoint.folder"),
    ],
)
def test_a_damaged_lineage_is_named_by_field(
    lineage: Any, tmp_path: Path, place: tuple[Any, ...], value: Any, said: str
) -> None:
    inner = lineage
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    (tmp_path / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(RunError, match=rf"lineage\.json: .*{said}"):
        stages_of(tmp_path)


def test_stages_that_do_not_follow_one_another_are_named(lineage: Any, tmp_path: Path) -> None:
    lineage["stages"] *= 2
    (tmp_path / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(RunError, match=r"lineage\.json: stages end at the steps \[4, 4\]"):
        stages_of(tmp_path)


@pytest.mark.slow
@seed(20)
@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_folders_with_flipped_and_missing_bytes_are_read_or_refused(
    folder: Path, reopened: Any, lineage: Any, tmp_path: Path, data: st.DataObject
) -> None:
    paths = [folder / "sweep.json", folder / "trials.jsonl", tmp_path / "lineage.json"]
    whole = {path: path.read_bytes() for path in paths}
    path = data.draw(st.sampled_from(paths))
    content = bytearray(whole[path])
    kind = data.draw(st.sampled_from(["flip", "cut", "delete", "insert"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = data.draw(st.sampled_from([b"\0", b"\xff", b"[" * 5000, b'"', b"9" * 5000, b"1e999"]))
    outside = sorted(tmp_path.iterdir())
    try:
        path.unlink()
        if kind != "delete":
            path.write_bytes(bytes(content))
        for read in (reopened, lambda: stages_of(tmp_path)):
            said = path.name
            try:
                read()
            except EngineError as error:
                said = str(error)
            assert path.name in said or "holds another search" in said
        assert set(tmp_path.iterdir()) - set(outside) == set()
    finally:
        for each, before in whole.items():
            each.write_bytes(before)


@pytest.mark.slow
def test_a_finished_trial_whose_folder_is_damaged_is_not_passed_over(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    """With ASHA what has ended is reported once more: a file that cannot be read must not make it a failure."""
    definition = make_sweep(
        space={"seed": tune.grid_search([0, 1])},
        searcher="grid",
        scheduler="asha",
        fields=("epochs=1", "method.num_segments=1"),
    )
    first = sweep(definition, run_dir=tmp_path / "s")
    assert first.status == "finished"
    (tmp_path / "s" / "trials" / "trial-0000" / "metrics.jsonl").write_text("hello\n")
    log = (tmp_path / "s" / "trials.jsonl").read_text()
    with pytest.raises(RunError, match="trial-0000: could not be read once more: .*metrics"):
        sweep(definition, run_dir=tmp_path / "s")
    assert (tmp_path / "s" / "trials.jsonl").read_text() == log

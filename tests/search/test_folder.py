"""Do the trials of a search outlive the process that drives it, in a folder that is of this search alone?"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from engine.errors import NotWritten, RecipeError, RunError
from engine.recipes import Recipe
from engine.search import Sweep, SweepConsole, Trial, load_sweep
from engine.search.driver import _concluded
from engine.search.folder import SweepFolder
from engine.search.stopping import Stop
from engine.training.environment import describe_environment

USUAL = {"epochs": 3, "data.root": None}
TRIALS = [
    Trial(0, {"epochs": 3, "data.root": None}, "finished", 3, {"validation/accuracy": 0.5, "memory_bytes": 10.0}),
    Trial(2, {"epochs": 5, "data.root": "a,b"}, "pruned", 1, {"validation/accuracy": math.nan}),
    Trial(1, {"epochs": 9, "data.root": [1, True]}, "failed", 0, {}, "Boom: \u2028 ü \n and more"),
    Trial(3, {"epochs": 9, "data.root": ""}, "running", 2, {"validation/loss": math.nan}),
]


def _values(trials: dict[int, Trial]) -> str:
    """All that is known of trials; in words, as NaN is not equal to itself."""
    return repr(trials)


def test_trials_come_back_as_they_were_noted(opened: Callable[..., SweepFolder]) -> None:
    folder = opened()
    assert folder.trials == {}
    folder.note(Trial(0, {"epochs": 3, "data.root": None}, "running"))
    for trial in TRIALS:
        folder.note(trial)
    folder.close()
    again = opened()
    assert _values(again.trials) == _values(folder.trials)
    assert again.trials[0] == TRIALS[0]
    assert [again.trials[number].name for number in (0, 3)] == ["trial-0000", "trial-0003"]
    assert again.run_dir(TRIALS[1]) == folder.path / "trials" / "trial-0002"
    again.close()


def test_infinity_is_kept_out_of_json(opened: Callable[..., SweepFolder]) -> None:
    folder = opened()
    folder.note(Trial(0, USUAL, "finished", 1, {"validation/loss": math.inf}))
    folder.close()

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    json.loads((folder.path / "trials.jsonl").read_text(), parse_constant=refuse)
    again = opened()
    assert not math.isfinite(again.trials[0].metrics["validation/loss"])
    again.close()


def test_what_is_noted_is_seen_by_another_process_at_once(opened: Callable[..., SweepFolder]) -> None:
    folder = opened()
    folder.note(TRIALS[0])
    assert json.loads((folder.path / "trials.jsonl").read_text())["status"] == "finished"
    folder.close()


@pytest.mark.parametrize("kept", [1, 20, -2])
def test_a_line_torn_by_a_kill_is_left_out(opened: Callable[..., SweepFolder], kept: int) -> None:
    folder = opened()
    for trial in TRIALS[:2]:
        folder.note(trial)
    folder.close()
    log = folder.path / "trials.jsonl"
    first, second = log.read_text().splitlines()
    log.write_text(f"{first}\n{second[:kept]}")
    again = opened()
    assert again.trials == {0: TRIALS[0]}
    # What is noted after that stands on lines of its own.
    for trial in (TRIALS[2], TRIALS[3]):
        again.note(trial)
    again.close()
    last = opened()
    assert _values(last.trials) == _values({trial.number: trial for trial in (TRIALS[0], TRIALS[2], TRIALS[3])})
    last.close()


def test_a_line_that_is_whole_but_for_its_end_does_not_swallow_the_next(opened: Callable[..., SweepFolder]) -> None:
    folder = opened()
    folder.note(TRIALS[0])
    folder.close()
    log = folder.path / "trials.jsonl"
    log.write_text(log.read_text().rstrip("\n"))
    again = opened()
    again.note(TRIALS[1])
    again.close()
    last = opened()
    assert sorted(last.trials) == [0, 2]
    last.close()


def test_a_damaged_line_in_the_middle_is_refused(opened: Callable[..., SweepFolder]) -> None:
    folder = opened()
    for trial in TRIALS:
        folder.note(trial)
    folder.close()
    log = folder.path / "trials.jsonl"
    whole = log.read_text()
    lines = whole.splitlines()
    log.write_text("\n".join([lines[0], lines[1][:-5], *lines[2:]]) + "\n")
    words = r"trials\.jsonl: line 2: is damaged: .*; bring back a whole copy of it, or give another"
    with pytest.raises(RunError, match=words):
        opened()
    # The refusal lets go of the folder.
    log.write_text(whole)
    opened().close()


def test_a_new_search_stands_beside_the_old_one(opened: Callable[..., SweepFolder], tmp_path: Path) -> None:
    for name in ("s", "s-2", "s-3"):
        folder = opened(resume="never")
        assert folder.path == tmp_path / name and folder.trials == {}
        folder.note(TRIALS[0])
        folder.close()
    # Without "never" it is the first one that goes on, whatever its size.
    again = opened(num_samples=99)
    assert again.path == tmp_path / "s" and list(again.trials) == [0]
    again.close()


def test_a_folder_that_holds_something_else_is_refused(opened: Callable[..., SweepFolder], tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".hidden").touch()
    opened().close()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("hello")
    with pytest.raises(RunError, match=r"holds files but no sweep\.json"):
        opened(path=tmp_path / "mine")
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "file").touch()
    for resume in ("auto", "never"):
        with pytest.raises(RunError):
            opened(path=tmp_path / "file", resume=resume)


def test_only_one_process_searches_in_a_folder(opened: Callable[..., SweepFolder]) -> None:
    folder = opened()
    said = rf"another process is searching in this folder \(process {os.getpid()} on .+ since 20.+\); wait for it"
    with pytest.raises(RunError, match=said):
        opened()
    folder.close()
    opened().close()


def test_a_dead_process_holds_no_folder(opened: Callable[..., SweepFolder]) -> None:
    folder = opened()
    folder.close()
    holds = "import fcntl, os, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", holds, str(folder.path / ".lock")]).returncode == -9
    opened().close()


def test_a_folder_that_cannot_be_written_is_named(opened: Callable[..., SweepFolder], tmp_path: Path) -> None:
    folder = opened()
    (folder.path / "trials.jsonl").mkdir()
    with pytest.raises(RunError, match=r"trials\.jsonl"):
        folder.note(TRIALS[0])
    folder.close()


@pytest.mark.parametrize("name", ["sweep.json", "trials.jsonl"])
def test_a_disk_that_is_full_or_read_only_when_a_search_begins(
    opened: Callable[..., SweepFolder], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened()
    folder.note(TRIALS[0])
    folder.close()
    # What a kill left half written is cut off.
    with (folder.path / "trials.jsonl").open("a") as file:
        file.write("{")
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)
        with pytest.raises(NotWritten, match=f"{name}: the disk is full"):
            opened()
    again = opened()
    assert list(again.trials) == [0]
    again.close()


def test_files_that_have_changed_since_trials_were_trained_are_told(
    make_sweep: Callable[..., Sweep], tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    net = tmp_path / "net.py"
    net.write_text("def network(num_classes, image_shape): ...")
    base = tiny_recipe(method={"kind": "end_to_end"}, backbone={"name": f"{net}:network", "widths": None})
    sweep = make_sweep(recipe=base, space={"seed": tune.randint(0, 9)}, num_samples=5)
    folder = SweepFolder(sweep, base, tmp_path / "s", "auto")
    for number, status in enumerate(["pruned", "failed", "running", "pruned"]):
        trial = Trial(number, {"seed": number}, status)
        folder.note(trial)
        folder.run_dir(trial).mkdir(parents=True)
        (folder.run_dir(trial) / "environment.json").write_text(json.dumps(describe_environment(base)))
        if number == 2:
            net.write_text("def network(num_classes, image_shape, depth=3): ...")
    result = _concluded(sweep, base, folder, 1, SweepConsole(io.StringIO()), Stop())
    assert result.warnings == (
        f"{net} has changed since these trials were trained, which are not repeated (trial-0000, trial-0001); --resume "
        "never searches anew",
    )
    assert f"\n{result.warnings[0]}.\n" in (folder.path / "sweep.md").read_text()
    folder.close()


def test_what_a_killed_search_left_is_removed(opened: Callable[..., SweepFolder]) -> None:
    folder = opened()
    folder.close()
    left = folder.path / ".sweep.md.4711.tmp"
    left.write_text("half")
    os.utime(left, (0, 1_000_000_000))
    opened().close()
    assert not left.exists()


def test_a_folder_of_which_nothing_can_be_told(
    opened: Callable[..., SweepFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="--run-dir: x+... is a name of 300 bytes"):
        opened(path=tmp_path / ("x" * 300))

    def closed(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "closed").mkdir()
    for step in ("engine.paths.os.stat", "engine.training.folder.os.listdir"):
        with monkeypatch.context() as disk:
            disk.setattr(step, closed)
            with pytest.raises(RunError, match=f"{tmp_path}/closed: .*Permission denied"):
                opened(path=tmp_path / "closed")
    folder = opened()
    folder.close()
    (folder.path / "trials").touch()
    with pytest.raises(RunError, match="s/trials: .*remove it"):
        opened()


def test_a_file_of_a_search_of_which_nothing_can_be_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="SWEEP: x+... is a name of 303 bytes"):
        load_sweep(f"{tmp_path}/{'x' * 300}.py")
    (tmp_path / "loop.py").symlink_to("loop.py")
    with pytest.raises(RecipeError, match=r"loop\.py"):
        load_sweep(f"{tmp_path}/loop.py")

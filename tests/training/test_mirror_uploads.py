"""Is what is new sent to a mirror once, in an order that keeps the copy whole, and again where that has failed?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.checkpoints import newest_checkpoint
from engine.recipes import Recipe
from engine.tracking import read_metrics
from tests.training.mirrored_runs import Bucket, Told, files, held, mirrored, train

TinyRecipe = Callable[..., Recipe]
Interrupt = Callable[[int], None]


def test_the_copy_in_a_folder_can_be_opened_and_is_complete(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    train(tiny_recipe(), mirrored(str(tmp_path / "copy")), tmp_path / "run")
    assert files(tmp_path / "copy") == files(tmp_path / "run")
    assert engine.load(tmp_path / "copy").checkpoint.step == 8


def repeatable(folder: Path, last: int) -> list[tuple[Any, ...]]:
    """Return all records until a step; times and what follows from them differ between two runs, not in a copy."""
    return [(r.step, r.learner, r.split, r.name, r.value) for r in read_metrics(folder) if r.step <= last]


def test_after_every_single_write_or_removal_the_copy_is_whole_or_seen_not_to_be(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    """Keeps the bucket as it is before each change to it, which is what a machine leaves that is lost just then."""
    states: list[dict[str, bytes]] = []

    def note(what: str, name: str) -> None:
        if what in ("write", "copy", "delete"):
            states.append(held(bucket))

    bucket.fail = note
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    steps = []
    for number, state in enumerate([*states, held(bucket)]):
        folder = tmp_path / f"state{number}"
        for name, content in state.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        checkpoint, skipped = newest_checkpoint(folder / "checkpoints")
        assert all("has no MANIFEST.json, so it was never finished" in line for line in skipped)
        steps.append(checkpoint.step if checkpoint is not None else 0)
        if checkpoint is not None:
            assert engine.load(folder).recipe == tiny_recipe()
            assert repeatable(folder, checkpoint.step) == repeatable(tmp_path / "run", checkpoint.step)
        if (folder / "summary.json").exists():
            assert steps[-1] == 8
    assert steps == sorted(steps)
    assert set(steps) == {0, 2, 4, 6, 8}


def test_a_manifest_is_the_last_of_its_checkpoint_and_metrics_come_before_it(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    written = bucket.written()
    assert written[:2] == [".probe", "recipe.json"]
    for step in (2, 4, 6, 8):
        folder = f"checkpoints/step-{step:06d}/"
        places = [place for place, name in enumerate(written) if name.startswith(folder)]
        assert written[places[-1]] == f"{folder}MANIFEST.json"
        assert "metrics.jsonl" in written[places[0] : places[-1]]
    assert "summary.json" in written[places[-1] :]
    # Nothing is sent again that has not changed.
    assert written.count("environment.json") == written.count("recipe.json") == 1
    assert len([name for name in written if name.startswith("checkpoints/")]) == 4 * len(
        [name for name in written if name.startswith("checkpoints/step-000002/")]
    )


def test_checkpoints_that_are_removed_here_are_removed_there(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    train(tiny_recipe(), mirrored("s3://bucket/run", keep_checkpoints=1), tmp_path / "run")
    assert bucket.checkpoints() == {"step-000008"}
    assert held(bucket) == files(tmp_path / "run")
    deleted = [name.removeprefix("bucket/run/") for what, name in bucket.done if what == "delete"]
    assert deleted[1:3] == ["checkpoints/step-000002/MANIFEST.json", "checkpoints/step-000002"]


def test_a_mirror_that_fails_for_a_while_is_told_and_made_up_for(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, at_step: Callable[[int, Callable[[], None]], None]
) -> None:
    def refuse(what: str, name: str) -> None:
        if what == "write" and "step-000004" in name:
            bucket.fail = lambda what, name: None
            raise OSError("SLOW_DOWN: please reduce your request rate")

    bucket.fail = refuse
    told = Told()
    result = train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run", told)
    assert result.status == "finished"
    warnings = [line for line in told.lines if "plan.mirror" in line]
    assert len(warnings) == 1
    assert "lacks what is new at step 4" in warnings[0]
    assert "SLOW_DOWN" in warnings[0]
    assert "tried again after the next checkpoint" in warnings[0]
    assert warnings[0] in (tmp_path / "run" / "log.txt").read_text()
    assert held(bucket).keys() == files(tmp_path / "run").keys()
    assert bucket.checkpoints() == {"step-000006", "step-000008"}


def test_what_a_mirror_lacks_at_the_end_is_sent_when_the_command_is_given_again(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    def refuse(what: str, name: str) -> None:
        if name != "bucket/run/.probe" and what != "list":
            raise OSError("no route to host")

    bucket.fail = refuse
    told = Told()
    assert train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run", told).status == "finished"
    assert "no route to host); give the same command again when the mirror can be reached" in told.lines[-1]
    assert held(bucket) == {}
    bucket.fail = lambda what, name: None
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    assert held(bucket) == files(tmp_path / "run")


def test_a_failed_run_leaves_its_log_in_the_mirror(
    bucket: Bucket,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    at_step: Callable[[int, Callable[[], None]], None],
) -> None:
    def fail() -> None:
        raise engine.LearnerError("segment0", "is out of memory")

    at_step(6, fail)
    with pytest.raises(engine.LearnerError):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    assert b"failed: learner segment0: is out of memory" in held(bucket)["log.txt"]


def test_the_same_machine_goes_on_and_sends_only_what_the_mirror_lacks(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(4)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    bucket.done.clear()
    interrupt_at(0)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    assert not [name for name in bucket.written() if "step-000002" in name or "step-000004" in name]
    assert held(bucket) == files(tmp_path / "run")


def test_files_that_were_being_sent_when_a_run_was_killed_are_removed(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    mirror = tmp_path / "mirror"
    interrupt_at(2)
    train(tiny_recipe(), mirrored(str(mirror)), tmp_path / "run")
    left = [mirror / ".metrics.jsonl.99999999.tmp", mirror / "checkpoints" / "step-000002" / ".a.99999999.tmp"]
    for path in left:
        path.write_bytes(b"part")
        os.utime(path, (1, 1))
    interrupt_at(0)
    train(tiny_recipe(), mirrored(str(mirror)), tmp_path / "run")
    assert not [path for path in left if path.exists()]

"""Does a run go on elsewhere from its mirror, bit for bit, and does a fetch that is cut off leave nothing behind?"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine.data.remote.fetching import fetched_aside
from engine.recipes import GKT, Recipe
from engine.tracking import read_metrics
from tests.training.mirrored_runs import PLAN, Bucket, files, mirrored, train

TinyRecipe = Callable[..., Recipe]
Interrupt = Callable[[int], None]
SameRun = Callable[[Path, Path], None]


@pytest.mark.parametrize("stops", [(2,), (3, 5)])
def test_another_machine_goes_on_bit_for_bit(
    stops: tuple[int, ...],
    address: str,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    interrupt_at: Interrupt,
    assert_same_run: SameRun,
) -> None:
    straight = train(tiny_recipe(), PLAN, tmp_path / "straight")
    for machine, stop in enumerate(stops):
        interrupt_at(stop)
        result = train(tiny_recipe(), mirrored(address), tmp_path / f"machine{machine}")
        assert (result.status, result.steps) == ("interrupted", stop)
    interrupt_at(0)
    last = train(tiny_recipe(), mirrored(address), tmp_path / "last")
    assert (last.status, last.weights_sha256) == ("finished", straight.weights_sha256)
    assert last.metrics == straight.metrics
    assert_same_run(tmp_path / "straight", tmp_path / "last")
    # The copy is a run folder itself, and the next machine has nothing left to do.
    again = train(tiny_recipe(), mirrored(address), tmp_path / "again")
    assert again.weights_sha256 == straight.weights_sha256
    assert files(tmp_path / "again") == files(tmp_path / "last")


@pytest.mark.parametrize("crash", [1, 3, 5, 8])
def test_a_machine_that_is_gone_at_any_step_is_followed_by_another(
    crash: int,
    bucket: Bucket,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    at_step: Callable[[int, Callable[[], None]], None],
    assert_same_run: SameRun,
) -> None:
    train(tiny_recipe(), PLAN, tmp_path / "straight")

    def vanish() -> None:
        def gone(what: str, name: str) -> None:
            raise OSError("this machine is gone")

        bucket.fail = gone
        raise OSError("the power went out")

    at_step(crash, vanish)
    with pytest.raises(Exception, match="the power went out"):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "gone")
    bucket.fail = lambda what, name: None
    at_step(0, vanish)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "next")
    assert_same_run(tmp_path / "straight", tmp_path / "next")


def test_a_store_that_a_checkpoint_shares_with_the_one_before_is_copied_where_it_is(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt, assert_same_run: SameRun
) -> None:
    recipe = tiny_recipe(method=GKT())
    train(recipe, PLAN, tmp_path / "straight")
    interrupt_at(7)
    train(recipe, mirrored("s3://bucket/run"), tmp_path / "first")
    copied = [name for what, name in bucket.done if what == "copy"]
    assert copied
    assert all(".knowledge-" in name for name in copied)
    interrupt_at(0)
    train(recipe, mirrored("s3://bucket/run"), tmp_path / "second")
    assert_same_run(tmp_path / "straight", tmp_path / "second")


def test_later_checkpoints_of_the_mirror_go_before_metrics_that_do_not_reach_them(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt, assert_same_run: SameRun
) -> None:
    train(tiny_recipe(), PLAN, tmp_path / "straight")
    interrupt_at(6)
    train(tiny_recipe(), mirrored("s3://bucket/run", keep_checkpoints=9), tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-000006" / "segment1.safetensors").write_bytes(b"torn")
    bucket.done.clear()
    interrupt_at(5)
    train(tiny_recipe(), mirrored("s3://bucket/run", keep_checkpoints=9), tmp_path / "run")
    deeds = [(what, name.removeprefix("bucket/run/")) for what, name in bucket.done]
    assert deeds.index(("delete", "checkpoints/step-000006")) < deeds.index(("write", "metrics.jsonl"))
    interrupt_at(0)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "next")
    assert "(step 5 of 8)" in (tmp_path / "next" / "log.txt").read_text()
    assert_same_run(tmp_path / "straight", tmp_path / "next")


def test_an_interrupted_fetch_leaves_no_run_folder(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(3)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first")

    def refuse(what: str, name: str) -> None:
        if what == "read" and name.endswith("segment1.safetensors"):
            raise OSError("connection reset by peer")

    bucket.fail = refuse
    interrupt_at(0)
    with pytest.raises(engine.PlanError, match=r"^plan.mirror=s3://bucket/run: connection reset by peer; check"):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "second")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    bucket.fail = lambda what, name: None
    assert train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "second").status == "finished"


def test_a_run_without_a_mirror_is_the_same_run(
    tmp_path: Path, tiny_recipe: TinyRecipe, assert_same_run: SameRun
) -> None:
    train(tiny_recipe(), PLAN, tmp_path / "plain")
    train(tiny_recipe(), mirrored(str(tmp_path / "copy")), tmp_path / "mirrored")
    assert_same_run(tmp_path / "plain", tmp_path / "mirrored")
    assert len(read_metrics(tmp_path / "copy")) == len(read_metrics(tmp_path / "plain"))


def test_what_a_killed_fetch_left_is_removed_by_the_next_one(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(3)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first")
    left, held_by_another, of_another = (
        tmp_path / name for name in (".second.123.fetched", ".second.124.fetched", ".second.b.125.fetched")
    )
    for folder in (left, held_by_another, of_another):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "part").write_bytes(b"part")
    descriptor = os.open(held_by_another, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        interrupt_at(0)
        assert train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "second").status == "finished"
    finally:
        os.close(descriptor)
    assert not left.exists()
    assert (held_by_another / "checkpoints" / "part").exists()
    assert (of_another / "checkpoints" / "part").exists()


def test_a_fetch_locks_what_it_writes(tmp_path: Path) -> None:
    """So that no other process takes it for left behind."""
    with fetched_aside(tmp_path / "run") as aside:
        (aside / "part").touch()
        other = os.open(aside, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)
    assert list(tmp_path.iterdir()) == []

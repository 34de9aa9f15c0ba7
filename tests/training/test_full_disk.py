"""Is a full disk named, and does the same command go on once there is space again?"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.recipes import Recipe, Recovery
from engine.training import load

TinyRecipe = Callable[..., Recipe]
IN_PROCESS = engine.Plan(executor="process")
AT_ONCE = Recovery(checkpoint_patience_seconds=0.0)


@pytest.mark.parametrize("fails_at", range(3))
def test_a_disk_that_is_full_from_the_start(
    fails_at: int, tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once there is space again, the same command must take the folder for its own."""
    syncs = 0

    def full(_: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("engine.atomic.os.fsync", full)
        with pytest.raises(engine.RunError, match="the disk is full") as caught:
            engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path).status == "finished"


def test_a_disk_that_gets_full_at_a_checkpoint(
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    monkeypatch: pytest.MonkeyPatch,
    assert_same_run: Callable[[Path, Path], None],
) -> None:
    plan = engine.Plan(executor="process", checkpoint_every_steps=2, recovery=AT_ONCE)
    engine.train(tiny_recipe(), plan, tmp_path / "straight")
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if "step-000006" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(engine.RunError, match=r"step-000006.*the disk is full"):
            engine.train(tiny_recipe(), plan, tmp_path / "full")
    assert load(tmp_path / "full").checkpoint.step == 4
    assert engine.train(tiny_recipe(), plan, tmp_path / "full").status == "finished"
    assert_same_run(tmp_path / "straight", tmp_path / "full")


def test_a_disk_that_gets_full_at_a_report(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = engine.Plan(executor="process", report_every_steps=3, checkpoint_every_steps=2, recovery=AT_ONCE)
    with monkeypatch.context() as patched:
        patched.setattr("engine.atomic.os.write", full)
        with pytest.raises(engine.RunError, match="the disk is full") as caught:
            engine.train(tiny_recipe(), plan, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert load(tmp_path).checkpoint.step == 2
    assert engine.train(tiny_recipe(), plan, tmp_path).status == "finished"

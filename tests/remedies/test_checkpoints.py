"""Does what is said of a training that ended, or of what is left of one, lead to the same result, and lose nothing?"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import tempfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import engine
from engine.checkpoints import read_checkpoint
from engine.errors import GOES_ON, LearnerLost, RayEnded
from engine.knowledge import KnowledgeStore
from engine.recipes import Plan, Recipe, Recovery
from engine.runtimes.process import ProcessRuntime
from engine.search import begin_from, replay
from engine.training.session import Session
from tests.conftest import make_tiny_recipe

TinyRecipe = Callable[..., Recipe]
Refused = Callable[..., re.Match[str]]
At = Callable[[int, Callable[[], None]], None]

# 8 steps; a checkpoint after every second one.
PLAN = Plan(executor="process", checkpoint_every_steps=2, recovery=Recovery(max_failures=0))


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out curves.png, which takes longer than the training."""
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> At:
    """A function: training step, from 1, and what happens when it is submitted, once."""

    def arrange(step: int, happen: Callable[[], None]) -> None:
        submit, made = ProcessRuntime.submit, [0]

        def counted(runtime: ProcessRuntime, program: Any, batch: Any) -> None:
            made[0] += not program.name.startswith(("evaluation", "recalibration"))
            if made[0] == step:
                made[0] += 1
                happen()
            submit(runtime, program, batch)

        monkeypatch.setattr(ProcessRuntime, "submit", counted)

    return arrange


def raising(error: Exception) -> Callable[[], None]:
    """Return a function that raises an error."""

    def happen() -> None:
        raise error

    return happen


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> engine.Result:
    """What comes out of the same training if nothing happens to it."""
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr("engine.training.by_products.plot_curves", lambda *_: None)
        return engine.train(make_tiny_recipe(), PLAN, tmp_path_factory.mktemp("straight") / "run")


@pytest.mark.parametrize(
    ("error", "step", "says"),
    [
        (RayEnded("its raylet died"), 5, "the newest checkpoint is whole; the same command goes on from it"),
        (LearnerLost("segment0", f"its process died ({GOES_ON})"), 5, "whole; the same command goes on from it"),
        (LearnerLost("segment0", f"its process died ({GOES_ON})"), 1, "no checkpoint yet; the same command begins"),
        (RayEnded("its raylet died"), 1, "there is no checkpoint yet; the same command begins again"),
    ],
)
def test_a_training_that_ended_without_fault_of_the_user(
    error: Exception,
    step: int,
    says: str,
    straight: engine.Result,
    at_step: At,
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    refused: Refused,
) -> None:
    at_step(step, raising(error))
    refused(says, lambda: engine.train(tiny_recipe(), PLAN, tmp_path / "run"))
    result = engine.train(tiny_recipe(), PLAN, tmp_path / "run")
    assert result.weights_sha256 == straight.weights_sha256
    assert ("goes on from" in (tmp_path / "run" / "log.txt").read_text()) == (step > 2)


def test_a_training_that_could_not_begin(
    straight: engine.Result,
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Session, "start", lambda session: raising(RayEnded("its raylet died"))())
        says = "this command has trained nothing; the same command tries again"
        refused(says, lambda: engine.train(tiny_recipe(), PLAN, tmp_path / "run"))
    assert engine.train(tiny_recipe(), PLAN, tmp_path / "run").weights_sha256 == straight.weights_sha256


def test_a_team_that_could_not_be_started_again(
    straight: engine.Result,
    at_step: At,
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = dataclasses.replace(PLAN, recovery=Recovery(max_failures=1, wait_seconds=0.1))
    ended = RayEnded("its raylet died")
    with monkeypatch.context() as broken:

        def happen() -> None:
            broken.setattr(Session, "start", lambda session: raising(ended)())
            raise ended

        at_step(5, happen)
        says = r"within plan.recovery.wait_seconds=0.1: .*the same command goes on from it"
        refused(says, lambda: engine.train(tiny_recipe(), plan, tmp_path / "run"))
    assert engine.train(tiny_recipe(), plan, tmp_path / "run").weights_sha256 == straight.weights_sha256
    assert "(step 4 of 8)" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("code", "patience", "says"),
    [
        (
            errno.ENOSPC,
            0.0,
            "is full; free some space and give the same command again: a training goes on from its newest",
        ),
        (errno.EROFS, 1e-9, "make it writable and give the same command again: a training goes on from its newest"),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_nothing(
    code: int,
    patience: float,
    says: str,
    straight: engine.Result,
    at_step: At,
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synced, folder = os.fsync, tmp_path / "run"

    def refusing(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder)):
            raise OSError(code, os.strerror(code))
        synced(descriptor)

    plan = dataclasses.replace(PLAN, recovery=Recovery(max_failures=0, checkpoint_patience_seconds=patience))
    with monkeypatch.context() as bad:
        at_step(6, lambda: bad.setattr(os, "fsync", refusing))
        refused(says, lambda: engine.train(tiny_recipe(), plan, folder))
    assert engine.train(tiny_recipe(), plan, folder).weights_sha256 == straight.weights_sha256
    assert re.search(r"goes on from .*step [24] of 8", (folder / "log.txt").read_text())


def failing_for(file: Path) -> Callable[..., int]:
    """Return what opens all files but one, as on a disk of which a part cannot be read any more."""
    opened = os.open

    def fail(path: Any, *given: Any, **named: Any) -> int:
        if str(path) == str(file):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path, *given, **named)

    return fail


def test_the_lineage_of_a_run(
    tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(epochs=1)
    engine.train(recipe, PLAN, tmp_path / "first", until_step=2)
    begin_from(tmp_path / "first", recipe, tmp_path / "second")
    lineage = tmp_path / "second" / "lineage.json"
    whole = lineage.read_bytes()
    values = json.loads(whole)
    stage = values["stages"][0]
    for damaged in (
        "{",
        json.dumps({**values, "stages": []}),
        json.dumps({**values, "stages": [stage, stage]}),
        json.dumps({**values, "stages": [{**stage, "recipe": {}}]}),
    ):
        lineage.write_text(damaged)
        refused("bring back a whole copy of it", lambda: replay(tmp_path / "second", tmp_path / "again", PLAN))
        assert not (tmp_path / "again").exists()
    lineage.write_bytes(whole)
    with monkeypatch.context() as failing:
        failing.setattr(os, "open", failing_for(lineage))
        refused("could not be read: .*bring back", lambda: replay(tmp_path / "second", tmp_path / "again", PLAN))
    (tmp_path / "whole").write_bytes(whole)
    lineage.unlink()
    lineage.symlink_to(tmp_path / "whole")
    refused("expected the file itself", lambda: replay(tmp_path / "second", tmp_path / "again", PLAN))
    (tmp_path / "whole").replace(lineage)
    again = replay(tmp_path / "second", tmp_path / "again", PLAN)
    assert again.weights_sha256 == engine.train(recipe, PLAN, tmp_path / "second").weights_sha256


def test_the_folder_of_a_checkpoint_and_of_a_run(straight: engine.Result, tmp_path: Path, refused: Refused) -> None:
    folder = straight.run_dir / "checkpoints"
    pattern = refused(r"expected a folder such as checkpoints/(step-\d+)", lambda: read_checkpoint(folder))[1]
    like = re.sub(r"\d+", r"\\d+", pattern)
    (newest, *_) = sorted((path for path in folder.iterdir() if re.fullmatch(like, path.name)), reverse=True)
    assert read_checkpoint(newest).step == straight.steps
    refused("give the folder of a training", lambda: engine.load(folder))
    shutil.copytree(straight.run_dir, tmp_path / "run")
    damaged, other = sorted((tmp_path / "run" / "checkpoints").glob("step-*"), reverse=True)
    (damaged / "state.json").write_text("{")
    refused("give another checkpoint, or the run folder, whose newest whole", lambda: read_checkpoint(damaged))
    assert read_checkpoint(other).step == engine.load(tmp_path / "run").checkpoint.step
    (tmp_path / "run" / "metrics.jsonl").unlink()
    run = engine.load(tmp_path / "run")
    refused("expected the folder of a run; check the name", run.metrics)
    assert engine.load(straight.run_dir).metrics()


def store_of(**changes: Any) -> KnowledgeStore:
    """Return what remembers 12 images in 3 groups."""
    return KnowledgeStore(**{"images": 12, "classes": 6, "groups": 3, "averaging_weight": 0.5, **changes})


def test_knowledge_of_another_recipe(refused: Refused) -> None:
    store = store_of()
    store.remember(1, np.arange(12), torch.full((12, 6), 1 / 6))
    known = store.changes()
    for other in ({"classes": 5}, {"groups": 1}, {"top_k": 2}):
        says = "take another checkpoint, or the recipe that it was written with"
        refused(says, lambda changed=other: store_of(**changed).load(known))
        changed = store_of(**other)
        changed.load(store_of(**other).changes())
    again = store_of()
    again.load(known)
    assert torch.equal(again.recall(1, np.arange(12)), store.recall(1, np.arange(12)))


def test_logits_of_which_no_part_can_be_kept(refused: Refused) -> None:
    refused("method.top_k=2: .*leave it out", lambda: store_of(content="logits", top_k=2))
    assert store_of(content="logits").bytes


def test_a_folder_without_room_for_knowledge(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 300 if "small" in str(folder) else 10**9))
    says = r"needs (\d+) bytes.*make room, keep less of each image with method.(top_k), or give a folder on another"
    found = refused(says, lambda: store_of(folder=tmp_path / "small"))
    assert store_of(folder=tmp_path / "small", **{found[2]: 2}).bytes
    assert store_of(folder=tmp_path / "large").bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, int(found[1])))
    assert store_of(folder=tmp_path / "small").bytes


def test_a_folder_in_which_no_file_can_be_made(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tempfile.TemporaryFile

    def refusing(dir: Path) -> Any:
        if dir.name == "read_only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return made(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refusing)
    for name in ("read_only", "other"):
        (tmp_path / name).mkdir()
    says = "give a folder that can be written to, or none to hold knowledge in memory"
    refused(says, lambda: store_of(folder=tmp_path / "read_only"))
    assert store_of(folder=tmp_path / "other").bytes and store_of(folder=None).bytes

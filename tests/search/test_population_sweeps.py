"""Does a population search as a loop by hand would: on two slots or one, on actors, after the death of its process?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest
from ray import tune

import engine
from engine.recipes import Plan
from engine.search import Sweep, SweepResult, Trial, begin_from, replay, sweep
from engine.search.population import donors, explored
from engine.search.settings import drawn, recipe_with
from engine.training import evaluate, export_network
from engine.training.folder import read_summary

RAY_CPUS = 2

pytestmark = pytest.mark.slow

PLAN = Plan(executor="process", evaluate_test=False)
EPOCHS, SECONDS = 3, 240.0
FIELDS = (
    "backbone.widths=4,4,4",
    "data.train_limit=44",
    "data.test_limit=20",
    "data.batch_size=12",
    "data.validation_fraction=0.2",
    "method.num_segments=2",
)

# Long enough to be killed in the middle of its second generation.
SEARCH = """
import engine
from ray import tune

def sweep():
    return engine.Sweep(
        name="population",
        recipe="infopro_digits",
        space={"optimizer.learning_rate": tune.loguniform(1e-3, 0.3)},
        fields=("epochs=60", "backbone.widths=4,4,4", "data.train_limit=44", "data.test_limit=20",
                "data.batch_size=12", "data.validation_fraction=0.2", "method.num_segments=2"),
        metric="validation/loss",
        scheduler="pbt",
        num_samples=2,
        perturb_every_epochs=30,
    )
"""


def _definition(members: int, epochs: int) -> Sweep:
    return Sweep(
        name="population",
        recipe="infopro_digits",
        space={
            "method.reconstruction_weight": tune.loguniform(0.1, 10.0),
            "optimizer.learning_rate": tune.loguniform(1e-3, 0.5),
        },
        fields=(f"epochs={epochs}", *FIELDS),
        metric="validation/loss",
        scheduler="pbt",
        num_samples=members,
    )


@pytest.fixture(scope="module")
def searched(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    return sweep(_definition(3, EPOCHS), run_dir=tmp_path_factory.mktemp("searched") / "s")


def _folder(result: SweepResult, trial: Trial) -> Path:
    return result.run_dir / "trials" / trial.name


def _weights(folder: Path) -> str:
    summary = read_summary(folder)
    assert summary is not None and summary["status"] == "finished"
    return str(summary["weights_sha256"])


def _by_hand(definition: Sweep, epochs: int, folder: Path) -> list[Trial]:
    """Search in a loop, without Ray Tune; the recipes' steps are four an epoch."""
    members = [Trial(number, dict(drawn(definition, number) or {})) for number in range(definition.num_samples)]
    for epoch in range(1, epochs + 1):
        for member in members:
            recipe = recipe_with(definition.base(), definition, member.settings)
            result = engine.train(recipe, PLAN, folder / member.name, until_step=4 * epoch)
            member.metrics, member.epochs = dict(result.metrics), epoch
        if epoch == epochs:
            break
        for number, donor in donors(definition, members, epoch).items():
            member, other = members[number], members[donor]
            member.lineage = [
                *other.lineage,
                {"until_epoch": epoch, "run": other.name, "settings": dict(other.settings)},
            ]
            member.settings = explored(definition, other.settings, number, epoch)
            recipe = recipe_with(definition.base(), definition, member.settings)
            begin_from(folder / other.name, recipe, folder / member.name)
    return members


def test_a_population_equals_a_loop_by_hand_bit_for_bit(searched: SweepResult, tmp_path: Path) -> None:
    assert searched.status == "finished" and searched.at_once == 2
    expected = _by_hand(searched.sweep, EPOCHS, tmp_path)
    assert sum(len(trial.lineage) for trial in expected) >= EPOCHS - 1
    for trial, other in zip(searched.trials, expected, strict=True):
        assert (trial.settings, trial.lineage, trial.epochs) == (other.settings, other.lineage, EPOCHS)
        assert trial.metrics["validation/loss"] == other.metrics["validation/loss"]
        assert _weights(_folder(searched, trial)) == _weights(tmp_path / trial.name)


def test_on_actors_and_one_at_a_time_it_is_the_same_search(
    local_ray: None, assert_given_back: Callable[[int], None], tmp_path: Path
) -> None:
    plan = Plan(executor="ray", cpus_per_learner=0.5)
    again = sweep(_definition(2, 2), max_concurrent=1, plan=plan, run_dir=tmp_path / "s")
    assert again.at_once == 1
    expected = _by_hand(again.sweep, 2, tmp_path)
    assert sum(len(trial.lineage) for trial in expected) == 1
    for trial, other in zip(again.trials, expected, strict=True):
        assert (trial.settings, trial.lineage) == (other.settings, other.lineage)
        assert _weights(_folder(again, trial)) == _weights(tmp_path / other.name)
    assert_given_back(2)


def test_every_member_is_an_ordinary_run_that_can_be_replayed(searched: SweepResult, tmp_path: Path) -> None:
    copied = [trial for trial in searched.trials if trial.lineage]
    assert copied
    for trial in copied:
        folder = _folder(searched, trial)
        assert "test/accuracy" in evaluate(engine.load(folder))
        assert export_network(engine.load(folder), tmp_path / f"{trial.name}.safetensors")
        assert replay(folder, tmp_path / trial.name, PLAN).weights_sha256 == _weights(folder)
        assert engine.train(engine.load(folder).recipe, PLAN, folder).status == "finished"


def test_what_is_written_tells_of_the_lineage(searched: SweepResult) -> None:
    assert searched.best is min(searched.trials, key=lambda trial: trial.metrics["validation/loss"])
    assert "test/accuracy" in searched.best.metrics
    columns = pyarrow.parquet.read_table(searched.run_dir / "trials.parquet").to_pydict()
    assert [json.loads(text) for text in columns["lineage"]] == [trial.lineage for trial in searched.trials]
    assert [Path(path).name for path in columns["run_dir"]] == [trial.name for trial in searched.trials]
    text = (searched.run_dir / "sweep.md").read_text()
    assert f"Best: {searched.best.name}" in text
    assert (f"| {searched.best.began_at + 1}-{EPOCHS} |" in text) == bool(searched.best.lineage)
    assert (searched.run_dir / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_population_again_trains_nothing(searched: SweepResult) -> None:
    before = {path: path.stat().st_mtime_ns for path in (searched.run_dir / "trials").rglob("*")}
    again = sweep(searched.sweep, run_dir=searched.run_dir)
    assert (again.status, again.best, again.trials) == (searched.status, searched.best, searched.trials)
    assert {path: path.stat().st_mtime_ns for path in (searched.run_dir / "trials").rglob("*")} == before


def _states(folder: Path) -> dict[int, Any]:
    log = folder / "trials.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    return {values["number"]: values for values in map(json.loads, (x for x in lines if x.endswith("\n")))}


def _in_the_second_generation(folder: Path) -> bool:
    """Whether somebody has copied, and a member trains on beyond that."""
    states = _states(folder)
    copied = any(values["lineage"] for values in states.values())
    steps = [int(path.name[5:]) for path in folder.glob("trials/*/checkpoints/step-*")]
    return copied and any(values["status"] == "running" for values in states.values()) and max(steps) > 120


def test_a_killed_population_ends_as_it_would_have(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SEARCH)

    def words(name: str) -> list[str]:
        return [sys.executable, "-m", "engine", "sweep", str(tmp_path / "own.py"), "--run-dir", name, "--json"]

    folder = tmp_path / "killed"
    with subprocess.Popen(words(str(folder)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        started: list[psutil.Process] = []
        try:
            deadline = time.monotonic() + SECONDS
            while not _in_the_second_generation(folder):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            started = psutil.Process(process.pid).children(recursive=True)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert {values["status"] for values in _states(folder).values()} != {"finished"}
    found = {}
    for name in (folder, tmp_path / "whole"):
        done = subprocess.run(words(str(name)), capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout.splitlines()[-1])
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    killed, whole = found.values()
    assert killed["status"] == "finished" and killed["best"] == whole["best"]
    for trial, other in zip(killed["trials"], whole["trials"], strict=True):
        assert (trial["settings"], trial["lineage"]) == (other["settings"], other["lineage"])
        run = f"trial-{trial['number']:04d}"
        run += f"-from-epoch-{trial['lineage'][-1]['until_epoch']}" if trial["lineage"] else ""
        assert _weights(folder / "trials" / run) == _weights(tmp_path / "whole" / "trials" / run)
    assert any(trial["lineage"] for trial in whole["trials"])

"""Can any whole checkpoint of a run be opened, scored and exported, also while the run still trains?"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine.recipes import Recipe
from engine.training import export_network
from tests.conftest import make_tiny_recipe

IN_PROCESS = engine.Plan(executor="process")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> engine.Result:
    """A run of 8 steps, 4 in an epoch, with a checkpoint after each."""
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr("engine.training.by_products.plot_curves", lambda *_: None)
        return engine.train(make_tiny_recipe(), IN_PROCESS, tmp_path_factory.mktemp("chosen") / "run")


def test_the_scores_of_an_earlier_checkpoint_are_those_of_its_step(result: engine.Result) -> None:
    run = engine.load(result.run_dir / "checkpoints" / "step-000004")
    assert (run.path, run.checkpoint.step) == (result.run_dir, 4)
    found = [record for record in run.metrics() if (record.split, record.step) == ("test", 4)]
    recorded = {f"test/{record.name}": record.value for record in found}
    assert engine.evaluate(run) == recorded
    assert recorded.keys() == result.metrics.keys()
    assert recorded != result.metrics


def test_the_newest_checkpoint_is_that_of_the_run_folder(result: engine.Result, tmp_path: Path) -> None:
    steps = {4: "earlier", 8: "newest"}
    chosen = {name: result.run_dir / "checkpoints" / f"step-{step:06d}" for step, name in steps.items()}
    digests = {
        name: export_network(engine.load(place), tmp_path / f"{name}.safetensors")["weights_sha256"]
        for name, place in {**chosen, "folder": result.run_dir}.items()
    }
    assert digests["newest"] == digests["folder"] == result.weights_sha256
    assert digests["earlier"] != result.weights_sha256


def test_a_checkpoint_is_exported_while_its_run_trains(
    tiny_recipe: Callable[..., Recipe],
    at_submitted: Callable[[dict[int, Callable[[], None]]], None],
    tmp_path: Path,
) -> None:
    told: list[str] = []

    def export() -> None:
        run = engine.load(tmp_path / "run" / "checkpoints" / "step-000004")
        told.append(export_network(run, tmp_path / "midway.safetensors")["weights_sha256"])

    at_submitted({12: export})
    again = engine.train(tiny_recipe(epochs=3), IN_PROCESS, tmp_path / "run")
    kept = engine.Plan(executor="process", keep_checkpoints=3)
    straight = engine.train(tiny_recipe(epochs=3), kept, tmp_path / "straight")
    assert again.weights_sha256 == straight.weights_sha256
    earlier = engine.load(tmp_path / "straight" / "checkpoints" / "step-000004")
    assert told == [export_network(earlier, tmp_path / "afterwards.safetensors")["weights_sha256"]]


def test_a_run_in_a_folder_called_checkpoints_is_a_run(result: engine.Result, tmp_path: Path) -> None:
    moved = tmp_path / "checkpoints" / "step-000004"
    shutil.copytree(result.run_dir, moved)
    run = engine.load(moved)
    assert (run.path, run.checkpoint.step) == (moved, 8)
    assert engine.load(moved / "checkpoints" / "step-000004").path == moved
    missing = moved.with_name("gone")
    said = re.escape(f"{missing}: is no run folder: there is no recipe.json in it or {tmp_path}; give the folder")
    with pytest.raises(engine.RunError, match=said):
        engine.load(missing)


@pytest.mark.parametrize("file", ["MANIFEST.json", "state.json", "segment1.safetensors"])
def test_a_damaged_checkpoint_is_never_replaced_by_another(file: str, result: engine.Result, tmp_path: Path) -> None:
    shutil.copytree(result.run_dir, tmp_path / "run")
    chosen = tmp_path / "run" / "checkpoints" / "step-000008"
    (chosen / file).write_bytes(b"torn")
    with pytest.raises(engine.RunError, match=f"{chosen}: is damaged: .*; give another checkpoint, or the run folder"):
        engine.load(chosen)
    run = engine.load(tmp_path / "run")
    assert run.checkpoint.step == 4
    assert run.checkpoint.skipped[0].startswith(f"{chosen}: damaged, skipped: ")


def test_of_a_missing_checkpoint_it_is_said_which_there_are(result: engine.Result, tmp_path: Path) -> None:
    chosen = result.run_dir / "checkpoints" / "step-000005"
    said = re.escape(f"{chosen}: there is no such checkpoint (the newest are step-000004, step-000008); give another")
    with pytest.raises(engine.RunError, match=said):
        engine.load(chosen)
    shutil.copytree(result.run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("step-*"))
    with pytest.raises(engine.RunError, match=r"there is no such checkpoint \(none was written yet\)"):
        engine.load(tmp_path / "run" / "checkpoints" / chosen.name)

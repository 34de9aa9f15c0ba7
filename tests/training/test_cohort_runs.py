"""Is a cohort resumed bit for bit, scored peer by peer and together, and are its peers exported one by one?"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
from pydantic import TypeAdapter

import engine
from engine.cli.main import main
from engine.methods import weights_sha256
from engine.recipes import DML, Recipe
from engine.tracking import read_metrics
from engine.training import evaluate, export_network

TinyRecipe = Callable[..., Recipe]
Interrupt = Callable[[int], None]
SameRun = Callable[[Path, Path], None]

SMALL: dict[str, Any] = {"name": "resnet8", "widths": [4, 4, 4]}
LARGER: dict[str, Any] = {"name": "resnet14", "widths": [4, 4, 8]}
GRID: dict[str, Any] = {"peer_method": {"kind": "greedy", "num_segments": 2}, "local_weight": 0.5}
STALE: dict[str, Any] = {"schedule": "codistillation", "exchange_interval": 3}
# 8 steps, 4 in an epoch: reports after steps 3, 4, 6 and 8.
IN_PROCESS = engine.Plan(executor="process", report_every_steps=3)


def cohort(peers: Any = 2, **fields: Any) -> Any:
    return TypeAdapter(DML).validate_python({"kind": "dml", "peers": peers, **fields})


@pytest.fixture
def recipe_of(tiny_recipe: TinyRecipe) -> Callable[..., Recipe]:
    """A function: fields of the method, which it makes a small recipe of."""
    return lambda **fields: tiny_recipe(method=cohort(**{"peers": [{"backbone": SMALL}] * 2, **fields}))


@pytest.mark.parametrize(
    ("fields", "stops"),
    [
        ({"schedule": "sequential", **GRID}, (1, 6)),
        # Exchanges come before steps 3 and 6: before the first, between the two, and after the last.
        ({**STALE, "exchange": "weights", "peers": [{"backbone": SMALL}, {"backbone": LARGER}]}, (2, 4)),
        ({**STALE, "exchange": "weights"}, (3, 7)),
        # In step 3 and 6 only, which are not at the same place of both epochs.
        (STALE, (2, 5)),
    ],
    ids=["sequential_grid", "weights_early", "weights_late", "predictions"],
)
def test_an_interrupted_run_equals_the_straight_run(
    fields: dict[str, Any],
    stops: tuple[int, ...],
    tmp_path: Path,
    recipe_of: Callable[..., Recipe],
    interrupt_at: Interrupt,
    assert_same_run: SameRun,
) -> None:
    recipe = recipe_of(**fields)
    straight = engine.train(recipe, IN_PROCESS, tmp_path / "straight")
    for stop in stops:
        interrupt_at(stop)
        result = engine.train(recipe, IN_PROCESS, tmp_path / "stopped")
        assert (result.status, result.steps) == ("interrupted", stop)
        states = engine.load(result.run_dir).checkpoint.states.values()
        copies = [name for state in states for name in state.tensors if name.startswith("frozen.")]
        assert len(copies) == (2 if fields.get("exchange") == "weights" and stop >= 3 else 0)
    interrupt_at(0)
    result = engine.train(recipe, IN_PROCESS, tmp_path / "stopped")
    assert (result.status, result.steps) == ("finished", 8)
    assert result.weights_sha256 == straight.weights_sha256
    assert result.metrics == straight.metrics
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> engine.Result:
    """A finished run of two different peers, the second with an optimizer of its own."""
    peers = [{"backbone": SMALL}, {"backbone": LARGER, "optimizer": {"kind": "adamw", "learning_rate": 0.001}}]
    words = ("epochs=2", "data.train_limit=100", "data.test_limit=40", "data.validation_fraction=0.2", "seed=3")
    recipe, plan = engine.apply_overrides(
        engine.load_recipe("end_to_end_digits"), engine.Plan(executor="process"), ["method.kind=dml", *words]
    )
    recipe = dataclasses.replace(recipe, method=cohort(peers))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("engine.training.by_products.plot_curves", lambda *_: None)
        return engine.train(recipe, plan, tmp_path_factory.mktemp("two") / "run")


def test_peers_and_ensemble_are_scored_and_the_mean_of_the_peers_is_the_score(two: engine.Result) -> None:
    of_one = {"accuracy", "top5_accuracy", "loss", "expected_calibration_error", "images"}
    of_all = of_one | {"accuracy_gap", "kl_between_peers", "disagreement"}
    expected = {("peer0", name) for name in of_one} | {("peer1", name) for name in of_one}
    expected |= {("ensemble", name) for name in of_all}
    records = read_metrics(two.run_dir)
    for split in ("validation", "test"):
        found = {(record.learner, record.name) for record in records if record.split == split}
        assert found == expected
        assert {f"{name}/{split}/{score}" for name, score in expected} <= two.metrics.keys()
    peers = [two.metrics[f"{name}/test/accuracy"] for name in ("peer0", "peer1")]
    assert two.test_score == statistics.fmean(peers)
    assert two.metrics["ensemble/test/accuracy_gap"] == pytest.approx(max(peers) - min(peers))
    assert two.metrics["ensemble/test/kl_between_peers"] > 0
    rates = {record.learner: record.value for record in records if record.name == "learning_rate"}
    assert rates["peer1"] == pytest.approx(rates["peer0"] * 0.001 / 0.1)


def test_each_peer_records_its_losses(two: engine.Result) -> None:
    records = [record for record in read_metrics(two.run_dir) if record.split == "train"]
    for name in ("peer0", "peer1"):
        last = {record.name: record.value for record in records if record.learner == name}
        assert last["loss/total"] == pytest.approx(last["loss/cross_entropy"] + last["loss/mimicry"], rel=1e-5)
        assert last["loss/mimicry"] > 0
        assert 0 <= last["accuracy"] <= 1


def test_evaluating_gives_the_last_scores_of_the_training(two: engine.Result) -> None:
    assert evaluate(engine.load(two.run_dir)) == two.metrics


def test_the_digest_is_that_of_all_peers(two: engine.Result) -> None:
    run = engine.load(two.run_dir)
    digests = [weights_sha256(run.network(name).state_dict()) for name in ("peer0", "peer1")]
    assert two.weights_sha256 == "-".join(digests)
    for wanted in (None, "peer2", "ensemble"):
        with pytest.raises(engine.RunError, match="peer0, peer1"):
            run.network(wanted)


@pytest.mark.parametrize(("peer", "name", "widths"), [(0, "resnet8", [4, 4, 4]), (1, "resnet14", [4, 4, 8])])
def test_one_peer_is_exported_as_the_network_that_it_is(
    peer: int, name: str, widths: list[int], two: engine.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "peer.safetensors"
    assert main(("export", str(two.run_dir), "--peer", str(peer), "--to", str(target), "--json")) == 0
    written = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert written["weights_sha256"] == two.weights_sha256.split("-")[peer]
    with safetensors.safe_open(target, "pt") as file:
        metadata = file.metadata()
    assert (metadata["backbone"], metadata["method"]) == (name, "dml")
    assert json.loads(metadata["backbone_settings"])["widths"] == widths
    fc = engine.load(two.run_dir).network(f"peer{peer}").state_dict()["classifier.fc.weight"]
    assert safetensors.torch.load_file(target)["fc.weight"].equal(fc)


@pytest.mark.parametrize("words", [(), ("--peer", "2"), ("--peer", "-1")])
def test_a_peer_that_is_not_there_is_refused_with_the_names(
    words: tuple[str, ...], two: engine.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(("export", str(two.run_dir), *words, "--to", str(tmp_path / "a.safetensors"))) == 2
    assert "peer0, peer1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(engine.RunError, match="peer0, peer1"):
        export_network(engine.load(two.run_dir), tmp_path / "a.safetensors")

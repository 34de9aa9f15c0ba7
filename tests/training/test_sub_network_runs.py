"""Are runs with sub-networks and group knowledge resumed bit for bit, and scored with statistics of clean images?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import engine
from engine.backbones import build, load_plain_state
from engine.data import Batch, Source, open_source
from engine.learners.recalibration import Recalibration
from engine.recipes import Augmentation, Recipe
from engine.training import evaluate, export_network
from tests.training.sub_network_methods import IN_PROCESS, METHODS, MIXED

Interrupt = Callable[[int], None]
AtStep = Callable[[int, Callable[[], None]], None]
SameRun = Callable[[Path, Path], None]


def _knowledge(folder: Path) -> dict[str, dict[str, Tensor]]:
    states = engine.load(folder).checkpoint.states
    return {name: state.knowledge for name, state in states.items() if state.knowledge}


def _assert_same_knowledge(first: Path, second: Path) -> int:
    """Compare all rows; returns how many there are."""
    one, other = _knowledge(first), _knowledge(second)
    assert one.keys() == other.keys()
    for learner, rows in one.items():
        assert rows.keys() == other[learner].keys()
        assert all(value.equal(other[learner][name]) for name, value in rows.items()), learner
    return sum(len(rows["rows"]) for rows in one.values())


@pytest.mark.parametrize(
    ("method", "stops"),
    [
        # Inside a loop of groups and of an epoch, beside a checkpoint and at one, before any image is mixed and after.
        ("mkf", (1, 7, 11, 12)),
        ("gkt", (5,)),
        ("st", (3,)),
        *(
            pytest.param(method, (7, 11), marks=pytest.mark.slow)
            for method in ("stochastic_depth", "gkt_every_group", "mkf_exact_second_batch", "mkf_top_k")
        ),
    ],
)
def test_an_interrupted_run_equals_the_straight_run(
    method: str,
    stops: tuple[int, ...],
    tmp_path: Path,
    recipe_of: Callable[..., Recipe],
    interrupt_at: Interrupt,
    assert_same_run: SameRun,
) -> None:
    recipe = recipe_of(METHODS[method])
    straight = engine.train(recipe, IN_PROCESS, tmp_path / "straight")
    for stop in stops:
        interrupt_at(stop)
        result = engine.train(recipe, IN_PROCESS, tmp_path / "stopped")
        assert (result.status, result.steps) == ("interrupted", stop)
    interrupt_at(0)
    result = engine.train(recipe, IN_PROCESS, tmp_path / "stopped")
    assert (result.status, result.steps) == ("finished", 16)
    assert result.weights_sha256 == straight.weights_sha256
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")
    rows = _assert_same_knowledge(tmp_path / "straight", tmp_path / "stopped")
    assert (rows > 40) == method.startswith(("gkt", "mkf"))


def test_knowledge_that_others_keep_is_resumed_with_them(
    tmp_path: Path, recipe_of: Callable[..., Recipe], interrupt_at: Interrupt
) -> None:
    recipe = recipe_of(METHODS["mkf_two_stores"])
    straight = engine.train(recipe, IN_PROCESS, tmp_path / "straight")
    for stop in (3, 11, 0):
        interrupt_at(stop)
        result = engine.train(recipe, IN_PROCESS, tmp_path / "stopped")
    assert (result.weights_sha256, result.metrics) == (straight.weights_sha256, straight.metrics)
    assert _assert_same_knowledge(tmp_path / "straight", tmp_path / "stopped") > 40
    assert _knowledge(tmp_path / "stopped").keys() == {"store0", "store1"}


@pytest.mark.parametrize("crash", [pytest.param(6, marks=pytest.mark.slow), 14])
def test_a_crash_goes_on_from_pieces_of_knowledge(
    crash: int, tmp_path: Path, recipe_of: Callable[..., Recipe], at_step: AtStep, assert_same_run: SameRun
) -> None:
    plan = dataclasses.replace(IN_PROCESS, checkpoint_every_steps=1)
    recipe = recipe_of(MIXED)
    engine.train(recipe, plan, tmp_path / "straight")

    def fail() -> None:
        raise OSError("the power went out")

    at_step(crash, fail)
    with pytest.raises(Exception, match="the power went out"):
        engine.train(recipe, plan, tmp_path / "crashed")
    newest = max((tmp_path / "crashed" / "checkpoints").iterdir())
    assert len(list(newest.glob("network.knowledge-*"))) > 1
    at_step(0, fail)
    engine.train(recipe, plan, tmp_path / "crashed")
    assert_same_run(tmp_path / "straight", tmp_path / "crashed")
    assert _assert_same_knowledge(tmp_path / "straight", tmp_path / "crashed") > 40


def test_with_its_knowledge_damaged_the_checkpoint_before_is_taken(
    tmp_path: Path, recipe_of: Callable[..., Recipe], interrupt_at: Interrupt, assert_same_run: SameRun
) -> None:
    recipe = recipe_of(MIXED)
    engine.train(recipe, IN_PROCESS, tmp_path / "straight")
    interrupt_at(11)
    engine.train(recipe, IN_PROCESS, tmp_path / "damaged")
    folder = tmp_path / "damaged" / "checkpoints"
    (own,) = (folder / "step-000011").glob("network.knowledge-000011.safetensors")
    own.write_bytes(b"torn")
    interrupt_at(0)
    engine.train(recipe, IN_PROCESS, tmp_path / "damaged")
    log = (tmp_path / "damaged" / "log.txt").read_text()
    assert "step-000011: damaged, skipped: network.knowledge-000011.safetensors has 4 bytes" in log
    assert "step-000010 (step 10 of 16)" in log
    assert_same_run(tmp_path / "straight", tmp_path / "damaged")
    _assert_same_knowledge(tmp_path / "straight", tmp_path / "damaged")


def test_other_reports_and_checkpoints_change_neither_weights_nor_knowledge(
    tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    plans = [
        engine.Plan(executor="process"),
        dataclasses.replace(IN_PROCESS, checkpoint_every_steps=1, keep_checkpoints=1),
        engine.Plan(executor="process", evaluate_every_epochs=4, checkpoint_every_steps=100),
    ]
    results = [engine.train(recipe_of(MIXED), plan, tmp_path / str(place)) for place, plan in enumerate(plans)]
    assert len({result.weights_sha256 for result in results}) == 1
    for place in (1, 2):
        assert _assert_same_knowledge(tmp_path / "0", tmp_path / str(place)) > 40


# Recalibration.


def _normalised(source: Source, batch: Batch) -> Tensor:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (source.facts.mean, source.facts.std))
    return (torch.from_numpy(batch.images).float() / 255 - mean) / std


def _test_loss(source: Source, network: nn.Module) -> float:
    """Return the mean cross-entropy over the test images."""
    losses = []
    with torch.no_grad():
        for batch in source.evaluation_batches("test"):
            labels = torch.from_numpy(batch.labels)
            losses.append(F.cross_entropy(network(_normalised(source, batch)), labels, reduction="none"))
    return torch.cat(losses).mean().item()


@pytest.mark.parametrize("method", ["stochastic_depth", "st", "mkf_two_stores"])
def test_a_run_is_scored_and_exported_as_it_was_in_training(
    method: str, tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    recipe = recipe_of(METHODS[method], data={"validation_fraction": 0.2})
    result = engine.train(recipe, IN_PROCESS, tmp_path / "run")
    run = engine.load(tmp_path / "run")
    scores = evaluate(run)
    assert {"test/accuracy", "test/loss", "validation/accuracy"} <= scores.keys()
    assert scores == {name: result.metrics[name] for name in scores}

    export_network(run, tmp_path / "network.safetensors")
    network, fresh = run.network(), build(recipe.backbone, 10, (1, 8, 8), seed=99)
    load_plain_state(fresh, recipe.backbone.name, safetensors.torch.load_file(tmp_path / "network.safetensors"))
    assert all(value.equal(fresh.state_dict()[name]) for name, value in network.state_dict().items())
    source = open_source(recipe.data, recipe.seed)
    assert _test_loss(source, network) == pytest.approx(scores["test/loss"], rel=1e-5)
    source.close()


def test_an_interrupted_run_is_scored_with_statistics_of_its_weights(
    tmp_path: Path, recipe_of: Callable[..., Recipe], interrupt_at: Interrupt
) -> None:
    """Its checkpoint holds what sub-networks and mixed images left behind, or the last evaluation."""
    recipe = recipe_of(MIXED, data={"augmentation": Augmentation()})
    interrupt_at(11)
    engine.train(recipe, IN_PROCESS, tmp_path / "run")
    run = engine.load(tmp_path / "run")
    network = run.network()
    source = open_source(recipe.data, recipe.seed)
    losses = []
    for recalibrated in (False, True):
        if recalibrated:
            recalibration = Recalibration(network)
            for batch in source.recalibration_batches(20):
                recalibration.add(_normalised(source, batch))
            recalibration.finish()
        losses.append(_test_loss(source, network))
    source.close()
    assert evaluate(run)["test/loss"] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_recalibration_changes_running_statistics_and_nothing_else(
    tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    methods = [dataclasses.replace(MIXED, recalibration_images=images) for images in (0, 20, 40)]
    for place, method in enumerate(methods):
        engine.train(recipe_of(method), IN_PROCESS, tmp_path / str(place))
    plain, *recalibrated = (engine.load(tmp_path / str(place)) for place in range(3))
    statistics = {name for name in plain.network().state_dict() if name.endswith(("running_mean", "running_var"))}
    for run in recalibrated:
        states = [each.checkpoint.states["network"] for each in (plain, run)]
        one, other = (state.tensors for state in states)
        assert {name for name in one if not one[name].equal(other[name])} == {f"body.{name}" for name in statistics}
        _assert_same_knowledge(plain.path, run.path)
        assert evaluate(plain) != evaluate(run)
    one, other = (run.network().state_dict() for run in recalibrated)
    assert any(not one[name].equal(other[name]) for name in statistics)


def test_the_last_checkpoint_holds_the_statistics_of_clean_training_images(
    tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    """The first batch norm sees the stem's convolution alone, of which its statistics are worked out here."""
    method = dataclasses.replace(MIXED, recalibration_images=15, mixing_partners="second_batch")
    recipe = recipe_of(method, data={"augmentation": Augmentation()})
    engine.train(recipe, IN_PROCESS, tmp_path / "run")
    network = engine.load(tmp_path / "run").network()
    stem: Any = network[0]
    source = open_source(recipe.data, recipe.seed)
    # 15 images are asked for, which takes two batches of 12.
    means, variances = [], []
    for step in range(2):
        with torch.no_grad():
            features = stem.conv1(_normalised(source, source.batch(0, step)))
        means.append(features.mean(dim=(0, 2, 3)))
        variances.append(features.var(dim=(0, 2, 3), correction=0))
    source.close()
    torch.testing.assert_close(stem.bn1.running_mean, torch.stack(means).mean(dim=0))
    torch.testing.assert_close(stem.bn1.running_var, torch.stack(variances).mean(dim=0))


def test_statistics_are_measured_for_each_evaluation_anew(tmp_path: Path, recipe_of: Callable[..., Recipe]) -> None:
    """Those of the first evaluation do not count in the second, whose weights are others."""
    for every in (1, 4):
        plan = dataclasses.replace(IN_PROCESS, evaluate_every_epochs=every)
        engine.train(recipe_of(METHODS["st"]), plan, tmp_path / str(every))
    one, other = (engine.load(tmp_path / name).network().state_dict() for name in ("1", "4"))
    assert all(value.equal(other[name]) for name, value in one.items())

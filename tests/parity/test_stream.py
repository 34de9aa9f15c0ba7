"""One process, the object store and direct links give the same runs, bit for bit: weights, records and scores."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine
from engine.runtimes.ray import launch
from engine.tracking import read_metrics

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_CPUS = 4

# 130 images in batches of 50: two full batches and a ragged one of 30; evaluation batches are larger than those.
SMALL = (
    *("backbone.widths=4,4,4", "epochs=2", "data.augmentation.crop_padding=1", "plan.checkpoint_every_steps=2"),
    *("data.train_limit=130", "data.test_limit=70", "data.evaluation_batch_size=60", "plan.report_every_steps=2"),
)
GRID = ("method.peer_method.kind=infopro", "method.peer_method.num_segments=2", "method.local_weight=0.5")
INFOPRO = ("infopro", "method.num_segments=3")
FURTHER = {
    "branches": ("dhm", "method.branch_learners=true", "method.directions=sampled"),
    "knowledge_elsewhere": ("mkf", "method.warmup_fraction=0.5", "method.store_learners=2"),
    "one_learner": ("end_to_end",),
    "infopro_windows_of_one": ("infopro", "method.num_segments=3", "plan.window=1")
    + ("numerics.precision=bfloat16", "numerics.channels_last=true", "backbone.widths=8,8,8"),
    "simultaneous": ("end_to_end", "method.kind=dml", "method.peers=3"),
    "predictions_in_some_steps": ("end_to_end", "method.kind=dml", "method.peers=2", "method.schedule=codistillation")
    + ("method.exchange_interval=3",),
    "weights": ("end_to_end", "method.kind=dml", "method.peers=2", "method.schedule=codistillation")
    + ("method.exchange_interval=3", "method.exchange=weights"),
    "grid_sequential": ("end_to_end", "method.kind=dml", "method.peers=2", "method.schedule=sequential", *GRID),
    "infopro_with_branches": ("infopro", "method.branches.kind=dhm"),
    "recalibrated_sub_networks": ("st", "method.num_subnetworks=2", "method.recalibration_images=60"),
}


def _train(case: tuple[str, ...], folder: Path, *words: str) -> engine.Result:
    name, *overrides = case
    given = {word.partition("=")[0] for word in (*overrides, *words)}
    small = [word for word in SMALL if word.partition("=")[0] not in given]
    recipe, plan = engine.apply_overrides(engine.load_recipe(f"{name}_digits"), engine.Plan(), small)
    return engine.train(*engine.apply_overrides(recipe, plan, [*overrides, *words]), folder)


def _assert_same(one: engine.Result, other: engine.Result) -> None:
    assert one.weights_sha256 == other.weights_sha256
    assert one.metrics == other.metrics
    states = [engine.load(result.run_dir).checkpoint.states for result in (one, other)]
    assert states[0].keys() == states[1].keys()
    for learner, state in states[0].items():
        assert state.extra == states[1][learner].extra, learner
        for kind in ("tensors", "knowledge"):
            values, others = getattr(state, kind) or {}, getattr(states[1][learner], kind) or {}
            assert values.keys() == others.keys()
            for name, value in values.items():
                assert value.equal(others[name]), f"{learner} {name}"
    records = [
        [
            (r.step, r.learner, r.split, r.name, r.value)
            for r in read_metrics(result.run_dir)
            if r.name.startswith("loss")
        ]
        for result in (one, other)
    ]
    assert records[0] == records[1]
    assert records[0]


def _assert_the_same_in(transport: str, said: str, case: tuple[str, ...], folder: Path) -> None:
    alone = _train(case, folder / "process", "plan.executor=process")
    other = _train(case, folder / "ray", f"plan.transport={transport}")
    assert f"messages: {said}" in (folder / "ray" / "log.txt").read_text()
    _assert_same(alone, other)


def test_infopro(tmp_path: Path) -> None:
    _assert_the_same_in("object_store", "object store", INFOPRO, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER)
def test_every_kind_of_team(name: str, tmp_path: Path) -> None:
    """Through the object store; all other tests of parity leave the choice open, which is direct links on one node."""
    _assert_the_same_in("object_store", "object store", FURTHER[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["infopro_windows_of_one", "weights", "recalibrated_sub_networks"])
def test_what_only_walks_could_get_wrong(name: str, tmp_path: Path) -> None:
    _assert_the_same_in("direct", "direct links", FURTHER[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "way", "words"), [("branches", "tcp", "over TCP"), ("simultaneous", "nccl", "with NCCL")]
)
def test_learners_on_different_nodes_and_gpus(
    name: str, way: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if they were: over TCP, and in groups, which are of gloo on CPUs."""
    case = FURTHER[name]
    alone = _train(case, tmp_path / "process", "plan.executor=process")
    monkeypatch.setattr(launch, "choose_way", lambda *_: way)
    _assert_same(alone, _train(case, tmp_path / way, "plan.transport=direct"))
    assert words in (tmp_path / way / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["process", "object_store", "direct"])
def test_a_run_goes_on_in_another_way(first: str, tmp_path: Path) -> None:
    case = INFOPRO
    ways = {
        "process": "plan.executor=process",
        "object_store": "plan.transport=object_store",
        "direct": "plan.transport=direct",
    }
    whole = _train(case, tmp_path / "whole", ways["process"])
    recipe_words, begun = [*case[1:], *SMALL, ways[first]], tmp_path / "run"
    recipe, plan = engine.apply_overrides(engine.load_recipe(f"{case[0]}_digits"), engine.Plan(), recipe_words)
    engine.train(recipe, plan, begun, until_step=3)
    assert engine.load(begun).checkpoint.step == 3
    second = "direct" if first != "direct" else "object_store"
    _assert_same(whole, _train(case, begun, ways[second]))

"""The process and Ray give the same cohorts, bit for bit: weights, optimizers, counters, copies of peers and scores."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_CPUS = 2

# 130 images in batches of 50: two full batches and a ragged one of 30.
SMALL = (
    *("backbone.name=resnet8", "backbone.widths=4,4,4", "epochs=2", "data.augmentation.crop_padding=1"),
    *("data.train_limit=130", "data.test_limit=60", "data.evaluation_batch_size=50"),
)
SCHEDULES = {
    "sequential": ("method.schedule=sequential",),
    "predictions": ("method.schedule=codistillation", "method.exchange_interval=3"),
    "weights": ("method.schedule=codistillation", "method.exchange_interval=3", "method.exchange=weights"),
}
GRID = ("method.peer_method.kind=infopro", "method.peer_method.num_segments=2", "method.local_weight=0.5")
COHORTS = {
    "simultaneous_2": ("method.peers=2",),
    "simultaneous_3": ("method.peers=3",),
    "sequential_3": ("method.peers=3", *SCHEDULES["sequential"]),
    "predictions_2": ("method.peers=2", *SCHEDULES["predictions"]),
    "predictions_3": ("method.peers=3", *SCHEDULES["predictions"]),
    "weights_2": ("method.peers=2", *SCHEDULES["weights"]),
    "one_peer": ("method.peers=1",),
    "one_peer_weights": ("method.peers=1", *SCHEDULES["weights"]),
    "different_backbones": ("method.peers=resnet8,resnet14",),
    "different_backbones_weights": ("method.peers=resnet8,resnet14", *SCHEDULES["weights"]),
    "semi_supervised": ("method.peers=2", "data.labelled_fraction=0.2"),
    "feature_weight": ("method.peers=3", "method.feature_weight=0.1", "method.schedule=sequential"),
    "grid": GRID,
    "grid_sequential": (*GRID, "method.peers=3", "method.schedule=sequential"),
    "bfloat16": ("method.peers=2", "numerics.precision=bfloat16", "numerics.channels_last=true"),
    "dropout": ("method.peers=wrn_10_1,resnet8", "backbone.name=wrn_10_1", "backbone.widths=null")
    + ("backbone.dropout=0.3", *SCHEDULES["sequential"]),
}


def _train(folder: Path, *words: str) -> engine.Result:
    recipe, plan = engine.apply_overrides(engine.load_recipe("end_to_end_digits"), engine.Plan(), SMALL)
    return engine.train(*engine.apply_overrides(recipe, plan, words), folder)


def _assert_same(tmp_path: Path, *words: str) -> engine.Result:
    alone = _train(tmp_path / "process", "plan.executor=process", *words)
    on_ray = _train(tmp_path / "ray", "plan.executor=ray", "plan.window=3", *words)
    states = [engine.load(result.run_dir).checkpoint.states for result in (alone, on_ray)]
    assert states[0].keys() == states[1].keys()
    for learner, state in states[0].items():
        other = states[1][learner]
        assert state.extra == other.extra, learner
        assert state.tensors.keys() == other.tensors.keys()
        for name, value in state.tensors.items():
            assert value.equal(other.tensors[name]), f"{learner} {name}"
    assert alone.weights_sha256 == on_ray.weights_sha256
    assert alone.metrics == on_ray.metrics
    return alone


def test_a_small_cohort(tmp_path: Path) -> None:
    _assert_same(tmp_path, "method.kind=dml", *COHORTS["simultaneous_2"])


@pytest.mark.slow
@pytest.mark.parametrize("cohort", sorted(set(COHORTS) - {"simultaneous_2"}))
def test_every_schedule_and_kind_of_peer(cohort: str, tmp_path: Path) -> None:
    _assert_same(tmp_path, "method.kind=dml", *COHORTS[cohort])


@pytest.mark.slow
def test_distillation(tmp_path: Path) -> None:
    teacher = _train(tmp_path / "teacher", "plan.executor=process", "method.kind=dml", "seed=9").run_dir
    words = (f"method.teacher={teacher}", "method.teacher_network=peer1", "method.temperature=2")
    _assert_same(tmp_path, "method.kind=distillation", *words)

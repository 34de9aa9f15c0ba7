"""The process and Ray give the same networks and branches, bit for bit, also where gradients cross learners."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_CPUS = 4

# 130 images in batches of 50: two full batches and a ragged one of 30.
SMALL = (
    *("backbone.widths=4,4,4", "epochs=2", "data.augmentation.crop_padding=1"),
    *("data.train_limit=130", "data.test_limit=60", "data.evaluation_batch_size=50"),
)
METHODS = {
    "dhm_branch_learners": ("dhm", "method.branch_learners=true", "method.directions=sampled"),
}
FURTHER = {
    "infopro_with_branches": ("infopro", "method.branches.kind=dhm"),
    "dhm": ("dhm",),
    "dsn": ("dsn", "method.decay=stop", "method.stop_at=0.5"),
    "dsl_branch_learners": ("dsl", "method.branch_learners=true"),
    "dhm_bfloat16": ("dhm", "method.branch_learners=true", "numerics.precision=bfloat16", "numerics.channels_last=true")
    + ("backbone.widths=8,8,8",),
    "dml_with_branches": ("dml", "method.peer_method.kind=dhm"),
    "grid_with_branches": ("dml_infopro", "method.peer_method.branches.kind=dhm"),
}


def _assert_same(method: str, tmp_path: Path, *words: str) -> None:
    recipe, plan = engine.apply_overrides(engine.load_recipe(f"{method}_digits"), engine.Plan(), SMALL)
    runs = [
        engine.train(*engine.apply_overrides(recipe, plan, [*words, f"plan.executor={executor}"]), tmp_path / executor)
        for executor in ("process", "ray")
    ]
    assert runs[0].weights_sha256 == runs[1].weights_sha256
    assert runs[0].metrics == runs[1].metrics
    states = [engine.load(run.run_dir).checkpoint.states for run in runs]
    assert states[0].keys() == states[1].keys()
    for learner, state in states[0].items():
        other = states[1][learner]
        assert state.extra == other.extra, learner
        assert state.tensors.keys() == other.tensors.keys()
        for name, value in state.tensors.items():
            assert value.equal(other.tensors[name]), f"{learner} {name}"


@pytest.mark.parametrize("name", METHODS)
def test_a_method(name: str, tmp_path: Path) -> None:
    method, *words = METHODS[name]
    _assert_same(method, tmp_path, *words)


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER)
def test_a_variant(name: str, tmp_path: Path) -> None:
    method, *words = FURTHER[name]
    _assert_same(method, tmp_path, *words)

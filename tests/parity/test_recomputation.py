"""Recomputation of blocks changes no weight, no running statistic, no counter and no score, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine

# 3 steps an epoch, the last of 8 images.
SMALL = (
    *("backbone.name=resnet8", "backbone.widths=4,6,8", "seed=3", "epochs=2", "data.augmentation.crop_padding=1"),
    *("data.train_limit=72", "data.test_limit=20", "data.batch_size=32", "numerics.device=cpu"),
)
BLOCKS = "numerics.recompute=blocks"
DROPOUT = ("backbone.name=wrn_10_1", "backbone.widths=null", "backbone.dropout=0.3")
HALF = ("numerics.precision=bfloat16", "numerics.channels_last=true", "backbone.widths=8,8,8")
LARGER = ("data.name=synthetic", "data.image_size=32", "data.num_classes=10")
DEEPER = "backbone.name=resnet14"
CUT = ("method.kind=infopro", "method.num_segments=2")
GRID = ("method.peer_method.kind=infopro", "method.peer_method.num_segments=2", "method.local_weight=0.5")

Train = Callable[..., engine.Result]


def _slow(*words: str) -> Any:
    return pytest.param(words, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train with these words, or give the result of the test before that did."""
    results: dict[tuple[str, ...], engine.Result] = {}

    def trained(*words: str) -> engine.Result:
        if words not in results:
            recipe, plan = engine.apply_overrides(engine.load_recipe("end_to_end_digits"), engine.Plan(), SMALL)
            recipe, plan = engine.apply_overrides(recipe, plan, ["plan.executor=process", *words])
            results[words] = engine.train(recipe, plan, tmp_path_factory.mktemp("runs") / "run")
        return results[words]

    return trained


def assert_same(one: engine.Result, other: engine.Result) -> None:
    states = [engine.load(result.run_dir).checkpoint.states for result in (one, other)]
    assert states[0].keys() == states[1].keys()
    for learner, state in states[0].items():
        again = states[1][learner]
        # Among them batch norms' statistics, their counts, and momentum.
        assert state.tensors.keys() == again.tensors.keys()
        for name, value in state.tensors.items():
            assert value.equal(again.tensors[name]), f"{learner} {name}"
        assert {**state.extra, "memory": None} == {**again.extra, "memory": None}
    assert one.weights_sha256 == other.weights_sha256
    scores = [{name: value for name, value in run.metrics.items() if "test/" in name} for run in (one, other)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    "words",
    [
        ("method.kind=end_to_end",),
        ("method.kind=end_to_end", *DROPOUT),
        ("method.kind=end_to_end", *HALF),
        _slow("method.kind=end_to_end", "backbone.name=densenet_bc_10_4", "backbone.widths=null"),
        _slow("method.kind=end_to_end", "backbone.name=vgg11_bn", "backbone.widths=null", *LARGER),
        _slow("method.kind=end_to_end", "backbone.name=mobilenet_v1_025", "backbone.widths=null"),
        ("method.kind=greedy", "method.num_segments=2"),
        _slow("method.kind=greedy", "method.num_segments=2", "method.head=contrastive"),
        CUT,
        (*CUT, *DROPOUT),
        _slow(*CUT, *HALF),
        _slow("method.kind=dgl", "method.num_segments=2"),
        _slow("method.kind=predsim", "method.num_segments=2"),
        _slow(*CUT, "method.branches.kind=dsn"),
        ("method.kind=dml", "method.peers=2", *GRID),
        ("method.kind=dml", "method.peers=3", "method.feature_weight=0.1", "method.schedule=sequential"),
        _slow("method.kind=dml", "method.schedule=codistillation", "method.exchange=weights", *DROPOUT),
        ("method.kind=dhm",),
        ("method.kind=dhm", "method.measure_gradients_every=2"),
        ("method.kind=dhm", "method.branch_learners=true", *DROPOUT),
        _slow("method.kind=dhm", "method.branch_learners=true", *HALF),
        _slow("method.kind=dsl"),
        _slow("method.kind=one"),
        ("method.kind=gkt", DEEPER),
        ("method.kind=stochastic_depth", DEEPER),
        ("method.kind=dlb",),
        _slow("method.kind=lwr"),
        _slow("method.kind=ps_kd"),
        _slow("method.kind=cs_kd"),
        _slow("method.kind=st", DEEPER),
    ],
    ids=" ".join,
)
def test_no_number_changes(train: Train, words: tuple[str, ...]) -> None:
    assert_same(train(*words), train(*words, BLOCKS))


@pytest.mark.parametrize("blocks", [1, 2, 3, 100])
def test_groups_of_any_size_are_run_again(train: Train, blocks: int) -> None:
    assert_same(train(*CUT), train(*CUT, f"numerics.recompute={blocks}"))


def test_a_student_is_taught_the_same(train: Train) -> None:
    teacher = train("method.kind=end_to_end")
    words = ("method.kind=distillation", f"method.teacher={teacher.run_dir}")
    assert_same(train(*words), train(*words, BLOCKS))


@pytest.mark.slow
def test_replicas_exchange_their_statistics_once_more(tmp_path: Path) -> None:
    results = []
    for recompute in ("none", "blocks"):
        words = [*SMALL, *CUT, f"numerics.recompute={recompute}", "plan.replicas=2"]
        recipe, plan = engine.apply_overrides(engine.load_recipe("end_to_end_digits"), engine.Plan(), words)
        results.append(engine.train(recipe, plan, tmp_path / recompute))
    assert_same(*results)


@pytest.mark.slow
def test_ray_gives_the_same(train: Train, tmp_path: Path) -> None:
    words = [*SMALL, *CUT, BLOCKS, "plan.executor=ray", "plan.window=3"]
    recipe, plan = engine.apply_overrides(engine.load_recipe("end_to_end_digits"), engine.Plan(), words)
    assert_same(train(*CUT), engine.train(recipe, plan, tmp_path / "ray"))

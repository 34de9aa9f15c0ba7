"""Which trainings with branches are the same, bit for bit, and which are not?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

import engine

# 3 steps an epoch, the last of 8 images.
SMALL = (
    *("backbone.name=resnet8", "backbone.widths=4,6,8", "seed=3", "epochs=2", "data.augmentation.crop_padding=1"),
    *("data.train_limit=72", "data.test_limit=20", "data.batch_size=32"),
)
ALONE = ("method.kind=end_to_end",)
DSN, DSL, DHM = (("method.kind=dsn",), ("method.kind=dsl",), ("method.kind=dhm",))
APART = "method.branch_learners=true"
WIDE = ("backbone.name=wrn_10_1", "backbone.widths=null", "backbone.dropout=0.3")
HALF = "numerics.precision=bfloat16"

Train = Callable[..., engine.Result]


def _in_words(words: tuple[str, ...]) -> str:
    return " ".join(word.partition(".")[2] for word in words)


def _slow(*values: tuple[str, ...]) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


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


def _branches(result: engine.Result) -> dict[str, Tensor]:
    """Return all weights and buffers of branches, by branch and place in it, wherever they were trained."""
    found: dict[str, Tensor] = {}
    for learner, state in engine.load(result.run_dir).checkpoint.states.items():
        for name, value in state.tensors.items():
            if name.startswith("auxiliary.terms.branches.heads."):
                found[name.removeprefix("auxiliary.terms.branches.heads.").replace(".blocks.", ".")] = value
            elif name.startswith("body.") and learner in ("near_top", "deep"):
                found[f"{learner}.{name.removeprefix('body.')}"] = value
    return found


@pytest.mark.parametrize(
    "words",
    [
        DHM,
        DSL,
        _slow(
            (*DHM, "method.weight=0.3", "method.temperature=3", "method.directions=sampled", "method.label_weight=0.5")
        ),
        _slow((*DHM, "method.num_branches=1", "method.directions=bernoulli", "method.keep=0.5")),
        (*DHM, "method.shape=linear"),
        (*DHM, *WIDE),
        _slow((*DHM, HALF)),
        _slow((*DHM, "numerics.channels_last=true", "backbone.widths=8,8,8")),
        _slow((*DHM, HALF, "numerics.channels_last=true", *WIDE)),
        _slow((*DHM, "backbone.name=densenet_bc_10_4", "backbone.widths=null")),
        _slow((*DHM, "backbone.name=mobilenet_v1_025", "backbone.widths=null", "optimizer.kind=adamw")),
    ],
    ids=_in_words,
)
def test_branches_learn_the_same_wherever_they_are(train: Train, words: tuple[str, ...]) -> None:
    together, apart = train(*words), train(*words, APART)
    assert together.weights_sha256 == apart.weights_sha256
    one, other = _branches(together), _branches(apart)
    assert one
    assert one.keys() == other.keys()
    assert all(value.equal(other[name]) for name, value in one.items())
    scores = [{name: value for name, value in run.metrics.items() if "test/" in name} for run in (together, apart)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((*DHM, "method.weight=0"), DSL),
        ((*DHM, "method.weight=0", "method.label_weight=0"), ALONE),
        ((*DSL, "method.label_weight=0"), ALONE),
        ((*DSN, "method.decay=stop", "method.stop_at=0"), ALONE),
        _slow((*DHM, "method.directions=bernoulli", "method.keep=1"), DHM),
        ((*DHM, "method.directions=bernoulli", "method.keep=0"), DSL),
        ((*DHM, "method.measure_gradients_every=2"), DHM),
        (("method.kind=infopro", "method.num_segments=1", "method.branches.kind=dhm"), DHM),
        (("method.kind=dml", "method.peers=1", "method.peer_method.kind=dhm"), DHM),
        _slow((*DHM, "backbone.dropout=0.3", *WIDE[:2], "method.measure_gradients_every=1"), (*DHM, *WIDE)),
    ],
    ids=_in_words,
)
def test_two_ways_to_say_the_same(train: Train, one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert train(*one).weights_sha256 == train(*other).weights_sha256


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DSL, ALONE),
        (DHM, DSL),
        (DSN, ALONE),
        _slow((*DSN, "method.decay=none"), DSN),
        ((*DSN, "method.threshold=5"), DSN),
        _slow((*DSN, "method.loss=squared_hinge"), DSN),
        ((*DHM, "method.directions=sampled"), DHM),
        _slow((*DHM, "method.directions=to_main"), (*DHM, "method.directions=top_down")),
        _slow((*DHM, "method.temperature=2"), DHM),
        _slow((*DHM, "method.num_branches=1"), DHM),
        _slow((*DHM, "method.shape=linear"), DHM),
        (("method.kind=infopro", "method.branches.kind=dhm"), ("method.kind=infopro",)),
        _slow(("method.kind=greedy", "method.branches.kind=dsn"), ("method.kind=greedy",)),
        (("method.kind=dml", "method.peer_method.kind=dhm"), ("method.kind=dml",)),
    ],
    ids=_in_words,
)
def test_a_setting_acts(train: Train, one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert train(*one).weights_sha256 != train(*other).weights_sha256


def test_a_trained_network_has_no_branches(train: Train) -> None:
    exported = engine.load(train(*DHM).run_dir).network()
    plain = engine.load(train(*ALONE).run_dir).network()
    assert exported.state_dict().keys() == plain.state_dict().keys()
    assert sum(p.numel() for p in exported.parameters()) == sum(p.numel() for p in plain.parameters())

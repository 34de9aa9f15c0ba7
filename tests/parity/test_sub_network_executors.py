"""The process and Ray give the same networks and the same knowledge, bit for bit, of every method with sub-networks."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_CPUS = 2

# 130 images in batches of 50: two full batches and a ragged one of 30.
SMALL = (
    *("backbone.widths=4,4,4", "epochs=4", "data.augmentation.crop_padding=1", "plan.checkpoint_every_steps=2"),
    *("data.train_limit=130", "data.test_limit=60", "data.evaluation_batch_size=50"),
)
MIXED = ("method.warmup_fraction=0.5", "method.mixing_probability=0.8", "method.measure_fraction_every=2")
METHODS = {
    "st": ("method.num_subnetworks=2", "method.recalibration_images=60"),
    "mkf": MIXED,
    "stochastic_depth": (),
}
# What warms mixed knowledge fraction up is group knowledge.
FURTHER = {
    "gkt": ("gkt", "method.recalibration_images=60"),
    "gkt_every_group": ("gkt", "method.every_group=true"),
    "gkt_top_k": ("gkt", "method.top_k=4"),
    "gkt_bfloat16": ("gkt", "numerics.precision=bfloat16", "numerics.channels_last=true"),
    "mkf_exact_second_batch": ("mkf", *MIXED, "method.fraction=exact", "method.mixing_partners=second_batch"),
    "mkf_three_stores": ("mkf", *MIXED, "method.store_learners=3"),
    "stochastic_depth_dropout": ("stochastic_depth", "backbone.name=wrn_16_1", "backbone.widths=null")
    + ("backbone.dropout=0.3", "method.recalibration_images=100"),
}


def _train(method: str, folder: Path, *words: str) -> engine.Result:
    # What is given last may be what is given first, too.
    given = {word.partition("=")[0] for word in words}
    small = [word for word in SMALL if word.partition("=")[0] not in given]
    recipe, plan = engine.apply_overrides(engine.load_recipe(f"{method}_digits"), engine.Plan(), small)
    return engine.train(*engine.apply_overrides(recipe, plan, words), folder)


def _assert_same(method: str, tmp_path: Path, *words: str) -> None:
    alone = _train(method, tmp_path / "process", "plan.executor=process", *words)
    on_ray = _train(method, tmp_path / "ray", "plan.executor=ray", "plan.window=3", *words)
    assert alone.weights_sha256 == on_ray.weights_sha256
    assert alone.metrics == on_ray.metrics
    states = [engine.load(result.run_dir).checkpoint.states for result in (alone, on_ray)]
    assert states[0].keys() == states[1].keys()
    for learner, state in states[0].items():
        other = states[1][learner]
        assert state.extra == other.extra, learner
        for one, another in ((state.tensors, other.tensors), (state.knowledge, other.knowledge)):
            assert one.keys() == another.keys()
            for name, value in one.items():
                assert value.equal(another[name]), f"{learner} {name}"
    rows = sum(len(state.knowledge["rows"]) for state in states[0].values() if state.knowledge)
    assert (rows > 0) == (method in ("gkt", "mkf"))


@pytest.mark.parametrize("method", METHODS)
def test_a_method(method: str, tmp_path: Path) -> None:
    _assert_same(method, tmp_path, *METHODS[method])


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER)
def test_a_variant(name: str, tmp_path: Path) -> None:
    method, *words = FURTHER[name]
    _assert_same(method, tmp_path, *words)

"""The process and Ray give the same weights, bit for bit, with every way to cut a network and every window."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_CPUS = 2

METHODS = {
    "end_to_end": ("end_to_end_digits",),
    "greedy": ("greedy_digits", "method.num_segments=2"),
    "greedy_contrastive": ("greedy_digits", "method.num_segments=2", "method.head=contrastive"),
    "dgl": ("dgl_digits", "method.num_segments=2"),
    "predsim": ("predsim_digits", "method.num_segments=2"),
    "infopro": ("infopro_digits", "method.num_segments=3"),
    "infopro_contrastive": (
        *("infopro_digits", "method.num_segments=2", "method.head=contrastive", "method.reconstruction_share=0.5"),
    ),
}
# 130 images in batches of 50: two full batches and a ragged one of 30.
SMALL = ("data.train_limit=130", "data.test_limit=60", "data.evaluation_batch_size=50", "epochs=2")


def _train(case: str, folder: Path, *words: str) -> engine.Result:
    name, *overrides = METHODS[case]
    recipe, plan = engine.apply_overrides(engine.load_recipe(name), engine.Plan(), [*overrides, *SMALL, *words])
    return engine.train(recipe, plan, folder)


def _assert_same(case: str, window: int, tmp_path: Path, *words: str) -> None:
    alone = _train(case, tmp_path / "process", "plan.executor=process", *words)
    on_ray = _train(case, tmp_path / "ray", "plan.executor=ray", f"plan.window={window}", *words)
    states = [engine.load(result.run_dir).checkpoint.states for result in (alone, on_ray)]
    assert states[0].keys() == states[1].keys()
    for learner, state in states[0].items():
        other = states[1][learner]
        assert state.tensors.keys() == other.tensors.keys()
        for name, value in state.tensors.items():
            assert value.equal(other.tensors[name]), f"{learner} {name}"
    assert alone.weights_sha256 == on_ray.weights_sha256
    assert alone.metrics == on_ray.metrics


def test_infopro(tmp_path: Path) -> None:
    _assert_same("infopro", 4, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(set(METHODS) - {"infopro"}))
def test_every_method(case: str, tmp_path: Path) -> None:
    _assert_same(case, 3, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 2])
def test_every_window(window: int, tmp_path: Path) -> None:
    _assert_same("infopro", window, tmp_path)


@pytest.mark.slow
def test_augmentation_and_other_optimizer(tmp_path: Path) -> None:
    words = ("data.augmentation.crop_padding=1", "data.augmentation.flip=true", "optimizer.kind=adamw")
    _assert_same("infopro", 3, tmp_path, *words)


@pytest.mark.slow
def test_bfloat16_and_channels_last(tmp_path: Path) -> None:
    _assert_same("infopro", 3, tmp_path, "numerics.precision=bfloat16", "numerics.channels_last=true")


@pytest.mark.slow
def test_dropout_draws_from_the_learners_stream(tmp_path: Path) -> None:
    words = ("backbone.name=wrn_10_1", "backbone.widths=null", "backbone.dropout=0.3")
    _assert_same("infopro", 3, tmp_path, *words)

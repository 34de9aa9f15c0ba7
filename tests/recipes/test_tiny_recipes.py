"""Does every tiny recipe train, with the losses that its method stands for?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import engine
from engine import backbones
from engine.recipes import shipped_recipes

LOCAL = {"reconstruction", "contrastive"}
LAST = {"cross_entropy"}

# Loss terms of each segment; in the fourfold InfoPro lambda_2 is 0 in the first one.
TERMS: dict[str, list[set[str]]] = {
    "end_to_end_cifar10_resnet32_tiny": [LAST],
    "greedy_cifar10_resnet32_tiny": [{"cross_entropy"}, LAST],
    "dgl_cifar10_resnet32_tiny": [{"cross_entropy"}, LAST],
    "predsim_cifar10_resnet32_tiny": [{"prediction", "similarity"}, LAST],
    "infopro_cifar10_resnet32_k4_tiny": [{"reconstruction"}, LOCAL, LOCAL, LAST],
    "infopro_softmax_cifar10_resnet32_k2_tiny": [{"reconstruction", "cross_entropy"}, LAST],
    "infopro_svhn_resnet110_tiny": [LOCAL, LAST],
    "infopro_stl10_resnet110_tiny": [LOCAL, LAST],
    "infopro_imagenet_resnet101_tiny": [{"reconstruction", "cross_entropy"}, LAST],
    "infopro_imagenet_resnext101_32x8d_tiny": [{"reconstruction", "cross_entropy"}, LAST],
}
PEER = {"cross_entropy", "mimicry"}
COHORTS: dict[str, int] = {
    "dml_cifar100_resnet32_resnet32_tiny": 2,
    "dml_sequential_cifar100_resnet32_k3_tiny": 3,
    "dml_cifar100_mobilenet_resnet32_tiny": 2,
}
# Of networks that teach themselves; in the first epoch past predictions are not heard yet.
GROUPS = {"cross_entropy", "knowledge"}
ALONE: dict[str, set[str]] = {
    "stochastic_depth": LAST,
    "st": PEER,
    "gkt": GROUPS,
    "mkf": GROUPS,
    "mkf_linear": GROUPS,
    "mkf_linear_clipped": GROUPS,
    "mkf_exact": GROUPS,
    "mkf_none": GROUPS,
    "data_mix": LAST,
    "label_smoothing": LAST,
    "mixup": LAST,
    "cutmix": LAST,
    "one": {"cross_entropy", "ensemble"},
    "cs_kd": PEER,
    "ps_kd": LAST,
    "lwr": LAST,
    "dlb": PEER,
}
BRANCHED = {
    "unbranched": LAST,
    "dsn": {"cross_entropy", "branches"},
    "dsl": {"cross_entropy", "branches"},
    "dhm": {"cross_entropy", "branches"},
    "dhm_sampled": {"cross_entropy", "branches"},
}
# Trained in tests/tasks/test_retrieval.py, where they are scored.
RETRIEVAL = {
    *("dml_omniglot_tiny", "infopro_omniglot_tiny", "dhm_omniglot_tiny"),
    *("dml_market1501_mobilenet_tiny", "end_to_end_market1501_resnet50_tiny"),
}
SLOW = {
    *("infopro_svhn_resnet110_tiny", "infopro_stl10_resnet110_tiny"),
    *("infopro_imagenet_resnet101_tiny", "infopro_imagenet_resnext101_32x8d_tiny"),
}
CASES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TERMS]


def test_every_tiny_recipe_is_trained_here() -> None:
    assert {name for name in shipped_recipes() if name.endswith("_tiny")} == {
        *TERMS,
        *COHORTS,
        *RETRIEVAL,
        *(f"{arm}_cifar100_resnet50_tiny" for arm in ALONE),
        *(f"{arm}_cifar100_resnet32_tiny" for arm in BRANCHED),
    }


def terms_of(run: engine.Run) -> dict[str, set[str]]:
    """Return the loss terms that each learner reported."""
    terms: dict[str, set[str]] = {}
    for record in run.metrics():
        if record.split == "train" and record.learner is not None and record.name.startswith("loss/"):
            terms.setdefault(record.learner, set()).add(record.name.removeprefix("loss/"))
    return {learner: found - {"total"} for learner, found in terms.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "peers"), COHORTS.items())
def test_a_tiny_cohort_trains_an_epoch(name: str, peers: int, tmp_path: Path) -> None:
    recipe = shipped_recipes()[name]()
    result = engine.train(recipe, engine.Plan(executor="process"), run_dir=tmp_path / "run")
    assert (result.status, result.epochs, result.steps, result.diverged) == ("finished", 1, 2, {})
    run = engine.load(tmp_path / "run")
    assert terms_of(run) == {f"peer{place}": PEER for place in range(peers)}
    for place in range(peers):
        assert all(torch.isfinite(parameter).all() for parameter in run.network(f"peer{place}").parameters())


@pytest.mark.parametrize("name", CASES)
def test_a_tiny_recipe_trains_an_epoch(name: str, tmp_path: Path) -> None:
    recipe = shipped_recipes()[name]()
    result = engine.train(recipe, engine.Plan(executor="process"), run_dir=tmp_path / "run")
    assert (result.status, result.epochs, result.steps) == ("finished", 1, 2)
    assert result.test_score is not None

    run = engine.load(tmp_path / "run")
    assert run.recipe == recipe
    assert terms_of(run) == {f"segment{index}": expected for index, expected in enumerate(TERMS[name])}

    trained = run.network()
    fresh = backbones.build(recipe.backbone, run.facts.num_classes, run.facts.image_shape, recipe.seed)
    parameters = zip(fresh.named_parameters(), trained.parameters(), strict=True)
    unchanged = [name for (name, before), after in parameters if torch.equal(before, after)]
    assert unchanged == []
    assert all(torch.isfinite(parameter).all() for parameter in trained.parameters())


@pytest.mark.parametrize(
    ("name", "learner", "expected"),
    [
        *((f"{arm}_cifar100_resnet50_tiny", "network", terms) for arm, terms in ALONE.items()),
        *((f"{arm}_cifar100_resnet32_tiny", "segment0", terms) for arm, terms in BRANCHED.items()),
    ],
)
def test_a_tiny_network_that_teaches_itself_trains_an_epoch(
    name: str, learner: str, expected: set[str], tmp_path: Path
) -> None:
    recipe = shipped_recipes()[name]()
    result = engine.train(recipe, engine.Plan(executor="process"), run_dir=tmp_path / "run")
    assert (result.status, result.epochs, result.steps) == ("finished", 1, 2)
    run = engine.load(tmp_path / "run")
    assert run.recipe == recipe
    assert terms_of(run) == {learner: expected}
    assert all(torch.isfinite(parameter).all() for parameter in run.network().parameters())

"""Does label smoothing of classification reach the classifier of each network, that alone, and no score?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import engine
from engine.data import open_source
from engine.errors import RecipeError
from engine.learners import Learner
from engine.methods import method_of
from engine.objectives import Context
from engine.recipes import (
    DHM,
    DML,
    DSN,
    METHODS,
    Classification,
    EndToEnd,
    InfoPro,
    MethodSettings,
    Recipe,
    StochasticDepth,
)
from engine.streams import generator

EPSILON, CLASSES = 0.1, 10
SMOOTHED = Classification(label_smoothing=EPSILON)
LOGITS = torch.randn(7, CLASSES, generator=generator("label smoothing"))
LABELS = torch.tensor([3, 0, 9, -1, 4, 4, 1])
CPU = torch.device("cpu")
# Their label losses are the papers', with labels that are mixed, remembered, shared among passes or smoothed already.
REFUSING = ("label_smoothing", "data_mix", "one", "cs_kd", "ps_kd", "lwr", "dlb", "st", "gkt", "mkf")

MakeRecipe = Callable[..., Recipe]


def by_hand(epsilon: float) -> float:
    """Return the mean over the labelled images of -sum_c t_c log p_c, t = (1 - epsilon) y + epsilon / classes."""
    known = LABELS >= 0
    targets = (1 - epsilon) * F.one_hot(LABELS[known], CLASSES) + epsilon / CLASSES
    return float(-(targets * LOGITS[known].log_softmax(dim=1)).sum(dim=1).mean())


def learners_of(recipe: Recipe) -> tuple[dict[str, Learner], set[str]]:
    """Return all learners with their initial weights, and the names of those that hold the end of a network."""
    source = open_source(recipe.data, recipe.seed)
    method = method_of(recipe)
    team = method.team(recipe, source.facts)
    found = {name: method.build_learner(recipe, source.facts, 4, name, CPU) for name in team.names}
    source.close()
    learners = {name: learner for name, learner in found.items() if isinstance(learner, Learner)}
    return learners, {network.learners[-1] for network in team.networks.values()}


@pytest.mark.parametrize(
    "method",
    [
        *(EndToEnd(), InfoPro(num_segments=3), StochasticDepth(), DSN(), DHM()),
        *(DML(), DML(peer_method=InfoPro()), DML(peer_method=DHM())),
    ],
    ids=lambda method: f"{method.kind}-{method.inside.kind}",
)
def test_the_end_of_each_network_learns_from_it_and_local_heads_do_not(
    method: MethodSettings, tiny_recipe: MakeRecipe
) -> None:
    learners, ends = learners_of(tiny_recipe(method=method, task=SMOOTHED))
    for name, learner in learners.items():
        term = learner.objective.terms["cross_entropy"]
        loss: Tensor = term(LOGITS, Context(LABELS, predictions=LOGITS)).loss
        assert loss.item() == pytest.approx(by_hand(EPSILON if name in ends else 0.0), rel=1e-5), name
    assert abs(by_hand(EPSILON) - by_hand(0.0)) > 0.01


def first_step(recipe: Recipe) -> dict[str, float]:
    """Return what the only learner records of its first step."""
    source = open_source(recipe.data, recipe.seed)
    learners, (name,) = learners_of(recipe)
    batch = source.batch(0, 0)
    source.close()
    learners[name].forward(batch, {})
    learners[name].update(batch, {})
    return learners[name].ask_metrics()


def test_branches_keep_their_labels_and_are_compared_with_the_loss_that_is_smoothed(tiny_recipe: MakeRecipe) -> None:
    method = DHM(measure_gradients_every=1)
    plain, smoothed = (first_step(tiny_recipe(method=method, task=task)) for task in (Classification(), SMOOTHED))
    kept = {name for name in plain if name.startswith(("loss/", "branches/")) and plain[name] == smoothed[name]}
    changed = {name for name in plain if name.startswith(("loss/", "branches/"))} - kept
    assert {"loss/cross_entropy", "loss/total"} <= changed
    cosines = {name for name in plain if "gradient_cosine" in name}
    assert changed - {"loss/cross_entropy", "loss/total"} == {name for name in cosines if "/main~" in name}
    assert "loss/branches" in kept and cosines & kept


def test_scores_are_without_it(tiny_recipe: MakeRecipe, tmp_path: Path, own_cache: None) -> None:
    recipe = tiny_recipe(method=EndToEnd(), task=SMOOTHED, epochs=1)
    result = engine.train(recipe, engine.Plan(executor="process"), tmp_path / "run")
    network, source = engine.load(result.run_dir).network(), open_source(recipe.data, recipe.seed)
    (mean,), (std,) = source.facts.mean, source.facts.std
    loss, images = 0.0, 0
    with torch.no_grad():
        for batch in source.evaluation_batches("test"):
            logits = network((torch.from_numpy(batch.images).float() / 255 - mean) / std)
            loss += F.cross_entropy(logits, torch.from_numpy(batch.labels), reduction="sum").item()
            images += len(batch.labels)
    source.close()
    assert result.metrics["test/loss"] == pytest.approx(loss / images, rel=1e-5)


REFUSED: list[Any] = [
    *(METHODS[kind]() for kind in REFUSING),
    *(DSN(loss="squared_hinge"), DHM(branch_learners=True), DML(peer_method=DSN(loss="squared_hinge"))),
]


@pytest.mark.parametrize("method", REFUSED, ids=lambda method: f"{method.kind}-{method.inside.kind}")
def test_methods_with_a_label_loss_of_their_own_refuse_it(method: MethodSettings, tiny_recipe: MakeRecipe) -> None:
    words = rf"^task\.label_smoothing=0\.1: method\.kind={method.kind} has a label loss .* set task\.label_smoothing=0,"
    with pytest.raises(RecipeError, match=words):
        method_of(tiny_recipe(method=method, task=SMOOTHED))
    assert method_of(tiny_recipe(method=method, task=Classification(label_smoothing=0.0))) is not None


def test_every_other_method_takes_it(tiny_recipe: MakeRecipe) -> None:
    for kind in sorted(METHODS.keys() - set(REFUSING)):
        assert method_of(tiny_recipe(method=METHODS[kind](), task=SMOOTHED)) is not None

"""Do peers compare the distances within a batch, whatever the width of their features?"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import engine
from engine.objectives import Context, DistanceMimicry
from engine.recipes import DML, Backbone, Peer, load_recipe, recipe_to_dict
from engine.streams import generator

RAY_CPUS = 2
LABELS = torch.zeros(5, dtype=torch.int64)


def features(width: int, *key: str) -> Tensor:
    return torch.randn(5, width, generator=generator("distances", *key))


def by_hand(own: Tensor, peers: list[Tensor]) -> float:
    def away(rows: list[list[float]], one: int, other: int) -> float:
        return math.dist(rows[one], rows[other])

    losses = [
        sum(
            (away(own.tolist(), one, other) - away(peer.tolist(), one, other)) ** 2
            for one in range(5)
            for other in range(5)
        )
        / 25
        for peer in peers
    ]
    return sum(losses) / len(losses)


def loss_of(own: Tensor, messages: dict[str, Tensor], teachers: tuple[str, ...]) -> Tensor:
    context = Context(LABELS, messages=messages, hooked={"pooled": own})
    return DistanceMimicry(teachers)(torch.zeros(5, 2), context).loss


def test_value_is_that_of_the_formula_for_peers_of_any_width() -> None:
    own, one, other = features(4, "own"), features(4, "one"), features(7, "other")
    messages = {"one": one, "other": other}
    assert float(loss_of(own, messages, ("one", "other"))) == pytest.approx(by_hand(own, [one, other]), abs=1e-5)
    assert float(loss_of(own, {"one": own}, ("one",))) == 0.0


def test_peers_get_no_gradient_and_those_that_have_left_do_not_count() -> None:
    own, peer = features(4, "own").requires_grad_(), features(4, "one").requires_grad_()
    left = torch.full((5, 4), math.nan)
    loss = loss_of(own, {"one": peer, "left": left}, ("one", "left", "absent"))
    assert float(loss.detach()) == pytest.approx(by_hand(own, [peer]), abs=1e-5)
    loss.backward()
    assert peer.grad is None
    assert own.grad is not None
    assert own.grad.isfinite().all()
    assert float(loss_of(own, {}, ("one",))) == 0.0


def test_recipes_without_it_are_written_as_ever() -> None:
    recipe = load_recipe("dml_digits")
    assert "distance_weight" not in recipe_to_dict(recipe)["method"]


@pytest.mark.slow
def test_in_process_and_on_ray_are_equal(tmp_path: Path, local_ray: None) -> None:
    peers = (Peer(), Peer(backbone=Backbone(name="resnet8", widths=(4, 8, 12))))
    recipe = load_recipe("dml_omniglot_tiny")
    data = dataclasses.replace(recipe.data, classes_per_batch=4)
    recipe = dataclasses.replace(recipe, data=data, method=DML(peers=peers, distance_weight=0.5))
    alone = engine.train(recipe, engine.Plan(executor="process"), tmp_path / "process")
    on_ray = engine.train(recipe, engine.Plan(executor="ray"), tmp_path / "ray")
    assert alone.weights_sha256 == on_ray.weights_sha256
    assert alone.metrics == on_ray.metrics
    losses = {record.name for record in engine.load(alone.run_dir).metrics() if record.name.startswith("loss/")}
    assert "loss/distance_mimicry" in losses

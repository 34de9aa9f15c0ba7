"""Is the agreement of branches the cosine of their gradients, and does measuring it change nothing?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives import BranchHead, Context, kl_divergence
from engine.streams import generator, seeded
from tests.objectives.branched_network import (
    BATCH,
    CLASSES,
    LABELS,
    assert_equal,
    branches_of,
    heads_of,
    logits_of,
    network_of,
    observed_of,
    step,
)


def cosine(first: Tensor, second: Tensor) -> float:
    return float((first * second).sum() / first.norm() / second.norm())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("weight", "smoothing"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.2)])
def test_agreement_is_the_cosine_of_gradients_in_the_output_of_the_lower_fork(
    reverse: bool, weight: float, smoothing: float
) -> None:
    heads = heads_of()[::-1] if reverse else heads_of()
    logits, hooked = logits_of(heads, network_of())
    term = branches_of(heads, label_weight=0.4, weight=weight, measure_gradients_every=2, own_smoothing=smoothing)
    observed = observed_of(term(logits["main"], Context(LABELS, hooked=hooked, predictions=logits["main"], step=4)))
    losses = {"label": {name: F.cross_entropy(each, LABELS) for name, each in logits.items()}}
    losses["label"]["main"] = F.cross_entropy(logits["main"], LABELS, label_smoothing=smoothing)
    if weight:
        losses["total"] = {}
        for name, own in logits.items():
            pulls = [kl_divergence(other, own) for teacher, other in logits.items() if teacher != name]
            label = losses["label"][name] * (1.0 if name == "main" else 0.4)
            losses["total"][name] = label + weight * torch.stack(pulls).sum()
    expected = {}
    for kind, each in losses.items():
        for first, second, fork in [("main", "near_top", "high"), ("main", "deep", "low"), ("near_top", "deep", "low")]:
            gradients = [
                torch.autograd.grad(each[name], hooked[fork], retain_graph=True)[0] for name in (first, second)
            ]
            pair = f"{second}~{first}" if reverse and first == "near_top" else f"{first}~{second}"
            expected[f"branches/gradient_cosine/{kind}/{pair}"] = cosine(*gradients)
    found = {name: each for name, each in observed.items() if "cosine" in name}
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({round(each, 3) for each in found.values()}) == len(found)


def test_agreement_is_measured_in_its_steps_only() -> None:
    for number, measured in [(0, True), (1, False), (2, False), (3, True)]:
        _, _, observed = step(branches_of(measure_gradients_every=3), number=number)
        assert any("cosine" in name for name in observed) == measured
    assert not any("cosine" in name for name in step(branches_of(), number=0)[2])


@pytest.mark.parametrize("half", [False, True])
def test_measuring_agreement_changes_no_gradient(half: bool) -> None:
    settings: dict[str, Any] = {"weight": 0.5, "directions": "sampled"}
    plain = step(branches_of(heads_of(0.5), **settings), half=half)
    measured = step(branches_of(heads_of(0.5), measure_gradients_every=1, **settings), half=half)
    assert torch.equal(plain[0], measured[0])
    assert_equal(plain[1], measured[1])
    assert len(measured[2]) == len(plain[2]) + 6


def test_gradients_that_agree_or_are_none_have_cosine_1_and_0() -> None:
    class Same(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features

    shared = torch.randn(BATCH, CLASSES, generator=generator("branches", "same")).requires_grad_()
    term = branches_of([BranchHead("near_top", "block", Same())], measure_gradients_every=1)
    name = "branches/gradient_cosine/label/main~near_top"
    main = shared.view_as(shared)
    observed = term(main, Context(LABELS, hooked={"block": shared}, predictions=main)).observed
    assert observed[name].item() == pytest.approx(1.0, abs=1e-6)
    unlabelled = torch.full((BATCH,), -1)
    observed = term(main, Context(unlabelled, hooked={"block": shared}, predictions=main)).observed
    assert observed[name].item() == 0.0


def test_agreement_does_not_depend_on_the_size_of_the_gradients() -> None:
    shared = torch.randn(BATCH, 6, generator=generator("branches", "shared")).requires_grad_()
    name = "branches/gradient_cosine/label/main~near_top"
    found = []
    for size in (1.0, 1e-9):
        with seeded("branches", "small"):
            own, branch = nn.Linear(6, CLASSES, bias=False), nn.Linear(6, CLASSES, bias=False)
        with torch.no_grad():
            own.weight *= size
            branch.weight *= size
        main = own(shared)
        term = branches_of([BranchHead("near_top", "block", branch)], measure_gradients_every=1)
        value = term(main, Context(LABELS, hooked={"block": shared}, predictions=main))
        losses = [F.cross_entropy(each, LABELS) for each in (main, branch(shared))]
        gradients = [torch.autograd.grad(loss, shared, retain_graph=True)[0].double() for loss in losses]
        assert value.observed[name].item() == pytest.approx(cosine(*gradients), abs=1e-5)
        found.append(value.observed[name].item())
    assert min(map(abs, found)) > 0.05

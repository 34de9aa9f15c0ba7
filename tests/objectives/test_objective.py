"""Do terms and weights make the total that is minimised, and nothing else?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from engine.errors import RecipeError
from engine.objectives import (
    AuxiliaryClassification,
    Classification,
    Context,
    Contrastive,
    Objective,
    Reconstruction,
    SimilarityMatching,
    Term,
    TermValue,
    cifar_decoder,
    conv_head,
)
from engine.streams import generator, seeded


class Scaled(Term):
    """A loss that is a known multiple of the mean feature."""

    def __init__(self, name: str, factor: float, needs_pixels: bool = False) -> None:
        super().__init__()
        self.name = name
        self.needs_pixels = needs_pixels
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, features: Tensor, context: Context) -> TermValue:
        if math.isnan(self.factor.item()):
            raise RuntimeError("computed")
        return TermValue(self.factor * features.mean())


CONTEXT = Context(torch.tensor([0, 1]))


def test_total_is_the_weighted_sum_and_losses_are_unweighted() -> None:
    objective = Objective({"b": Scaled("b", 3.0), "a": Scaled("a", 5.0)}, {"b": 2.0, "a": 0.5})
    features = torch.full((2, 4), 2.0, requires_grad=True)
    value = objective(features, CONTEXT)
    assert value.total.item() == 2.0 * 6.0 + 0.5 * 10.0
    assert {name: loss.item() for name, loss in value.losses.items()} == {"a": 10.0, "b": 6.0}
    assert not any(loss.requires_grad for loss in value.losses.values())
    value.total.backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, torch.full((2, 4), (2.0 * 3.0 + 0.5 * 5.0) / 8))


def test_order_in_which_terms_are_given_does_not_matter() -> None:
    terms = {name: Scaled(name, factor) for name, factor in [("x", 0.1), ("y", 1e8), ("z", -1e8)]}
    weights = {"x": 0.3, "y": 1.0, "z": 1.0}
    features = torch.ones(1)
    forwards = Objective(terms, weights)
    backwards = Objective(dict(reversed(terms.items())), dict(reversed(weights.items())))
    assert forwards(features, CONTEXT).total.item() == backwards(features, CONTEXT).total.item()
    assert [name for name, _ in forwards.named_parameters()] == [name for name, _ in backwards.named_parameters()]


def test_terms_of_weight_zero_are_neither_kept_nor_computed() -> None:
    terms = {"kept": Scaled("kept", 1.0), "dropped": Scaled("dropped", math.nan, needs_pixels=True)}
    objective = Objective(terms, {"kept": 1.0, "dropped": 0.0, "never_built": 0})
    assert [name for name, _ in objective.named_parameters()] == ["terms.kept.factor"]
    assert not objective.needs_pixels
    assert set(objective(torch.ones(2), CONTEXT).losses) == {"kept"}


def test_needs_pixels_follows_the_terms() -> None:
    terms = {"a": Scaled("a", 1.0), "b": Scaled("b", 1.0, needs_pixels=True)}
    assert Objective(terms, {"a": 1.0, "b": 1.0}).needs_pixels


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"reconstruction=0.0.*positive weight"):
        Objective({}, {"cross_entropy": 0, "reconstruction": 0.0})


def test_logits_come_from_the_term_that_classifies_and_carry_no_graph() -> None:
    objective = Objective({"a": Scaled("a", 1.0), "cross_entropy": Classification()}, {"a": 1.0, "cross_entropy": 1.0})
    features = torch.randn(2, 3, generator=generator("logits"), requires_grad=True)
    value = objective(features, CONTEXT)
    assert value.logits is not None and torch.equal(value.logits, features.detach())
    assert not value.logits.requires_grad
    assert Objective({"a": Scaled("a", 1.0)}, {"a": 1.0})(features, CONTEXT).logits is None


def all_terms() -> dict[str, Term]:
    shape = (4, 4, 4)
    with seeded("all terms"):
        return {
            "cross_entropy": AuxiliaryClassification(conv_head(shape, 3, final_channels=8)),
            "contrastive": Contrastive(conv_head(shape, 16, final_channels=8)),
            "reconstruction": Reconstruction(cifar_decoder(shape, (3, 8, 8))),
            "similarity": SimilarityMatching(shape, num_classes=3),
        }


def test_every_term_works_under_autocast_on_half_precision_features() -> None:
    terms = all_terms()
    assert {name: term.name for name, term in terms.items()} == {name: name for name in terms}
    objective = Objective(terms, dict.fromkeys(terms, 1.0))
    features = torch.rand(6, 4, 4, 4, generator=generator("f")).bfloat16().requires_grad_()
    context = Context(torch.arange(6) % 3, torch.rand(6, 3, 8, 8, generator=generator("p")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = objective(features, context)
    value.total.backward()
    assert value.total.dtype == torch.float32
    assert all(loss.dtype == torch.float32 for loss in value.losses.values())
    assert all(parameter.grad is not None for parameter in objective.parameters())
    assert features.grad is not None and bool(features.grad.isfinite().all())


def test_every_term_can_be_sized_on_the_meta_device() -> None:
    terms = all_terms()
    objective = Objective(terms, dict.fromkeys(terms, 1.0)).to("meta")
    context = Context(torch.zeros(6, dtype=torch.int64, device="meta"), torch.zeros(6, 3, 8, 8, device="meta"))
    assert objective(torch.zeros(6, 4, 4, 4, device="meta"), context).total.shape == ()

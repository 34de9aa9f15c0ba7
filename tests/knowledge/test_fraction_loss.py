"""Is the fraction loss that of the paper's figure 5, and is each of its causes zero where there is none?"""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from engine.knowledge.fraction import split_knowledge
from engine.knowledge.fraction_loss import fraction_losses
from engine.recipes import Fraction
from engine.streams import generator

RULES = get_args(Fraction)
ROWS, CLASSES = 300, 10


def softmax(*key: int | str) -> Tensor:
    return torch.softmax(2 * torch.randn(ROWS, CLASSES, generator=generator(*key), dtype=torch.float64), dim=1)


def losses(**changes: Tensor) -> dict[str, float]:
    given = {
        "mixed": softmax("m"),
        "first": softmax("first"),
        "second": softmax("second"),
        "true_first": softmax("true", "first"),
        "true_second": softmax("true", "second"),
        "share": torch.rand(ROWS, generator=generator("share"), dtype=torch.float64),
    }
    return fraction_losses(**{**given, **changes}, random_numbers=generator("random"))


def mixture(share: Tensor) -> Tensor:
    return share.unsqueeze(1) * softmax("true", "first") + (1 - share).unsqueeze(1) * softmax("true", "second")


def test_names_and_types() -> None:
    found = losses()
    splits = {f"{rule}{cause}" for rule in RULES for cause in ("", "/bases", "/model")}
    assert set(found) == splits | {"random", "model_error", "base_error", "negative_share"}
    assert all(isinstance(value, float) and value == value for value in found.values())


@pytest.mark.parametrize("rule", RULES)
def test_is_the_loss_of_the_estimates(rule: Fraction) -> None:
    share = torch.full((ROWS,), 0.4, dtype=torch.float64)
    found = split_knowledge(softmax("m"), softmax("first"), softmax("second"), share, rule)
    learns_first = rule not in ("keep", "none", "linear_clipped_heavy")
    first = found.first if learns_first else softmax("first")
    second = found.second if rule != "keep" else softmax("second")
    expected = 0.0
    for row in range(ROWS):
        errors = first[row] - softmax("true", "first")[row], second[row] - softmax("true", "second")[row]
        expected += 0.4 * (errors[0] @ errors[0]).item() + 0.6 * (errors[1] @ errors[1]).item()
    assert losses(share=share)[rule] == pytest.approx(expected / ROWS)


def test_causes_are_apart() -> None:
    share = torch.rand(ROWS, generator=generator("share"), dtype=torch.float64).clamp(0.06, 0.94)
    exact_mixture = losses(mixed=mixture(share), share=share)
    assert exact_mixture["model_error"] == pytest.approx(0.0, abs=1e-15)
    true_bases = losses(first=softmax("true", "first"), second=softmax("true", "second"), share=share)
    assert true_bases["base_error"] == 0.0
    both = losses(share=share)
    for rule in RULES:
        assert exact_mixture[rule] == pytest.approx(exact_mixture[f"{rule}/bases"], abs=1e-12)
        assert both[f"{rule}/bases"] == pytest.approx(exact_mixture[rule], abs=1e-12)
        assert true_bases[rule] == pytest.approx(true_bases[f"{rule}/model"], abs=1e-12)
        assert both[f"{rule}/model"] == pytest.approx(true_bases[rule], abs=1e-12)
    assert exact_mixture["exact/model"] == pytest.approx(0.0, abs=1e-12)
    assert exact_mixture["shared/model"] == pytest.approx(0.0, abs=1e-12)
    assert exact_mixture["exact"] <= exact_mixture["shared"] <= exact_mixture["keep"]
    assert both["keep"] == both["keep/bases"] == both["base_error"] and both["keep/model"] == 0.0
    assert both["model_error"] == pytest.approx((softmax("m") - mixture(share)).square().sum(dim=1).mean().item())


def test_errors_of_the_model_enter_shared_as_they_are_and_linear_divided_by_the_share() -> None:
    share = torch.full((ROWS,), 0.25, dtype=torch.float64)
    found = losses(first=softmax("true", "first"), second=softmax("true", "second"), share=share)
    assert found["shared"] == pytest.approx(found["model_error"])
    assert found["linear"] == pytest.approx((1 / 0.25 + 1 / 0.75) * found["model_error"])


def test_raw_linear_changes_nothing_outside_its_shares() -> None:
    found = losses(share=torch.full((ROWS,), 0.02, dtype=torch.float64))
    assert found["linear"] == found["base_error"] and found["negative_share"] == 0.0
    assert losses(share=torch.full((ROWS,), 0.5, dtype=torch.float64))["negative_share"] > 0.1


def test_counts_rows_with_both_bases_only() -> None:
    first, second = softmax("first"), softmax("second")
    first[: ROWS // 2] = torch.nan
    second[-10:] = torch.nan
    rows = slice(ROWS // 2, -10)
    found = losses(first=first, second=second)
    names = ("mixed", "first", "second", "true_first", "true_second", "share")
    values = (softmax("m"), first, second, softmax("true", "first"), softmax("true", "second"))
    share = torch.rand(ROWS, generator=generator("share"), dtype=torch.float64)
    alone = losses(**{name: value[rows] for name, value in zip(names, (*values, share), strict=True)})
    assert found == pytest.approx(alone)
    assert losses(first=torch.full_like(first, torch.nan)) == {}


def test_random_is_uniform_on_the_simplex_and_drawn_from_its_generator_alone() -> None:
    state = torch.get_rng_state()
    one, same = losses(), losses()
    assert torch.equal(state, torch.get_rng_state())
    assert one == same
    # Of a uniform point, E ||x - e||^2 = 2 / (n + 1) - 2 / n + 1 for a vertex e.
    vertex = torch.eye(CLASSES, dtype=torch.float64)[0].expand(ROWS, CLASSES)
    found = losses(true_first=vertex, true_second=vertex)["random"]
    assert found == pytest.approx(2 / (CLASSES + 1) - 2 / CLASSES + 1, abs=0.02)
    other = fraction_losses(
        softmax("m"), softmax("first"), softmax("second"), vertex, vertex, torch.ones(ROWS), generator("other")
    )
    assert other["random"] != found

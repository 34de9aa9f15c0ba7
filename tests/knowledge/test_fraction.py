"""Does splitting a prediction on a mixture give what the rules say, and the exact rule the optimum of its program?"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from engine.knowledge.fraction import Estimates, split_knowledge
from engine.recipes import Fraction
from engine.streams import generator

RULES = get_args(Fraction)
SHARES = (0.001001, 0.05, 0.3, 0.5, 0.7, 0.95, 0.998999)
KINDS = ("dirichlet", "softmax", "one-hot")


def probabilities(kind: str, rows: int, classes: int, *key: int | str) -> Tensor:
    stream = generator("probabilities", kind, *key)
    if kind == "softmax":
        return torch.softmax(8 * torch.randn(rows, classes, generator=stream, dtype=torch.float64), dim=1)
    if kind == "one-hot":
        return torch.eye(classes, dtype=torch.float64)[torch.randint(classes, (rows,), generator=stream)]
    drawn = torch.empty(rows, classes, dtype=torch.float64).exponential_(generator=stream)
    return drawn / drawn.sum(dim=1, keepdim=True)


def three(kind: str, rows: int, classes: int, *key: int | str) -> tuple[Tensor, Tensor, Tensor]:
    mixed, first, second = (probabilities(kind, rows, classes, *key, part) for part in range(3))
    return mixed, first, second


def shares(rows: int, share: float) -> Tensor:
    return torch.full((rows,), share, dtype=torch.float64)


def objective(found: Estimates, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    errors = (found.first - first).square().sum(dim=1), (found.second - second).square().sum(dim=1)
    return share * errors[0] + (1 - share) * errors[1]


def solved_by_slsqp(mixed: np.ndarray, first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Solve the whole program in both images at once."""
    classes = len(mixed)
    weights = np.repeat([share, 1 - share], classes)
    bases = np.concatenate([first, second])
    coupling = np.hstack([share * np.eye(classes), (1 - share) * np.eye(classes)])
    sums = np.repeat(np.eye(2), classes, axis=1)[:1]
    equalities = np.vstack([coupling, sums])
    wanted = np.concatenate([mixed, [1.0]])
    result = minimize(
        lambda point: weights @ (point - bases) ** 2 / min(share, 1 - share),
        np.concatenate([mixed, mixed]),
        jac=lambda point: 2 * weights * (point - bases) / min(share, 1 - share),
        bounds=[(0, 1)] * (2 * classes),
        constraints={"type": "eq", "fun": lambda point: equalities @ point - wanted, "jac": lambda point: equalities},
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 500},
    )
    assert np.abs(equalities @ result.x - wanted).max() < 1e-9
    return result.x


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_exact_is_the_optimum_of_the_whole_program(kind: str, classes: int, share: float) -> None:
    mixed, first, second = three(kind, 4, classes, "optimum", classes)
    found = split_knowledge(mixed, first, second, shares(4, share), "exact")
    for row in range(4):
        expected = solved_by_slsqp(mixed[row].numpy(), first[row].numpy(), second[row].numpy(), share)
        both = np.concatenate([found.first[row].numpy(), found.second[row].numpy()])
        weights = np.repeat([share, 1 - share], classes)
        bases = np.concatenate([first[row].numpy(), second[row].numpy()])
        assert weights @ (both - bases) ** 2 <= weights @ (expected - bases) ** 2 + 1e-9
        np.testing.assert_allclose(both, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_exact_is_feasible(kind: str, classes: int, share: float) -> None:
    mixed, first, second = three(kind, 100, classes)
    found = split_knowledge(mixed, first, second, shares(100, share), "exact")
    for estimate in (found.first, found.second):
        assert (estimate >= 0).all()
        assert (estimate.sum(dim=1) - 1).abs().max() < 1e-12
    assert (share * found.first + (1 - share) * found.second - mixed).abs().max() < 1e-12
    # Nothing that is feasible is nearer: m for both, and every way between it and the solution.
    nearest = objective(found, first, second, shares(100, share))
    for part in (0.01, 0.5, 1.0):
        other = Estimates(
            torch.lerp(found.first, mixed, part), torch.lerp(found.second, mixed, part), *[found.first_weight] * 2
        )
        assert (nearest <= objective(other, first, second, shares(100, share)) + 1e-12).all()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("rule", ["linear", "linear_clipped", "shared", "shared_clipped", "exact"])
def test_images_may_be_swapped_and_classes_renamed(rule: Fraction, share: float) -> None:
    mixed, first, second = three("softmax", 50, 10)
    found = split_knowledge(mixed, first, second, shares(50, share), rule)
    swapped = split_knowledge(mixed, second, first, 1 - shares(50, share), rule)
    torch.testing.assert_close(found.first, swapped.second, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.second, swapped.first, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.first_weight, swapped.second_weight, rtol=0, atol=1e-15)
    order = torch.randperm(10, generator=generator("classes"))
    renamed = split_knowledge(mixed[:, order], first[:, order], second[:, order], shares(50, share), rule)
    torch.testing.assert_close(renamed.first, found.first[:, order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("rule", ["linear", "linear_clipped", "shared", "shared_clipped", "exact"])
def test_true_bases_and_an_exact_mixture_give_the_truth(rule: Fraction, share: float) -> None:
    _, first, second = three("softmax", 50, 10)
    found = split_knowledge(share * first + (1 - share) * second, first, second, shares(50, share), rule)
    torch.testing.assert_close(found.first, first, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.second, second, rtol=0, atol=1e-12)
    assert torch.equal(found.first_weight, shares(50, share))
    assert torch.equal(found.second_weight, 1 - shares(50, share))


@pytest.mark.parametrize("kind", KINDS)
def test_with_an_exact_mixture_exact_is_nearer_the_truth_than_shared_than_the_bases(kind: str) -> None:
    rows = 500
    true_first, true_second, first = three(kind, rows, 20, "true")
    second = probabilities(kind, rows, 20, "base")
    share = torch.rand(rows, generator=generator("shares"), dtype=torch.float64).clamp(0.01, 0.99)
    mixed = torch.lerp(true_second, true_first, share.unsqueeze(1))
    exact, shared, keep = (
        objective(split_knowledge(mixed, first, second, share, rule), true_first, true_second, share)
        for rule in ("exact", "shared", "keep")
    )
    assert (exact <= shared + 1e-12).all() and (shared <= keep + 1e-12).all()
    assert exact.mean() < 0.9 * keep.mean()


def test_shared_that_is_feasible_is_exact() -> None:
    truth, first, second = three("dirichlet", 50, 10)
    first, second = 0.1 * first + 0.09, 0.1 * second + 0.09
    mixed = 0.5 * first + 0.5 * second + 0.05 * (truth - 0.1)
    shared = split_knowledge(mixed, first, second, shares(50, 0.3), "shared")
    assert (shared.first > 0).all() and (shared.second > 0).all()
    exact = split_knowledge(mixed, first, second, shares(50, 0.3), "exact")
    torch.testing.assert_close(exact.first, shared.first, rtol=0, atol=1e-13)
    torch.testing.assert_close(exact.second, shared.second, rtol=0, atol=1e-13)


def test_formulas_by_hand() -> None:
    mixed = torch.tensor([[0.5, 0.3, 0.2]])
    first, second = torch.tensor([[0.6, 0.4, 0.0]]), torch.tensor([[0.0, 0.5, 0.5]])
    share = torch.tensor([0.75])

    def check(rule: Fraction, of_first: list[float], of_second: list[float], weights: tuple[float, float]) -> None:
        found = split_knowledge(mixed, first, second, share, rule)
        assert found.first.dtype == torch.float32
        torch.testing.assert_close(found.first, torch.tensor([of_first]))
        torch.testing.assert_close(found.second, torch.tensor([of_second]))
        assert (found.first_weight.item(), found.second_weight.item()) == weights

    check("keep", [0.6, 0.4, 0.0], [0.0, 0.5, 0.5], (0.0, 0.0))
    check("none", [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], (0.75, 0.0))
    check("linear", [2 / 3, 0.7 / 3, 0.1], [0.2, 0.0, 0.8], (0.75, 0.25))
    check("linear_clipped", [2 / 3, 0.7 / 3, 0.1], [0.2, 0.0, 0.8], (0.75, 0.25))
    check("linear_clipped_heavy", [2 / 3, 0.7 / 3, 0.1], [0.2, 0.0, 0.8], (0.75, 0.0))
    # r = 0.05, -0.125, 0.075.
    check("shared", [0.65, 0.275, 0.075], [0.05, 0.375, 0.575], (0.75, 0.25))
    check("exact", [0.65, 0.275, 0.075], [0.05, 0.375, 0.575], (0.75, 0.25))


def test_clipped_rules_divide_by_the_sum() -> None:
    mixed, first, second = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 1.0]])
    share = torch.tensor([0.5])
    raw = split_knowledge(mixed, first, second, share, "linear")
    torch.testing.assert_close(raw.first, torch.tensor([[1.8, -0.8]]))
    clipped = split_knowledge(mixed, first, second, share, "linear_clipped")
    torch.testing.assert_close(clipped.first, torch.tensor([[1.0, 0.0]]))
    shared = split_knowledge(mixed, first, second, share, "shared")
    torch.testing.assert_close(shared.first, torch.tensor([[1.15, -0.15]]))
    torch.testing.assert_close(shared.second, torch.tensor([[0.65, 0.35]]))
    clipped = split_knowledge(mixed, first, second, share, "shared_clipped")
    torch.testing.assert_close(clipped.first, torch.tensor([[1.0, 0.0]]))
    exact = split_knowledge(mixed, first, second, share, "exact")
    torch.testing.assert_close(exact.first, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(exact.second, torch.tensor([[0.8, 0.2]]))


@pytest.mark.parametrize("rule", ["none", "linear_clipped_heavy"])
def test_only_the_larger_share_learns_and_of_equal_ones_the_first(rule: Fraction) -> None:
    mixed, first, second = three("softmax", 3, 5)
    found = split_knowledge(mixed, first, second, torch.tensor([0.4, 0.5, 0.6]), rule)
    assert (found.first_weight > 0).tolist() == [False, True, True]
    assert (found.second_weight > 0).tolist() == [True, False, False]


@pytest.mark.parametrize("rule", RULES)
def test_what_is_not_known_or_not_finite_teaches_nothing(rule: Fraction) -> None:
    mixed, first, second = (each.float() for each in three("softmax", 6, 5))
    first[0] = second[1] = first[2] = second[2] = torch.nan
    mixed[3] = torch.nan
    first[4, 2] = torch.inf
    share = torch.full((6,), 0.6)
    found = split_knowledge(mixed, first, second, share, rule)
    assert not found.first_weight[:5].any() and not found.second_weight[:5].any()
    assert (found.first_weight[5] > 0) == (rule != "keep")
    alone = split_knowledge(mixed[5:], first[5:], second[5:], share[5:], rule)
    torch.testing.assert_close(found.first[5:], alone.first, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.second[5:], alone.second, rtol=0, atol=1e-7)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "keep"])
def test_an_image_alone_gets_the_prediction_itself(rule: Fraction, known: bool) -> None:
    mixed, first, second = (each.float() for each in three("softmax", 4, 5))
    if not known:
        first[:], second[:] = torch.nan, torch.nan
    found = split_knowledge(mixed, first, second, torch.tensor([1.0, 0.9995, 0.0, 0.0005]), rule)
    assert torch.equal(found.first[:2], mixed[:2]) and torch.equal(found.second[2:], mixed[2:])
    torch.testing.assert_close(found.first_weight, torch.tensor([1.0, 0.9995, 0.0, 0.0]))
    torch.testing.assert_close(found.second_weight, torch.tensor([0.0, 0.0, 1.0, 0.9995]))


def test_an_image_alone_with_a_prediction_that_is_not_finite_teaches_nothing() -> None:
    mixed, first, second = three("softmax", 1, 5)
    found = split_knowledge(mixed * torch.nan, first, second, torch.ones(1), "exact")
    assert found.first_weight.item() == 0.0


def test_raw_linear_is_used_only_between_its_shares() -> None:
    mixed, first, second = (each.float() for each in three("softmax", 7, 5))
    share = torch.tensor([0.001, 0.0011, 0.049, 0.051, 0.949, 0.951, 0.9989])
    found = split_knowledge(mixed, first, second, share, "linear")
    assert (found.first_weight > 0).tolist() == [False, False, False, True, True, False, False]
    assert (found.second_weight > 0).tolist() == [True, False, False, True, True, False, False]
    assert torch.equal(found.second[0], mixed[0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_is_finite_where_it_counts_in_every_precision(rule: Fraction, dtype: torch.dtype) -> None:
    stream = generator("shares", "precision")
    share = torch.rand(200, generator=stream)
    for kind in KINDS:
        mixed, first, second = (each.to(dtype) for each in three(kind, 200, 10))
        before = mixed.clone(), first.clone(), second.clone(), share.clone()
        found = split_knowledge(mixed.requires_grad_(), first, second, share, rule)
        assert found.first.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert not found.first.requires_grad
        for estimate, weight in ((found.first, found.first_weight), (found.second, found.second_weight)):
            assert estimate[weight > 0].isfinite().all()
            if rule in ("linear_clipped", "shared_clipped", "exact"):
                assert (estimate[weight > 0] >= 0).all()
                assert (estimate[weight > 0].sum(dim=1) - 1).abs().max() < (1e-5 if dtype.itemsize > 2 else 1e-2)
        after = mixed, first, second, share
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("share", SHARES)
def test_single_precision_is_near_double(share: float) -> None:
    mixed, first, second = three("softmax", 200, 50)
    double = split_knowledge(mixed, first, second, shares(200, share), "exact")
    single = split_knowledge(mixed.float(), first.float(), second.float(), shares(200, share).float(), "exact")
    torch.testing.assert_close(single.first.double(), double.first, rtol=0, atol=2e-5)
    torch.testing.assert_close(single.second.double(), double.second, rtol=0, atol=2e-5)

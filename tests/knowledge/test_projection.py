"""Is the projection onto the capped simplex feasible and optimal, on every path, also where Newton's method cycles?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.knowledge import projection
from engine.knowledge.projection import project_onto_capped_simplex
from engine.streams import generator

KINDS = ("dirichlet", "softmax of 2N", "softmax of 8N", "almost one-hot", "one-hot")


def probabilities(kind: str, rows: int, classes: int, *key: int | str) -> Tensor:
    stream = generator("probabilities", kind, *key)
    if kind.startswith("softmax"):
        scale = 2.0 if kind == "softmax of 2N" else 8.0
        return torch.softmax(scale * torch.randn(rows, classes, generator=stream, dtype=torch.float64), dim=1)
    if kind == "dirichlet":
        drawn = torch.empty(rows, classes, dtype=torch.float64).exponential_(generator=stream)
    else:
        drawn = torch.eye(classes, dtype=torch.float64)[torch.randint(classes, (rows,), generator=stream)]
        drawn = drawn + (1e-6 if kind == "almost one-hot" else 0.0)
    return drawn / drawn.sum(dim=1, keepdim=True)


def problem(kind: str, rows: int, classes: int, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    mixed, first, second = (probabilities(kind, rows, classes, seed, part) for part in range(3))
    return mixed + (1 - share) * (first - second), mixed / share


def solved_by_sorting(points: Tensor, caps: Tensor) -> np.ndarray:
    """Solve row by row, with the sum at every breakpoint calculated from its definition."""
    found = []
    for row, cap in zip(points.double().numpy(), caps.double().numpy(), strict=True):
        breakpoints = np.sort(np.concatenate([row, row - cap]))
        totals = np.array([np.clip(row - each, 0, cap).sum() for each in breakpoints])
        left = max(np.flatnonzero(totals >= 1 - 1e-14), default=0)
        right = min(left + 1, len(breakpoints) - 1)
        fall = totals[left] - totals[right]
        part = (totals[left] - 1) / fall if fall > 0 else 0.0
        found.append(np.clip(row - breakpoints[left] - part * (breakpoints[right] - breakpoints[left]), 0, cap))
    return np.stack(found)


def sorting(points: Tensor, caps: Tensor) -> Tensor:
    return projection._at(projection._by_sorting(points, caps), points, caps)


@pytest.mark.parametrize("project", [project_onto_capped_simplex, sorting])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_equals_a_solution_by_sorting(project: Callable[..., Tensor], kind: str, share: float, classes: int) -> None:
    points, caps = problem(kind, 40, classes, share)
    found = project(points, caps)
    assert found.dtype == torch.float64
    assert (found >= 0).all() and (found <= caps).all()
    assert (found.sum(dim=1) - 1).abs().max() < 1e-12
    np.testing.assert_allclose(found.numpy(), solved_by_sorting(points, caps), rtol=0, atol=1e-12)

    single = project(points.float(), caps.float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), found.numpy(), rtol=0, atol=5e-6)


@pytest.mark.parametrize("seed", [1, 7, 40])
@pytest.mark.parametrize("evaluations", [10, 1000])
def test_rows_in_which_newtons_method_alternates_for_ever(
    evaluations: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, caps = problem("softmax of 2N", 400, 10, 0.5, seed)
    sorted_rows = []
    solve = projection._by_sorting

    def counting(points: Tensor, caps: Tensor) -> Tensor:
        sorted_rows.append(len(points))
        return solve(points, caps)

    monkeypatch.setattr(projection, "_by_sorting", counting)
    monkeypatch.setattr(projection, "_NEWTON_EVALUATIONS", evaluations)
    found = project_onto_capped_simplex(points, caps)
    assert 1 <= sum(sorted_rows) <= 4
    np.testing.assert_allclose(found.numpy(), solved_by_sorting(points, caps), rtol=0, atol=1e-12)


def test_is_nearer_than_any_other_feasible_point() -> None:
    points, caps = problem("softmax of 2N", 30, 5, 0.3)
    distance = (project_onto_capped_simplex(points, caps) - points).square().sum(dim=1)
    for seed in range(200):
        # Every point of [0, u] with sum 1 is a mean of projections of other points.
        weights = torch.rand(30, 1, generator=generator("weights", seed), dtype=torch.float64)
        one, other = (
            project_onto_capped_simplex(probabilities("dirichlet", 30, 5, "from", seed, part) * 2, caps)
            for part in range(2)
        )
        feasible = weights * one + (1 - weights) * other
        assert (distance <= (feasible - points).square().sum(dim=1) + 1e-12).all()


def test_a_feasible_point_is_its_own_projection_and_inputs_stay() -> None:
    points = probabilities("dirichlet", 20, 10)
    caps = 1.5 * points
    before = points.clone(), caps.clone()
    np.testing.assert_allclose(project_onto_capped_simplex(points, caps).numpy(), points.numpy(), atol=1e-15)
    assert torch.equal(points, before[0]) and torch.equal(caps, before[1])


def test_rows_are_independent_and_none_may_be_given() -> None:
    points, caps = problem("softmax of 8N", 50, 20, 0.4)
    whole = project_onto_capped_simplex(points, caps)
    alone = torch.cat([project_onto_capped_simplex(points[row : row + 1], caps[row : row + 1]) for row in range(50)])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-14)
    poisoned = points.clone()
    poisoned[3] = torch.nan
    rest = torch.arange(50) != 3
    torch.testing.assert_close(project_onto_capped_simplex(poisoned, caps)[rest], whole[rest], rtol=0, atol=1e-14)
    assert project_onto_capped_simplex(points[:0], caps[:0]).shape == (0, 20)

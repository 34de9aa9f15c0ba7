"""Do the rules keep the directions of mimicry that they name, or draw them as published?"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from engine.objectives import kept_directions
from engine.recipes import Directions

ORIGIN = (7, "segment0")


def expected_directions(rule: Directions, heads: int) -> set[tuple[int, int]]:
    """Return pairs (student, teacher) of the rules that draw nothing."""
    pairs = {(student, teacher) for student in range(heads) for teacher in range(heads) if student != teacher}
    allowed = {
        "all": pairs,
        "top_down": {(student, teacher) for student, teacher in pairs if teacher < student},
        "bottom_up": {(student, teacher) for student, teacher in pairs if teacher > student},
        "to_main": {(student, teacher) for student, teacher in pairs if student == 0},
    }
    return allowed[rule]


def drawn(rule: Directions, heads: int, draws: int, keep: float = 1.0) -> Tensor:
    """Return the masks of many steps, [draws, m, m]."""
    return torch.stack([kept_directions(rule, heads, keep, *ORIGIN, 0, step) for step in range(draws)])


@pytest.mark.parametrize("rule", ["all", "top_down", "bottom_up", "to_main"])
@pytest.mark.parametrize("heads", [2, 3, 5])
def test_fixed_rules_keep_the_directions_that_they_name(rule: Directions, heads: int) -> None:
    for step in range(2):
        kept = kept_directions(rule, heads, 0.0, *ORIGIN, 0, step)
        assert kept.dtype == torch.bool and kept.shape == (heads, heads)
        assert {(int(student), int(teacher)) for student, teacher in kept.nonzero()} == expected_directions(rule, heads)


def distribution_of_the_number_kept(pairs: int) -> dict[int, float]:
    """Return the exact distribution of the released rule, by adding one drawn index after the other."""
    found = dict.fromkeys(range(pairs + 1), 0.0)
    off = {0: 1.0}
    for _ in range(pairs):
        for number, chance in off.items():
            found[pairs - number] += chance / pairs
        after: dict[int, float] = {}
        for number, chance in off.items():
            after[number] = after.get(number, 0.0) + chance * number / pairs
            after[number + 1] = after.get(number + 1, 0.0) + chance * (pairs - number) / pairs
        off = after
    return found


def test_three_heads_are_sampled_with_the_published_distribution() -> None:
    masks = drawn("sampled", 3, 20_000)
    assert not masks[:, range(3), range(3)].any()
    off_diagonal = masks[:, ~torch.eye(3, dtype=torch.bool)]
    assert off_diagonal.float().mean().item() == pytest.approx(0.665, abs=0.01)
    for direction in off_diagonal.T:
        assert direction.float().mean().item() == pytest.approx(0.665, abs=0.012)
    counts = Counter(off_diagonal.sum(dim=1).tolist())
    exact = distribution_of_the_number_kept(6)
    published = dict(enumerate([0.0, 0.015, 0.124, 0.249, 0.245, 0.199, 0.167]))
    assert counts[0] == 0
    for number, share in published.items():
        assert exact[number] == pytest.approx(share, abs=1e-3)
        assert counts[number] / len(masks) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("heads", [2, 4])
def test_other_numbers_of_heads_are_sampled_by_the_same_rule(heads: int) -> None:
    pairs = heads * (heads - 1)
    numbers = drawn("sampled", heads, 4_000).flatten(1).sum(dim=1)
    exact = distribution_of_the_number_kept(pairs)
    assert int(numbers.min()) >= 1
    for number, share in exact.items():
        assert (numbers == number).float().mean().item() == pytest.approx(share, abs=0.025)


@pytest.mark.parametrize("keep", [0.0, 0.3, 1.0])
def test_bernoulli_keeps_each_direction_independently(keep: float) -> None:
    masks = drawn("bernoulli", 3, 4_000, keep)
    off_diagonal = masks[:, ~torch.eye(3, dtype=torch.bool)].float()
    tolerance = 0.03 if 0 < keep < 1 else 0.0
    torch.testing.assert_close(off_diagonal.mean(dim=0), torch.full((6,), keep), atol=tolerance, rtol=0.0)
    together = (off_diagonal.T @ off_diagonal) / len(masks)
    apart = ~torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(together[apart], torch.full((30,), keep**2), atol=tolerance, rtol=0.0)
    assert not masks[:, range(3), range(3)].any()


@pytest.mark.parametrize("rule", ["sampled", "bernoulli"])
def test_directions_follow_from_seed_stream_epoch_and_step_alone(rule: Directions) -> None:
    def masks(seed: int, stream: str, epoch: int, first: int) -> Tensor:
        return torch.stack([kept_directions(rule, 3, 0.5, seed, stream, epoch, first + step) for step in range(20)])

    before = torch.random.get_rng_state()
    reference = masks(7, "segment0", 1, 0)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(123)
    assert torch.equal(reference, masks(7, "segment0", 1, 0))
    for other in ((8, "segment0", 1, 0), (7, "peer1", 1, 0), (7, "segment0", 2, 0), (7, "segment0", 1, 20)):
        assert not torch.equal(reference, masks(*other))

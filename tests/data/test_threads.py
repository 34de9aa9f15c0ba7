"""Are few items of a large weight under way at once, in order and none lost?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.data import threads
from engine.data.threads import groups, in_order


def test_groups_end_with_their_number_or_their_weight() -> None:
    assert list(groups([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(groups([1, 1, 1, 5, 1, 9, 2], 3, lambda item: item, 4)) == [[1, 1, 1], [5], [1, 9], [2]]
    assert list(groups([], 3, lambda item: item, 4)) == []


@pytest.mark.parametrize(("weights", "most"), [([1] * 30, 4), ([1, 9, 1, 1, 9, 9, 1], 4), ([0] * 30, 4)])
def test_what_is_under_way_has_a_bounded_weight(weights: list[int], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "num_threads", lambda: 16)
    taken = given = highest = 0

    def items() -> list[int]:
        return list(range(len(weights)))

    def weight(item: int) -> int:
        nonlocal taken
        taken = item
        return weights[item]

    with ThreadPoolExecutor(4) as pool:
        for result in in_order(lambda item: item, items(), pool, None, weight, most):
            assert result == given
            given += 1
            highest = max(highest, sum(weights[given:taken]))
    assert given == len(weights)
    assert highest <= max(most, max(weights))

"""Does a search ask for no more object store than its trials use?"""

from __future__ import annotations

from typing import Literal

import pytest
from ray import tune

from engine.recipes import Plan
from engine.runtimes.ray.placement import choose_store
from engine.search.definition import Sweep
from engine.search.needs import Needs

SMALL_SHARED_MEMORY = 64 * 2**20


@pytest.mark.parametrize(
    ("executor", "transport", "expected"),
    [("process", "auto", "direct"), ("ray", "auto", "direct"), ("ray", "object_store", "object_store")],
)
def test_trials_whose_messages_do_not_pass_through_it_need_little_shared_memory(
    executor: Literal["process", "ray"],
    transport: Literal["auto", "object_store"],
    expected: Literal["direct", "object_store"],
) -> None:
    sweep = Sweep(
        name="small",
        recipe="greedy_digits",
        space={"optimizer.learning_rate": tune.choice([0.1, 0.2])},
        searcher="random",
        scheduler="none",
        num_samples=2,
    )
    plan = Plan(executor=executor, transport=transport)
    needs = Needs(sweep, sweep.base(), plan)
    assert needs.transport == expected
    if expected == "direct":
        assert choose_store(plan, 2 * needs.store_bytes, SMALL_SHARED_MEMORY, needs.transport).on_disk

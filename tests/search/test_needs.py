"""Does a search ask for no more than its trials use, and start no more of them than there is room for?"""

from __future__ import annotations

from typing import Literal

import pytest
from ray import tune

from engine.recipes import Plan
from engine.runtimes.ray.placement import choose_store
from engine.search import needs as needs_module
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


@pytest.mark.parametrize(
    ("gpus", "expected"),
    # Of four GPUs: halves of one, two thirds of one each, whole ones; three learners a trial.
    [(0.5, 2), (0.6, 1), (0.4, 2), (1.0, 1), (0.0, 5)],
)
def test_parts_of_several_gpus_do_not_add_up(gpus: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs_module, "private_node", lambda: {"CPU": 16.0, "GPU": 4.0})
    sweep = Sweep(
        name="shared",
        recipe="greedy_digits",
        space={"optimizer.learning_rate": tune.choice([0.1, 0.2])},
        fields=("method.num_segments=3",),
        searcher="random",
        scheduler="none",
        num_samples=9,
    )
    needs = Needs(sweep, sweep.base(), Plan(executor="ray", cpus_per_learner=1, gpus_per_learner=gpus))
    assert needs.at_once(None) == expected
    assert needs.at_once(1) == 1
    taken = f"3 CPU, {3 * gpus:g} GPU" if gpus else "3 CPU"
    assert needs.describe() == f"a trial takes {taken} of 16 CPU, 4 GPU"

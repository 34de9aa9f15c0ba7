"""Is one told of what a run of few epochs never reaches, and of nothing else?"""

from __future__ import annotations

import pytest

from engine.learners.optimization import learning_rate_at
from engine.recipes import Plan, Recipe, Step, apply_overrides, cautions
from engine.recipes.short_runs import schedule_cautions
from tests.recipes.shipped import RECIPES

# Said of how much the terms weigh, whatever the epochs.
OTHERS = ("mimicry has", "method.fraction=linear")


def changed(name: str, *words: str) -> Recipe:
    return apply_overrides(RECIPES[name], Plan(), words)[0]


def said_of(name: str, *words: str) -> list[str]:
    recipe = changed(name, *words) if words else RECIPES[name]
    return [line for line in cautions(recipe) if not line.startswith(OTHERS)]


def test_nothing_is_said_of_recipes_as_they_ship() -> None:
    assert [line for name in RECIPES for line in said_of(name)] == []


SHORT = [
    ("dml_cifar100_resnet32_resnet32", 10, "ends before the learning rate changes at 60,120,180 of"),
    ("dml_cifar100_resnet32_resnet32", 100, "ends before the learning rate changes at 120,180 of"),
    ("dml_cifar100_resnet32_resnet32", 3, "schedule.milestones=1,2 fits"),
    ("dml_cifar100_resnet32_resnet32", 2, "schedule.milestones=1 fits"),
    ("infopro_cifar10_resnet32", 5, "ends before the warm-up of schedule.warmup_epochs=10 does"),
    ("one_cifar100_resnet50", 20, "with at most 0.055 of method.weight"),
    ("lwr_cifar100_resnet50", 5, "it is the baseline"),
    ("lwr_cifar100_resnet50", 20, "ends long before method.horizon=240"),
]


@pytest.mark.parametrize(("name", "epochs", "about"), SHORT)
def test_what_is_never_reached_is_named_with_what_to_set(name: str, epochs: int, about: str) -> None:
    (line,) = [line for line in said_of(name, f"epochs={epochs}") if about in line]
    assert line.startswith(f"epochs={epochs} ends ")
    remedies = [word for word in line.rpartition("; ")[2].split() if "=" in word]
    assert remedies
    assert not [line for line in said_of(name, f"epochs={epochs}", *remedies) if about in line]


def test_the_milestones_that_are_named_lie_inside_the_run() -> None:
    for epochs in range(2, 200):
        for line in schedule_cautions(Step(milestones=(60, 120, 180)), epochs):
            named = line.rpartition("schedule.milestones=")[2].split()[0]
            milestones = Step(milestones=tuple(map(int, named.split(",")))).milestones
            assert milestones[0] >= 1
            assert milestones[-1] < epochs


@pytest.mark.parametrize("epochs", [2, 3, 9])
def test_a_last_epoch_at_a_rate_of_0_is_told_of(epochs: int) -> None:
    words = ("schedule.interval=epoch", f"epochs={epochs}")
    (line,) = said_of("infopro_digits", *words)
    assert learning_rate_at(changed("infopro_digits", *words), 10, epochs - 1, 9) == 0
    assert line.startswith(f"the last of epochs={epochs} runs at a learning rate of 0")
    for remedy in ("schedule.interval=step", "schedule.counts_from=0"):
        assert remedy in line
    assert not said_of("infopro_digits", f"epochs={epochs}", "schedule.interval=step")
    assert not said_of("infopro_digits", *words, "schedule.counts_from=0")


def test_a_tenth_of_a_run_is_a_cost_of_the_published_schedule() -> None:
    assert not said_of("infopro_digits", "schedule.interval=epoch", "epochs=10")


@pytest.mark.parametrize(
    "name",
    ["dml_cifar100_resnet32_resnet32", "infopro_cifar10_resnet32", "one_cifar100_resnet50", "lwr_cifar100_resnet50"],
)
def test_nothing_is_said_of_a_trial_of_one_epoch(name: str) -> None:
    assert not said_of(name, "epochs=1")

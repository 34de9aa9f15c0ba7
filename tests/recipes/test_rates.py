"""Does no schedule lead above the learning rate, and is a field refused that a schedule would not read?"""

from __future__ import annotations

import dataclasses
import re

import pytest

import engine
from engine.learners.optimization import learning_rate_at
from engine.recipes import (
    DML,
    SGD,
    AdamW,
    Cosine,
    Peer,
    Plan,
    Polynomial,
    Recipe,
    Step,
    apply_overrides,
    recipe_identity,
    recipe_to_dict,
    shipped_recipes,
)

DIGITS = shipped_recipes()["infopro_digits"]()


def overridden(*words: str, recipe: Recipe = DIGITS) -> Recipe:
    return apply_overrides(recipe, Plan(), words)[0]


ABOVE = [
    ("optimizer.kind=adamw optimizer.learning_rate=0.001 schedule.warmup_epochs=5", "schedule.warmup_learning_rate"),
    ("optimizer.learning_rate=0.009 schedule.warmup_epochs=1", "schedule.warmup_learning_rate"),
    ("schedule.kind=polynomial schedule.minimum=1", "schedule.minimum"),
]


@pytest.mark.parametrize(("words", "field"), ABOVE)
def test_a_schedule_that_leads_above_the_learning_rate_is_refused_with_what_to_set(words: str, field: str) -> None:
    with pytest.raises(engine.RecipeError) as refused:
        overridden(*words.split())
    found = re.fullmatch(
        rf"optimizer\.learning_rate: found \S+, expected at least {field}=\S+: .*; "
        rf"set ({field}=\S+), or a larger optimizer\.learning_rate",
        str(refused.value),
    )
    assert found, str(refused.value)
    given = [word for word in words.split() if not word.startswith(field)]
    recipe = overridden(*given, found[1])
    rates = [learning_rate_at(recipe, 10, epoch, step) for epoch in range(recipe.epochs) for step in range(10)]
    assert max(rates) <= recipe.optimizer.learning_rate


def test_the_rate_of_every_peer_is_looked_at() -> None:
    peers = DML(peers=(Peer(), Peer(optimizer=AdamW(learning_rate=1e-3))))
    with pytest.raises(engine.RecipeError, match=r"method\.peers\.1\.optimizer\.learning_rate: found 0\.001"):
        dataclasses.replace(DIGITS, method=peers, schedule=Cosine(warmup_epochs=5))
    found = dataclasses.replace(DIGITS, method=peers, schedule=Cosine(warmup_epochs=5, warmup_learning_rate=1e-3))
    assert isinstance(found.schedule, Cosine)


def test_rates_that_no_schedule_uses_or_that_are_equal_are_allowed() -> None:
    slow = SGD(learning_rate=1e-3)
    for schedule in (Cosine(), Cosine(warmup_epochs=5, warmup_learning_rate=1e-3), Polynomial(minimum=1e-3)):
        assert dataclasses.replace(DIGITS, optimizer=slow, schedule=schedule).schedule == schedule


def test_a_number_of_the_first_epoch_is_refused_where_steps_are_counted() -> None:
    with pytest.raises(engine.RecipeError, match=r"schedule\.counts_from=0 .* set (schedule\.counts_from=1), or") as no:
        overridden("schedule.counts_from=0")
    assert "schedule.interval=epoch" in str(no.value)
    assert overridden("schedule.counts_from=1") == DIGITS
    assert overridden("schedule.counts_from=0", "schedule.interval=epoch").schedule == Cosine(counts_from=0)


def test_no_warm_up_is_what_a_schedule_without_a_word_does() -> None:
    plain = dataclasses.replace(DIGITS, schedule=Step(milestones=(5, 10)))
    said, warm = (overridden(f"schedule.warmup_epochs={epochs}", recipe=plain) for epochs in (0, 2))
    assert said == plain
    assert recipe_identity(said) == recipe_identity(plain) != recipe_identity(warm)
    assert "warmup_epochs" not in recipe_to_dict(said)["schedule"]
    with pytest.raises(engine.RecipeError, match=r"schedule\.warmup_epochs"):
        overridden("schedule.warmup_epochs=-1", recipe=plain)

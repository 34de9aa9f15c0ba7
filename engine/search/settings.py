"""Settings of the trials of a search, and the recipe with them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ray.tune.search.sample import Categorical, Domain, Integer, Quantized

from engine.errors import RecipeError
from engine.recipes import Plan, Recipe, apply_overrides, with_absolute_paths
from engine.search.definition import Sweep
from engine.streams import stream_seed

Settings = Mapping[str, Any]
"""Values of the searched fields, by dotted name."""


def recipe_with(base: Recipe, sweep: Sweep, settings: Settings) -> Recipe:
    """Return the recipe of a trial; it is trained outside a search with the same result, bit for bit.

    Raises:
        RecipeError: the recipe has no such field, or the field no such value.
    """
    words = [*sweep.fields, *(f"{name}={_word(value)}" for name, value in settings.items())]
    recipe, _ = apply_overrides(base, Plan(), words)
    return with_absolute_paths(recipe)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def drawn(sweep: Sweep, number: int) -> Settings | None:
    """Return the settings of a trial that are known beforehand; a pure function of the search's seed and the number.

    Args:
        sweep: whose searcher is ``random`` or ``grid``.
        number: of the trial, from 0.

    Returns:
        None where a grid has no such trial.
    """
    if sweep.searcher == "grid":
        every = combinations(sweep)
        return every[number] if number < len(every) else None
    found = {}
    for name in sweep.space:
        # Each field has a stream of its own, so that a further field leaves the others as they were.
        random = np.random.RandomState(stream_seed(sweep.seed, "sweep", name, number) % 2**32)
        found[name] = draw(sweep, name, random)
    return found


def draw(sweep: Sweep, name: str, random: np.random.RandomState) -> Any:
    """Return a value of one field; raises RecipeError as `choices`."""
    listed = choices(sweep, name)
    if listed is not None:
        return listed[random.randint(len(listed))]
    return _plain(sweep.space[name].sample(None, random_state=random))


def combinations(sweep: Sweep) -> list[Settings]:
    """Return all settings of a grid, the last field changing fastest; raises RecipeError as `choices`."""
    listed = [choices(sweep, name) or () for name in sweep.space]
    return [dict(zip(sweep.space, values, strict=True)) for values in itertools.product(*listed)]


def _plain(value: Any) -> Any:
    """Return a value as it will be read from JSON again."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def choices(sweep: Sweep, name: str) -> list[Any] | None:
    """Return all values that a field may have; None where there are too many to list.

    Raises:
        RecipeError: the field's entry is no domain, or a grid cannot list its values.
    """
    domain = sweep.space[name]
    if isinstance(domain, Categorical):
        return [_plain(value) for value in domain.categories]
    if isinstance(domain, dict) and list(domain) == ["grid_search"]:
        return [_plain(value) for value in domain["grid_search"]]
    if not isinstance(domain, Domain):
        raise RecipeError(
            f"sweep {sweep.name}: space[{name!r}] is {shown(domain)}, expected a domain such as ray.tune.choice([1, 2])"
            " or ray.tune.loguniform(0.1, 10)"
        )
    if sweep.searcher == "grid":
        raise RecipeError(
            f"sweep {sweep.name}: space[{name!r}] is continuous, but searcher='grid' tries every value: give "
            "ray.tune.choice([...]), or another searcher"
        )
    return None


def shown(value: Any) -> str:
    """Return a value in at most a hundred characters, for a message."""
    try:
        text = ascii(value)
    except Exception:  # of an object of somebody else, of one that holds itself, or of a number with too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."


def examples(sweep: Sweep) -> Iterator[Settings]:
    """Yield settings with which every listed value of every field, and both ends of whole numbers, are looked at once.

    So what can never be is refused early.
    """
    usual = {name: _first(sweep, name) for name in sweep.space}
    for name in sweep.space:
        listed = choices(sweep, name)
        for value in [usual[name], *ends(sweep, name)] if listed is None else listed:
            yield {**usual, name: value}


def ends(sweep: Sweep, name: str) -> list[int]:
    """Return the smallest and the largest value of a field that is searched over a range of whole numbers."""
    domain = sweep.space[name]
    if not isinstance(domain, Integer):
        return []
    # Without a step the upper bound is itself no value.
    return [int(domain.lower), int(domain.upper) - (not isinstance(domain.get_sampler(), Quantized))]


def _first(sweep: Sweep, name: str) -> Any:
    listed = choices(sweep, name)
    if listed is not None:
        if not listed:
            raise RecipeError(f"sweep {sweep.name}: space[{name!r}] lists no value, expected at least one")
        return listed[0]
    return _plain(sweep.space[name].sample(None, random_state=np.random.RandomState(0)))

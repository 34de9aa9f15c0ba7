"""Check of a search's space by field, before anything starts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from ray.tune.search.sample import Categorical, Domain, Float, Integer, Normal, Quantized

from engine.errors import InputError, RecipeError
from engine.reading import first_line
from engine.recipes import Recipe
from engine.search.definition import MOST_TRIALS, Sweep
from engine.search.searcher import suggested
from engine.search.settings import Settings, choices, draw, ends, examples, recipe_with, shown

MOST_LISTED = 1000
"""The most values that may be listed for one field; more of them are a range, such as ``ray.tune.randint``."""

_DEEPEST = 8
_DEVIATIONS = 3
"""How many standard deviations to both sides of its mean a normal distribution is taken to reach."""

_DOMAINS = "ray.tune's choice, grid_search, uniform, loguniform, quniform, qloguniform, randint, lograndint, qrandint, "
_DOMAINS += "qlograndint, randn and qrandn"


def check_space(sweep: Sweep, base: Recipe) -> None:
    """Refuse a space of which a field does not exist, is no domain, or holds a value that the field cannot have.

    All listed values, both ends of ranges, and what lies three deviations beside the mean of normal distributions are
    tried, each with the first or some other value of every other field.

    Args:
        sweep: the search.
        base: its recipe before any setting.

    Raises:
        RecipeError: names the field, what was found, and what was expected.
    """
    for word in sweep.fields:
        if word.startswith("plan."):
            raise RecipeError(
                f"sweep {sweep.name}: fields: {word} says where trials run, which is no field of the recipe: give it "
                "with the command, or in plan="
            )
    recipe_with(base, sweep, {})
    for name in sweep.space:
        _check_name(sweep, name)
        _check_domain(sweep, name)
    if sweep.searcher == "grid":
        count = math.prod(len(choices(sweep, name) or ()) for name in sweep.space)
        if count > MOST_TRIALS:
            raise RecipeError(
                f"sweep {sweep.name}: searcher='grid' would try {count:,} combinations; expected at most "
                f"{MOST_TRIALS:,}: list fewer values, or set searcher='random'"
            )
    usual = dict(next(examples(sweep)))
    _try(sweep, base, usual, _culprit(sweep, base, usual))
    for name in sweep.space:
        for value in _values(sweep, name):
            _try(sweep, base, {**usual, name: value}, name)
    if sweep.searcher == "tpe":
        _check_tpe(sweep)


def _try(sweep: Sweep, base: Recipe, settings: Settings, name: str) -> None:
    try:
        recipe_with(base, sweep, settings)
    except InputError as error:
        place = f"sweep {sweep.name}: space[{name!r}] with {shown(settings[name])}"
        raise RecipeError(f"{place}: {error}") from error


def _culprit(sweep: Sweep, base: Recipe, settings: Settings) -> str:
    """Return the first field that makes no recipe by itself; the first of all where only several together do so."""
    for name, value in settings.items():
        try:
            recipe_with(base, sweep, {name: value})
        except InputError:
            return name
    return next(iter(settings))


def _check_name(sweep: Sweep, name: Any) -> None:
    if not isinstance(name, str) or not name or "=" in name:
        raise RecipeError(
            f"sweep {sweep.name}: space[{shown(name)}] is no name of a field, expected one such as 'method.weight'"
        )
    if name.startswith("plan."):
        raise RecipeError(
            f"sweep {sweep.name}: space[{name!r}] says where trials run, which has no influence on what comes out of "
            "them; expected a field of the recipe"
        )


def _check_domain(sweep: Sweep, name: str) -> None:
    entry = sweep.space[name]
    place = f"sweep {sweep.name}: space[{name!r}]"
    if isinstance(entry, Domain) and type(entry) not in (Float, Integer, Categorical):
        raise RecipeError(
            f"{place} is a {type(entry).__name__.lower()} domain (as of ray.tune.sample_from), whose values are not "
            f"known beforehand; expected one of {_DOMAINS}"
        )
    if isinstance(entry, dict) and not isinstance(entry.get("grid_search", []), (list, tuple)):
        raise RecipeError(f"{place}: grid_search holds {shown(entry['grid_search'])}, expected a list of values")
    listed = choices(sweep, name)
    if listed is not None:
        if not listed:
            raise RecipeError(f"{place} lists no value, expected at least one")
        if len(listed) > MOST_LISTED:
            raise RecipeError(
                f"{place} lists {len(listed):,} values, expected at most {MOST_LISTED:,}; a range such as "
                "ray.tune.randint holds more"
            )
        for value in listed:
            _check_plain(value, place)
        return
    _check_range(entry, place)
    try:
        drawn = [draw(sweep, name, np.random.RandomState(seed)) for seed in range(4)]
    except Exception as error:  # numpy and Ray Tune raise what they like
        raise RecipeError(f"{place}: nothing can be drawn from it: {first_line(error)}") from error
    for value in drawn:
        _check_plain(value, place)


def _check_range(domain: Any, place: str) -> None:
    sampler = domain.get_sampler()
    inner = sampler.get_sampler() if isinstance(sampler, Quantized) else sampler
    numbers = {"lower bound": domain.lower, "upper bound": domain.upper}
    if isinstance(inner, Normal):
        numbers = {"mean": inner.mean, "standard deviation": inner.sd}
    if isinstance(sampler, Quantized):
        numbers["step"] = sampler.q
    kinds = (int, np.integer) if isinstance(domain, Integer) else (int, float, np.integer, np.floating)
    for what, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, kinds) or not abs(value) < 2**63:
            whole = "a whole number" if isinstance(domain, Integer) else "a number"
            raise RecipeError(f"{place}: its {what} is {shown(value)}, expected {whole} below 2 ** 63")
    if isinstance(sampler, Quantized) and not sampler.q > 0:
        raise RecipeError(f"{place}: its step is {sampler.q!r}, expected more than 0")
    if isinstance(inner, Normal):
        return
    # The upper bound of whole numbers is itself no value, unless they have a step.
    least = domain.lower + (isinstance(domain, Integer) and not isinstance(sampler, Quantized))
    if domain.upper < least:
        raise RecipeError(f"{place} reaches from {domain.lower!r} to {domain.upper!r}, so it holds no value")


def _check_plain(value: Any, place: str, depth: int = 0) -> None:
    """Refuse what cannot be kept as JSON and come back as it was."""
    if depth > _DEEPEST:
        raise RecipeError(f"{place} holds a value that is nested more than {_DEEPEST} deep")
    if isinstance(value, (list, tuple)):
        for each in value:
            _check_plain(each, place, depth + 1)
    elif isinstance(value, dict) and "grid_search" not in value:
        for key, each in value.items():
            if not isinstance(key, str):
                raise RecipeError(f"{place} holds the key {shown(key)}, expected text")
            _check_plain(each, place, depth + 1)
    elif isinstance(value, str):
        # What this lets through are the bytes of file names that are no UTF-8, as Python writes them.
        if "\0" in value or not _is_text(value):
            raise RecipeError(f"{place} holds {ascii(value)[:100]}, which is no text that a file could hold")
    elif isinstance(value, (Domain, dict)):
        raise RecipeError(
            f"{place} holds another domain ({type(value).__name__}) among its values; expected plain values, and a "
            "domain of its own for each field"
        )
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RecipeError(f"{place} holds {value!r}, expected a finite number")
    elif isinstance(value, int):
        if not abs(value) < 2**63:
            raise RecipeError(f"{place} holds a whole number of {value.bit_length()} bits, expected at most 63")
    elif value is not None:
        raise RecipeError(
            f"{place} holds a {type(value).__name__}, expected plain values: numbers, text, true or false, None, and "
            "lists of them"
        )


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _check_tpe(sweep: Sweep) -> None:
    try:
        suggested(sweep, [], 0)
    except InputError:
        raise
    except Exception as error:  # Optuna raises what it likes
        names = ", ".join(map(repr, sweep.space))
        raise RecipeError(
            f"sweep {sweep.name}: searcher='tpe' cannot search this space ({names}): {first_line(error)}; set "
            "searcher='random'"
        ) from error


def _values(sweep: Sweep, name: str) -> Iterator[Any]:
    """Yield the values of a field that stand for all of them."""
    listed = choices(sweep, name)
    domain = sweep.space[name]
    if listed is not None:
        yield from listed
        return
    sampler = domain.get_sampler()
    inner = sampler.get_sampler() if isinstance(sampler, Quantized) else sampler
    if isinstance(inner, Normal):
        reach = _DEVIATIONS * inner.sd
        yield from (float(inner.mean - reach), float(inner.mean), float(inner.mean + reach))
    elif isinstance(domain, Integer):
        yield from ends(sweep, name)
    else:
        yield from (float(domain.lower), float(domain.upper))

"""Is a search whose space holds what no field can have refused by field, before anything starts?"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from ray import tune
from ray.tune.search.sample import Domain, Float, Integer, LogUniform, Normal, Quantized, Uniform

from engine.errors import RecipeError
from engine.recipes import load_recipe
from engine.search import Sweep, load_sweep, shipped_sweeps, sweep
from engine.search.settings import drawn, recipe_with
from engine.search.space import check_space

BASE = load_recipe("infopro_digits")


def _sweep(space: Any, **changes: Any) -> Sweep:
    return Sweep(**{"name": "s", "recipe": "infopro_digits", "space": space, **changes})


def _with_sampler(domain: Any, sampler: Any) -> Any:
    """A domain as nobody builds it by ray.tune's functions."""
    domain.set_sampler(sampler, allow_override=True)
    return domain


@pytest.mark.parametrize(
    ("name", "domain", "said"),
    [
        ("optimizer.learning_rate", tune.sample_from(lambda spec: 0.1), "is a function domain .*expected one of"),
        ("optimizer.learning_rate", tune.choice([0.1, tune.uniform(0.2, 0.3)]), r"another domain \(Float\)"),
        ("optimizer.learning_rate", tune.choice([0.1, [tune.choice([1])]]), r"another domain \(Categorical\)"),
        ("optimizer.learning_rate", tune.choice([0.1, tune.grid_search([1])]), r"another domain \(dict\)"),
        ("optimizer.learning_rate", tune.uniform(-0.1, 0.1), "with -0.1: optimizer.learning_rate: found -0.1"),
        ("optimizer.learning_rate", tune.uniform(0.2, 0.1), "from 0.2 to 0.1, so it holds no value"),
        ("optimizer.learning_rate", tune.randn(0.0, 1.0), "with -3.0: optimizer.learning_rate"),
        ("optimizer.learning_rate", tune.randn(math.nan, 1.0), "its mean is nan, expected a number"),
        ("optimizer.learning_rate", tune.choice([0.1, math.inf]), "holds inf, expected a finite number"),
        ("optimizer.learning_rate", tune.choice([0.1, "0,2,3"]), r"with '0,2,3': optimizer\.learning_rate"),
        ("optimizer.learning_rate", tune.choice([0.1, object()]), "holds a object, expected plain values"),
        ("optimizer.learning_rate", tune.choice([0.1, {1: 2}]), "holds the key 1, expected text"),
        ("optimizer.momentum", tune.uniform(0.0, 3.0), r"with [\d.]+: optimizer\.momentum: found"),
        ("epochs", tune.randint(0, 3), "with 0: epochs"),
        ("epochs", tune.randint(3, 3), "from 3 to 3, so it holds no value"),
        ("epochs", tune.uniform(1, 3), r"with [\d.]+: epochs: found"),
        ("epochs", tune.randint(1, 10**30), "its upper bound is 10+, expected a whole number"),
        ("epochs", tune.choice([1, 10**5000]), "a whole number of 16610 bits"),
        ("epochs", tune.choice([1, True]), "with True: epochs"),
        ("epochs", tune.choice(range(1, 1002)), "lists 1,001 values, expected at most 1,000"),
        ("epochs", {"grid_search": "12"}, "grid_search holds '12', expected a list"),
        ("epochs", tune.qrandint(1, 9, 0.5), "its step is 0.5, expected a whole number"),
        ("data.root", tune.choice(["a\0b"]), r"holds 'a\\x00b', which is no text"),
        ("data.root", tune.choice(["\ud800"]), r"holds '\\ud800', which is no text"),
        ("optimizer.lr", tune.uniform(0.1, 0.2), "did you mean 'optimizer.learning_rate'"),
        ("method.num_segmnets", tune.choice([1]), "did you mean 'method.num_segments'"),
        ("plan.window", tune.choice([1]), "says where trials run"),
        ("epochs=3", tune.choice([1]), "is no name of a field"),
        ("", tune.choice([1]), "is no name of a field"),
        (7, tune.choice([1]), "is no name of a field"),
    ],
)
def test_what_a_field_cannot_have_is_refused_by_its_name(name: Any, domain: Any, said: str) -> None:
    space = {"seed": tune.choice([0, 1]), name: domain}
    for searcher in ("random", "tpe"):
        with pytest.raises(RecipeError, match=said) as caught:
            check_space(_sweep(space, searcher=searcher), BASE)
        assert f"sweep s: space[{name!r}]" in str(caught.value)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        (_with_sampler(Float("a", 2.0), Uniform()), "its lower bound is 'a', expected a number"),  # type: ignore[arg-type]
        (_with_sampler(Float(0.1, [2]), Uniform()), r"its upper bound is \[2\], expected a number"),  # type: ignore[arg-type]
        (_with_sampler(Integer(1.5, 3), Uniform()), "its lower bound is 1.5, expected a whole number"),
        (_with_sampler(Integer(1, 3), Quantized(Uniform(), 0)), "its step is 0, expected more than 0"),
        (_with_sampler(Float(0.1, 1.0), Quantized(LogUniform(), -1)), "its step is -1, expected more than 0"),
        (_with_sampler(Float(0.1, 1.0), Normal(0.5, math.inf)), "its standard deviation is inf"),
    ],
)
def test_a_domain_that_was_put_together_by_hand_is_looked_at(domain: Domain, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_space(_sweep({"optimizer.learning_rate": domain}), BASE)


@pytest.mark.parametrize(
    "space",
    [
        {"optimizer.learning_rate": tune.loguniform(1e-4, 1.0), "optimizer.momentum": tune.uniform(0.1, 0.9)},
        {"optimizer.learning_rate": tune.quniform(0.1, 0.5, 0.1), "epochs": tune.randint(1, 9)},
        {"optimizer.learning_rate": tune.qloguniform(0.1, 1.0, 0.1), "epochs": tune.qrandint(2, 8, 2)},
        {"optimizer.learning_rate": tune.randn(0.1, 0.01), "epochs": tune.lograndint(1, 9)},
        {"optimizer.learning_rate": tune.choice(list(np.linspace(0.1, 1.0, 3)))},
        {"backbone.widths": tune.choice([(4, 4, 8), None, [8, 8, 8]])},
        {"method.kind": tune.choice(["infopro", "greedy"]), "method.num_segments": tune.grid_search([1, 2])},
    ],
)
def test_what_fields_can_have_passes(space: Any) -> None:
    definition = _sweep(space)
    check_space(definition, BASE)
    for number in range(5):
        recipe_with(BASE, definition, drawn(definition, number) or {})


@pytest.mark.parametrize("name", shipped_sweeps())
def test_every_shipped_search_passes(name: str) -> None:
    definition = load_sweep(name)
    check_space(definition, definition.base())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a/b"}, "name='a/b': is part of a folder's name"),
        ({"name": ""}, "name='': is part of"),
        ({"name": ".hidden"}, "name='.hidden'"),
        ({"name": "x" * 101}, "more than 100 bytes"),
        ({"name": 3}, "name=3"),
        ({"recipe": None}, "recipe: found a value of type NoneType"),
        ({"space": [1]}, "space: found a value of type list"),
        ({"fields": "epochs=5"}, "fields: found a value of type str, expected a tuple of texts"),
        ({"fields": (1,)}, "fields: found a value of type tuple"),
        ({"against": "memory_bytes"}, "against: found a value of type str"),
        ({"against": ("memory",)}, "against='memory'.*'memory_bytes'"),
        ({"metric": "validation/acuracy"}, "metric='validation/acuracy'; did you mean 'validation/accuracy'"),
        ({"metric": "test/accuracy"}, "metric='test/accuracy'"),
        ({"metric": None}, "metric: found a value of type NoneType"),
        ({"searcher": []}, "searcher: found a value of type list"),
        ({"num_samples": 2.0}, "num_samples: found a value of type float"),
        ({"num_samples": True}, "num_samples: found a value of type bool"),
        ({"num_samples": 10_001}, "num_samples=10001, expected at most 10,000"),
        ({"seed": 10**5000}, "seed: found a value of type int, expected a whole number below"),
        ({"perturb_every_epochs": "2"}, "perturb_every_epochs: found a value of type str"),
    ],
)
def test_a_field_of_the_search_of_another_kind_is_refused(changes: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        _sweep(**{"space": {"seed": tune.choice([1])}, **changes})


def test_words_about_the_plan_are_not_dropped_in_silence() -> None:
    with pytest.raises(RecipeError, match=r"fields: plan\.window=2 says where trials run"):
        check_space(_sweep({"seed": tune.choice([1])}, fields=("plan.window=2",)), BASE)


def test_a_grid_of_too_many_combinations_is_counted_and_not_listed() -> None:
    space = {name: tune.choice(list(range(1, 1000))) for name in ("epochs", "seed", "data.batch_size")}
    with pytest.raises(RecipeError, match="would try 997,002,999 combinations; expected at most 10,000"):
        check_space(_sweep(space, searcher="grid"), BASE)


def test_nothing_has_started_when_a_space_is_refused(tmp_path: Path) -> None:
    definition = _sweep({"optimizer.learning_rate": tune.sample_from(lambda spec: 0.1)})
    with pytest.raises(RecipeError):
        sweep(definition, run_dir=tmp_path / "s")
    assert not ray.is_initialized() or not list(tmp_path.iterdir())
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def sweep():\n    return 1 / 0", r"own\.py:2: sweep\(\) failed: ZeroDivisionError"),
        ("def sweep():\n    raise SystemExit(7)", r"own\.py:2: sweep\(\) failed: SystemExit: 7"),
        ("def sweep(a):\n    pass", r"own\.py: sweep\(\) failed: TypeError: sweep\(\) missing"),
        ("x = (", r"own\.py:1: could not be imported: SyntaxError"),
        ("x = 1\ny = x.z", r"own\.py:2: could not be imported: AttributeError"),
        (
            "import engine\nfrom ray import tune\ndef sweep():\n    return engine.Sweep('a/b', 'infopro_digits', {})",
            r"own\.py:4: sweep: name='a/b'",
        ),
        ("from ray import tune\nx = tune.loguniform(0, 1)\n", r"own\.py:2: could not be imported: ValueError"),
        ("def sweep():\n    return None", r"own\.py: sweep\(\) returned NoneType, expected engine.Sweep"),
    ],
)
def test_a_file_of_a_search_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(RecipeError, match=said):
        load_sweep(str(tmp_path / "own.py"))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [10**400, -1, 0, 0.1, "\ud800", "infopro", "1e999", b"x", np.float32(0.5), np.nan, 1j, object, Path]
    ),
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
NUMBERS = st.one_of(st.floats(), st.integers(), st.sampled_from([0.1, 1, 2, 5, 10.0, "a", None, True]))


def _built(make: Any, *arguments: Any) -> Any:
    """What a function of ray.tune makes of arguments; they themselves if it refuses them."""
    try:
        return make(*arguments)
    except (ValueError, TypeError, AssertionError, ZeroDivisionError, OverflowError):
        return arguments


ENTRIES = st.one_of(
    NESTED,
    st.builds(lambda values: _built(tune.choice, values), st.lists(NESTED, max_size=4)),
    st.builds(lambda values: _built(tune.grid_search, values), NESTED),
    st.builds(lambda value: tune.choice([value, tune.uniform(0, 1)]), SCALARS),
    st.just(tune.sample_from(lambda spec: 1)),
    *(
        st.builds(lambda a, b, make=make: _built(make, a, b), NUMBERS, NUMBERS)
        for make in (tune.uniform, tune.loguniform, tune.randint, tune.lograndint, tune.randn)
    ),
    *(
        st.builds(lambda a, b, c, make=make: _built(make, a, b, c), NUMBERS, NUMBERS, NUMBERS)
        for make in (tune.quniform, tune.qloguniform, tune.qrandint, tune.qlograndint, tune.qrandn)
    ),
    st.builds(lambda a, b: _with_sampler(Float(a, b), Uniform()), NUMBERS, NUMBERS),
    st.builds(lambda a, b, c: _with_sampler(Integer(a, b), Quantized(Uniform(), c)), NUMBERS, NUMBERS, NUMBERS),
)
NAMES = st.sampled_from(
    ["epochs", "seed", "name", "optimizer.learning_rate", "optimizer", "optimizer.kind", "method.kind", "data.root"]
    + ["method.num_segments", "method.reconstruction_weight", "backbone.widths", "backbone", "task", "data.batch_size"]
    + ["method.", ".", "plan.window", "a=b", "epochs.x", "schedule.kind", "numerics.threads", "data.augmentation.flip"]
) | st.text(max_size=6)


@pytest.mark.slow
@seed(20)
@settings(max_examples=600, deadline=None, database=None)
@given(
    space=st.dictionaries(NAMES, ENTRIES, min_size=1, max_size=3),
    searcher=st.sampled_from(["random", "tpe", "grid"]),
    fields=st.lists(
        st.sampled_from(["epochs=2", "method.kind=greedy", "plan.x=1", "=", "epochs", "seed=9" * 9]), max_size=1
    ),
)
def test_odd_spaces_are_searched_or_refused(space: Any, searcher: Any, fields: Any) -> None:
    try:
        definition = _sweep(space, searcher=searcher, fields=tuple(fields))
        check_space(definition, BASE)
    except RecipeError:
        return
    assert not any(name.startswith("plan.") for name in space)
    for number in range(3):
        found = drawn(_sweep(space, searcher="random", fields=tuple(fields)), number)
        assert found is not None
        # A combination may be impossible, which is told of its trial.
        with contextlib.suppress(RecipeError):
            recipe_with(BASE, definition, found)

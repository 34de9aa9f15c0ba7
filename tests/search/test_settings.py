"""Are the settings of a trial a pure function of its number, and does every one of them reach the recipe?"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import tune

from engine.errors import RecipeError
from engine.recipes import (
    DML,
    Backbone,
    Peer,
    Ramp,
    Recipe,
    load_recipe,
    recipe_from_dict,
    recipe_identity,
    recipe_to_dict,
)
from engine.search import Sweep, load_sweep, shipped_sweeps
from engine.search.settings import choices, drawn, examples, recipe_with

MakeSweep = Callable[..., Sweep]

DOMAINS = {
    "method.reconstruction_weight": tune.loguniform(0.1, 10.0),
    "method.classification_weight": tune.uniform(0.0, 2.0),
    "method.num_segments": tune.randint(1, 8),
    "epochs": tune.choice([3, 5, 9]),
    "data.batch_size": tune.grid_search([8, 16]),
}


def _sweep(**changes: Any) -> Sweep:
    return Sweep(**{"name": "s", "recipe": "infopro_digits", "space": DOMAINS, **changes})


@given(seed=st.integers(0, 2**40), number=st.integers(0, 10**6))
def test_settings_follow_from_seed_and_number_alone(seed: int, number: int) -> None:
    np.random.seed(number % 2**32)
    first = drawn(_sweep(seed=seed), number)
    assert drawn(_sweep(seed=seed, num_samples=99, name="other", metric="validation/loss"), number) == first
    assert first is not None
    assert list(first) == list(DOMAINS)
    # Plain numbers, as JSON gives them back.
    assert [type(value) for value in first.values()] == [float, float, int, int, int]
    assert 0.1 <= first["method.reconstruction_weight"] <= 10
    assert 0 <= first["method.classification_weight"] <= 2
    assert 1 <= first["method.num_segments"] < 8
    assert first["epochs"] in (3, 5, 9) and first["data.batch_size"] in (8, 16)


def test_numbers_and_seeds_give_other_settings() -> None:
    found = [drawn(_sweep(seed=seed), number) for seed in range(10) for number in range(40)]
    weights = [settings["method.reconstruction_weight"] for settings in found if settings]
    assert len(set(weights)) == 400
    # Uniform in the exponent: as much below 1 as above, within five standard deviations of a binomial.
    assert abs(sum(weight < 1 for weight in weights) - 200) < 50
    for listed in ("epochs", "data.batch_size"):
        values = [settings[listed] for settings in found if settings]
        for value in set(values):
            assert abs(values.count(value) / 400 - 1 / len(set(values))) < 0.13


def test_a_further_field_leaves_the_others_as_they_were() -> None:
    for name in DOMAINS:
        fewer = _sweep(space={other: DOMAINS[other] for other in reversed(DOMAINS) if other != name})
        for number in range(5):
            without, whole = drawn(fewer, number), drawn(_sweep(), number)
            assert without is not None and whole is not None
            assert without == {other: value for other, value in whole.items() if other != name}


def test_a_grid_is_every_combination_once_and_then_ends() -> None:
    space = {
        "method.num_segments": tune.choice([4, 2]),
        "epochs": tune.grid_search([1, 2, 3]),
        "seed": tune.choice([7]),
    }
    grid = _sweep(space=space, searcher="grid")
    found = [drawn(grid, number) for number in range(6)]
    assert found == [dict(zip(space, each, strict=True)) for each in itertools.product([4, 2], [1, 2, 3], [7])]
    assert drawn(grid, 6) is drawn(grid, 100) is None


@pytest.mark.parametrize("domain", [tune.loguniform(0.1, 1.0), tune.randint(0, 3), tune.quniform(0, 4, 1)])
def test_a_grid_refuses_what_it_cannot_list(domain: Any) -> None:
    sweep = _sweep(space={"method.num_segments": tune.choice([1]), "epochs": domain}, searcher="grid")
    with pytest.raises(RecipeError, match=r"sweep s: space\['epochs'\] is continuous, but searcher='grid'"):
        list(examples(sweep))


@pytest.mark.parametrize("entry", [3, [1, 2], "choice", None, {"choice": [1]}, {"grid_search": [1], "x": 2}])
def test_an_entry_that_is_no_domain_is_refused(entry: Any) -> None:
    with pytest.raises(
        RecipeError, match=r"sweep s: space\['epochs'\] is .*expected a domain such as ray\.tune\.choice"
    ):
        list(examples(_sweep(space={"epochs": entry})))


@pytest.mark.parametrize("domain", [tune.choice([]), tune.grid_search([])])
@pytest.mark.parametrize("searcher", ["random", "grid"])
def test_an_empty_list_is_refused(domain: Any, searcher: Any) -> None:
    with pytest.raises(RecipeError, match=r"space\['epochs'\] lists no value, expected at least one"):
        list(examples(_sweep(space={"seed": tune.choice([1]), "epochs": domain}, searcher=searcher)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"searcher": "rnadom"}, "searcher='rnadom'.*'random'"),
        ({"scheduler": "ahsa"}, "scheduler='ahsa'.*'asha'"),
        ({"space": {}}, "space is empty"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"grace_epochs": 0}, "grace_epochs=0"),
        ({"reduction_factor": 1}, "reduction_factor=1"),
    ],
)
def test_a_definition_that_cannot_be_used_is_refused(changes: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=f"sweep s: .*{said}"):
        _sweep(**changes)


def test_every_listed_value_is_looked_at() -> None:
    found = list(examples(_sweep()))
    for name in ("epochs", "data.batch_size"):
        assert {settings[name] for settings in found} == set(choices(_sweep(), name) or ())
    assert all(list(settings) == list(DOMAINS) for settings in found)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("method.reconstruction_wieght", 1.0, "method.reconstruction_wieght: there is no such field"),
        ("method.num_segments", "many", "method.num_segments"),
        ("method.num_segments", 0, "method.num_segments"),
        ("method.num_segments", 1.5, "method.num_segments"),
        ("epochs", None, "epochs"),
        ("epochs", True, "epochs"),
        ("plan.windwo", 2, "plan.windwo"),
    ],
)
def test_a_field_or_a_value_that_does_not_exist_is_refused_by_its_name(name: str, value: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe_with(load_recipe("infopro_digits"), _sweep(), {name: value})


def test_fixed_fields_and_settings_are_in_the_recipe() -> None:
    base = load_recipe("infopro_digits")
    settings = {
        "method.reconstruction_weight": 1 / 3,
        "method.classification_weight": 1e-300,
        "data.augmentation.flip": True,
    }
    found = recipe_with(base, _sweep(fields=("epochs=17", "method.head=contrastive")), settings)
    assert (found.epochs, found.method.head) == (17, "contrastive")
    # To the last bit: what is drawn is what is trained.
    assert found.method.reconstruction_weight == Ramp(first=1 / 3, last=1 / 3)
    assert found.method.classification_weight == Ramp(first=1e-300, last=1e-300)
    assert found.data.augmentation.flip is True
    assert recipe_from_dict(recipe_to_dict(found)) == found
    # Only what was asked for has changed.
    again = recipe_with(found, _sweep(fields=(f"epochs={base.epochs}", "method.head=softmax")), {})
    assert again.data.name == base.data.name and again.optimizer == base.optimizer


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("method.peers", "3", (Peer(), Peer(), Peer())),
        (
            "method.peers",
            "resnet14,resnet8",
            (Peer(backbone=Backbone(name="resnet14")), Peer(backbone=Backbone(name="resnet8"))),
        ),
        ("backbone.widths", "4,4,8", (4, 4, 8)),
        ("backbone.widths", [4, 4, 8], (4, 4, 8)),
        ("backbone.widths", None, None),
        ("data.train_limit", None, None),
        ("data.augmentation.flip", False, False),
        ("data.root", "/a, b=c", "/a, b=c"),
        ("name", "1.10", "1.10"),
    ],
)
def test_values_reach_the_recipe_as_they_are(
    tiny_recipe: Callable[..., Recipe], name: str, value: Any, expected: Any
) -> None:
    base = tiny_recipe(method=DML(), data={"train_limit": 40})
    found: Any = recipe_with(base, _sweep(), {name: value})
    for part in name.split("."):
        found = getattr(found, part)
    assert found == expected and type(found) is type(expected)


def test_a_seed_of_the_search_is_none_of_the_recipe() -> None:
    base = load_recipe("infopro_digits")
    assert recipe_with(base, _sweep(seed=5), {}).seed == base.seed


@pytest.mark.parametrize("name", shipped_sweeps())
def test_every_example_of_a_shipped_search_is_a_recipe(name: str) -> None:
    sweep = load_sweep(name)
    assert sweep.name == name
    assert sweep.judged_by.startswith("validation/")
    found = list(examples(sweep))
    if sweep.searcher == "grid":
        found += [settings for settings in (drawn(sweep, number) for number in range(1000)) if settings is not None]
    elif sweep.searcher == "random":
        found += [settings for settings in (drawn(sweep, number) for number in range(10)) if settings is not None]
    base, identities = sweep.base(), {}
    for settings in found:
        recipe = recipe_with(base, sweep, settings)
        identities[recipe_identity(recipe)] = settings
    # What differs between settings differs between recipes: no setting is lost on its way.
    assert len(identities) == len({json.dumps(settings) for settings in found})


def test_searches_are_found_by_name_and_by_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"sweep 'k_digit' does not exist.*'k_digits'"):
        load_sweep("k_digit")
    with pytest.raises(RecipeError, match="there is no such file"):
        load_sweep(str(tmp_path / "none.py"))
    own = tmp_path / "own.py"
    own.write_text(
        "import engine\nfrom ray import tune\n"
        "def sweep():\n    return engine.Sweep('mine', 'dsl_digits', {'seed': tune.choice([1])})\n"
    )
    assert load_sweep(str(own)).name == "mine"
    for text, said in (
        ("x = 1", r"defines no function sweep\(\)"),
        ("def sweep():\n    return 1", r"sweep\(\) returned int, expected engine.Sweep"),
        ("import nowhere_at_all", "nowhere_at_all"),
    ):
        own.write_text(text)
        with pytest.raises(RecipeError, match=said):
            load_sweep(str(own))

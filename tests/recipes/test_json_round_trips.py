"""Does every recipe and every plan survive JSON?"""

from __future__ import annotations

import json

from hypothesis import given, settings

from engine.recipes import Plan, Recipe, plan_from_dict, plan_to_dict, recipe_from_dict, recipe_identity, recipe_to_dict
from tests.recipes.drawn_recipes import plans, recipes


@settings(max_examples=80)
@given(recipes)
def test_every_recipe_survives_json(recipe: Recipe) -> None:
    found = recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe))))
    assert found == recipe
    assert repr(found) == repr(recipe)  # tells True from 1, and -0.0 from 0.0
    assert recipe_identity(found) == recipe_identity(recipe)
    assert recipe_to_dict(found) == recipe_to_dict(recipe)


@settings(max_examples=40)
@given(plans)
def test_every_plan_survives_json(plan: Plan) -> None:
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(plan)))) == plan

"""What to train and where to run it, as frozen, validated data; knows neither torch nor ray."""

from engine.recipes.backbone import Backbone
from engine.recipes.data import Augmentation, Data
from engine.recipes.files import load_recipe, recipe_to_json, shipped_recipes
from engine.recipes.methods import METHODS
from engine.recipes.methods.local_learning import DGL, EndToEnd, Greedy, InfoPro, PredSim, Ramp, Segmented
from engine.recipes.methods.mutual_learning import (
    DML,
    Distillation,
    Divergence,
    MimicryReduction,
    MimicryTarget,
    Peer,
)
from engine.recipes.optimizer import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    Optimizer,
    Polynomial,
    RMSProp,
    Schedule,
    Step,
)
from engine.recipes.overrides import apply_overrides
from engine.recipes.plan import Plan, plan_from_dict, plan_to_dict
from engine.recipes.problems import nearest
from engine.recipes.recipe import (
    Classification,
    Numerics,
    Recipe,
    recipe_from_dict,
    recipe_identity,
    recipe_to_dict,
    with_absolute_paths,
)

__all__ = [
    "DGL",
    "DML",
    "METHODS",
    "SGD",
    "Adam",
    "AdamW",
    "Augmentation",
    "Backbone",
    "Classification",
    "Constant",
    "Cosine",
    "Data",
    "Distillation",
    "Divergence",
    "EndToEnd",
    "Exponential",
    "Greedy",
    "InfoPro",
    "MimicryReduction",
    "MimicryTarget",
    "Numerics",
    "Optimizer",
    "Peer",
    "Plan",
    "Polynomial",
    "PredSim",
    "RMSProp",
    "Ramp",
    "Recipe",
    "Schedule",
    "Segmented",
    "Step",
    "apply_overrides",
    "load_recipe",
    "nearest",
    "plan_from_dict",
    "plan_to_dict",
    "recipe_from_dict",
    "recipe_identity",
    "recipe_to_dict",
    "recipe_to_json",
    "shipped_recipes",
    "with_absolute_paths",
]

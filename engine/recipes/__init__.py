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
from engine.recipes.methods.self_distillation import CSKD, DLB, LWR, ONE, PSKD, DataMix, LabelSmoothing
from engine.recipes.methods.sub_networks import (
    GKT,
    MKF,
    ST,
    Fraction,
    GroupKnowledge,
    MixingStyle,
    Sampling,
    StochasticDepth,
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
    "Adam",
    "AdamW",
    "Augmentation",
    "Backbone",
    "CSKD",
    "Classification",
    "Constant",
    "Cosine",
    "DGL",
    "DLB",
    "DML",
    "Data",
    "DataMix",
    "Distillation",
    "Divergence",
    "EndToEnd",
    "Exponential",
    "Fraction",
    "GKT",
    "Greedy",
    "GroupKnowledge",
    "InfoPro",
    "LWR",
    "LabelSmoothing",
    "METHODS",
    "MKF",
    "MimicryReduction",
    "MimicryTarget",
    "MixingStyle",
    "Numerics",
    "ONE",
    "Optimizer",
    "PSKD",
    "Peer",
    "Plan",
    "Polynomial",
    "PredSim",
    "RMSProp",
    "Ramp",
    "Recipe",
    "SGD",
    "ST",
    "Sampling",
    "Schedule",
    "Segmented",
    "Step",
    "StochasticDepth",
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

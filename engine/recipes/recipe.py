"""The recipe of a training: everything that decides its numbers, and nothing about where it runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from engine.errors import RecipeError
from engine.paths import absolute
from engine.recipes.backbone import Backbone
from engine.recipes.data import Data
from engine.recipes.methods import Method
from engine.recipes.methods.branches import RichBranches
from engine.recipes.optimizer import SGD, Cosine, Optimizer, Schedule, check_rates
from engine.recipes.problems import did_you_mean
from engine.recipes.settings import settings, without_numpy
from engine.recipes.short_runs import schedule_cautions
from engine.recipes.tasks import Classification, Task

_MOST_BLOCKS = 4096


def _recompute(value: Any) -> Any:
    value = without_numpy(value)
    if value in ("none", "blocks") or (type(value) is int and 1 <= value <= _MOST_BLOCKS):
        return value
    hint = did_you_mean(str(value).lower(), ("none", "blocks")) or ", such as 4"
    shown = repr(value) if len(repr(value)) < 100 else f"a {type(value).__name__}"
    raise ValueError(f"found {shown}, expected 'none', 'blocks', or a number of blocks from 1 to {_MOST_BLOCKS}{hint}")


Recompute = Annotated[Literal["none", "blocks"] | int, BeforeValidator(_recompute)]


@settings
class Numerics:
    """How the numbers are computed: choices that change rounding, and so belong to the recipe, and one of memory."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where learners compute; `auto` takes GPUs when the plan finds any."""

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Torch threads of every learner; another count sums in another order."""

    deterministic: bool = True
    """Use deterministic algorithms only; on GPUs slower, and without it runs are not repeatable bit for bit."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Autocast precision of the networks; losses are computed in float32. `float16` needs a GPU."""

    channels_last: bool = False
    """Memory layout NHWC, which many CPUs and GPUs convolve faster."""

    compile: bool = False
    """Compile each learner's networks with torch.compile; needs a C++ compiler."""

    recompute: Recompute = "none"
    """What is run forward once more on the way back instead of being kept: nothing, every block, or groups of so many
    blocks, of which only the inputs stay. Less memory for up to one forward pass more work (measured: a tenth to a half
    more time); no weight changes by a bit, so a run can go on with another choice."""

    @model_validator(mode="after")
    def _recompute_blocks(self) -> Numerics:
        if self.recompute != "none" and self.compile:
            raise ValueError(
                f"recompute={self.recompute} runs a network block by block, but compile=true makes it one piece, which "
                "decides itself what it computes again: leave one of the two out"
            )
        return self

    @property
    def recomputed_blocks(self) -> int:
        """Blocks of a group that is run again on the way back; 0 where all that a backward pass needs is kept."""
        return self.recompute if isinstance(self.recompute, int) else int(self.recompute == "blocks")


@settings
class Recipe:
    """A complete, repeatable description of a training."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the recipe, and of its run folder."""

    method: Method
    """How the network learns."""

    backbone: Backbone
    """The network."""

    data: Data
    """The images."""

    task: Task = Classification()
    """What is predicted, and how it is scored."""

    optimizer: Optimizer = SGD()
    """How weights are updated; each learner has one of its own."""

    schedule: Schedule = Cosine()
    """How the learning rate changes."""

    epochs: Annotated[int, Field(ge=1, le=2**53)] = 160
    """Passes over the training set."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Origin of every random stream: weights, order of images, augmentation, dropout."""

    numerics: Numerics = Numerics()
    """How the numbers are computed."""

    @model_validator(mode="after")
    def _rates_are_below_the_learning_rate(self) -> Recipe:
        own = {f"method.peers.{place}.optimizer": each for place, each in enumerate(self.method.peer_optimizers)}
        for name, optimizer in {"optimizer": self.optimizer, **own}.items():
            if optimizer is not None:
                check_rates(self.schedule, optimizer.learning_rate, f"{name}.learning_rate")
        return self

    @model_validator(mode="after")
    def _one_learner_has_the_norm(self) -> Recipe:
        branched = isinstance(self.method, RichBranches) and self.method.branch_learners
        if branched and self.optimizer.clip_norm is not None:
            raise ValueError(
                f"optimizer.clip_norm={self.optimizer.clip_norm} bounds the norm of each learner's gradients, and with "
                "method.branch_learners=true branches are learners of their own, although all train one network: set "
                "optimizer.clip_norm=null, or method.branch_learners=false"
            )
        return self


_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)

# Fields that say where images lie or what is kept in memory, not which weights and scores come out.
_NOT_IDENTITY: Any = {
    "name": True,
    "data": {"root": True, "download": True, "evaluation_batch_size": True},
    "numerics": {"recompute": True},
}

# Fields that earlier versions had not, or not in the digest, with the values that mean what was done then: with these
# they leave the digest as it was.
_ADDED_LATER: dict[str, dict[str, Any]] = {
    "data": {"image_column": None, "stretch": False, "classes_per_batch": None},
    "task": {"evaluation_scales": [1.0], "evaluation_flip": False},
}


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain JSON values; `recipe_from_dict` is the inverse."""
    dumped: dict[str, Any] = _ADAPTER.dump_python(recipe, mode="json")
    return dumped


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """Return the recipe that plain values describe; raises pydantic's ValidationError with one entry per mistake."""
    return _ADAPTER.validate_python(values)


def recipe_identity(recipe: Recipe) -> str:
    """Return a digest of all that decides the weights and the scores of a run; where the images lie does not."""
    return _digest(recipe, {})


def weights_identity(recipe: Recipe) -> str:
    """Return a digest of all that decides the weights: as `recipe_identity`, but however they are evaluated."""
    return _digest(recipe, {"task": recipe.task.evaluation_fields})


def _digest(recipe: Recipe, without: Mapping[str, Collection[str]]) -> str:
    dumped = _ADAPTER.dump_python(recipe, mode="json", exclude=_NOT_IDENTITY)
    for part, later in _ADDED_LATER.items():
        dumped[part] = {
            name: value
            for name, value in dumped[part].items()
            if later.get(name, ...) != value and name not in without.get(part, ())
        }
    return hashlib.sha256(json.dumps(dumped, sort_keys=True).encode()).hexdigest()


def cautions(recipe: Recipe) -> list[str]:
    """Return what a user should know of a recipe that trains, but perhaps not as was meant; a line each."""
    found = (recipe.method.caution, recipe.method.caution_of(recipe.epochs))
    return [*filter(None, found), *schedule_cautions(recipe.schedule, recipe.epochs)]


def without_files(recipe: Recipe) -> Recipe:
    """Return a recipe of the same sizes that neither reads weights nor writes knowledge, and compiles nothing."""
    method = recipe.method.without_folder().without_weights()
    numerics = dataclasses.replace(recipe.numerics, compile=False)
    return dataclasses.replace(recipe, method=method, backbone=recipe.backbone.without_weights(), numerics=numerics)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with its paths expanded and made absolute, so that it means the same in every process.

    Raises:
        RecipeError: a path cannot be meant; see `engine.paths.absolute`.
    """
    data, method = recipe.data, recipe.method.with_absolute_paths()
    if data.root is not None and "://" not in data.root:
        data = dataclasses.replace(data, root=str(absolute(data.root, "data.root", RecipeError)))
    if data.labelled_indices is not None:
        listed = str(absolute(data.labelled_indices, "data.labelled_indices", RecipeError))
        data = dataclasses.replace(data, labelled_indices=listed)
    backbone, task = recipe.backbone.with_absolute_paths(), recipe.task.with_absolute_paths()
    return dataclasses.replace(recipe, backbone=backbone, data=data, method=method, task=task)

"""Networks that were trained here, from a run folder or from an exported file.

Both may come from somebody else. What they name is checked before it is built, and code that they name runs only where
the recipe that asks for them names it, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import nn
from typing_extensions import TypedDict

from engine import backbones
from engine.backbones.plain_names import check_plain_state
from engine.backbones.safetensors_files import (
    OUTPUT_NAME,
    OUTPUT_OF_EXTRACTOR,
    read_header,
    read_tensors,
    refuse_newer_export,
)
from engine.checkpoints import require_checkpoint
from engine.data import Facts
from engine.errors import InputError, RecipeError
from engine.methods.networks import assemble
from engine.methods.registry import trained_team
from engine.reading import checked, naming, parse_json, read_json
from engine.recipes import Backbone, Distillation, Recipe, load_recipe, recipe_to_dict
from engine.recipes.own_files import is_own
from engine.tasks import task_of

_CODE_FIELDS = ("name", "teacher_backbone", "kind")

_Positive = Annotated[int, Field(strict=True, ge=1, lt=2**31)]


class _Metadata(TypedDict):
    """What `export` says of a network; channel values as in `Facts`."""

    backbone_settings: Backbone
    num_classes: _Positive
    image_shape: tuple[_Positive, _Positive, _Positive]
    mean: tuple[float, ...]
    std: tuple[float, ...]


_METADATA = TypeAdapter(_Metadata)


def open_pretrained(recipe: Recipe, facts: Facts) -> nn.Sequential:
    """Return the trained network that ``method.teacher`` names, in evaluation mode on the CPU.

    Args:
        recipe: whose method has the fields ``teacher``, ``teacher_network`` and ``teacher_backbone``.
        facts: what is known of the images that the network will see.

    Raises:
        RecipeError: there is no such network, it was trained for other images or classes, or it needs code that the
            recipe does not name.
    """
    method = recipe.method
    assert isinstance(method, Distillation)
    if method.teacher is None:
        raise RecipeError(
            "method.teacher is not given: train a network first, then give its run folder, or the .safetensors file "
            "that export made of it"
        )
    path = Path(method.teacher)
    with _errors_of(path):
        with naming(path, RecipeError):
            is_run = path.is_dir() and (path / "recipe.json").is_file()
            is_file = path.is_file() and path.suffix == ".safetensors"
        if is_run:
            return _from_run(path, method.teacher_network, recipe, facts)
        if is_file:
            return _from_file(path, recipe, facts)
        raise RecipeError("is neither a run folder nor a .safetensors file; give what train or export wrote")


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Name the teacher in all errors."""
    try:
        yield
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        named = reason if reason.startswith("method.teacher") else f"method.teacher={path}: {reason}"
        raise RecipeError(named) from error


def _from_run(folder: Path, name: str | None, recipe: Recipe, facts: Facts) -> nn.Sequential:
    # Before it is read as a recipe, for which a method of one's own is imported.
    _check_code(read_json(folder / "recipe.json", RecipeError), recipe)
    earlier = load_recipe(folder / "recipe.json")
    checkpoint = require_checkpoint(folder / "checkpoints")
    _check_task(earlier, recipe)
    known = Facts.from_json(checkpoint.values["facts"])
    _check_images(known.num_classes, known.image_shape, known.mean, known.std, facts)
    networks = trained_team(earlier, known).networks
    if name is None and len(networks) == 1:
        name = next(iter(networks))
    if name is None or name not in networks:
        raise RecipeError(f"method.teacher_network={name}: {folder} has {', '.join(networks)}; give one of these names")
    return assemble(networks[name], known, checkpoint.states)


def _from_file(path: Path, recipe: Recipe, facts: Facts) -> nn.Sequential:
    header = read_header(path, RecipeError)
    refuse_newer_export(header, "its metadata", RecipeError)
    advice = "give a file that `local-learning export` wrote, or a run folder"
    missing = [name for name in _Metadata.__annotations__ if name not in header.metadata]
    if missing:
        raise RecipeError(
            f"its metadata do not say which network it holds ({', '.join(missing)} are missing); {advice}"
        )
    texts = {name: header.metadata[name] for name in _Metadata.__annotations__}
    values = {name: parse_json(text, f"metadata, {name}", RecipeError, advice=advice) for name, text in texts.items()}
    known = checked(values, _METADATA, "metadata", RecipeError)
    _check_images(known["num_classes"], known["image_shape"], known["mean"], known["std"], facts)
    if header.metadata.get(OUTPUT_NAME, "").startswith(OUTPUT_OF_EXTRACTOR):
        # Of a run folder the task has to be the same, too.
        compares = task_of(recipe, facts).scored == "features"
        remedy = "give the teacher's run folder as method.teacher" if compares else "give a teacher of the same task"
        raise RecipeError(
            "holds a network without its classifier, as `local-learning export` writes it for a task that compares "
            f"features, such as task.kind=retrieval, but a student learns from predicted classes; {remedy}"
        )
    # Whatever the training started from is not needed.
    settings = known["backbone_settings"].without_weights()
    _check_code({"backbone": {"name": settings.name}}, recipe)
    # Without memory at first: what the file promises need not be what it holds.
    with torch.device("meta"):
        promised = backbones.build(settings, facts.num_classes, facts.image_shape, seed=0)
    check_plain_state(promised, settings.name, header.tensors)
    network = backbones.build(settings, facts.num_classes, facts.image_shape, seed=0)
    backbones.load_plain_state(network, settings.name, read_tensors(path, RecipeError))
    return network.eval()


def _check_task(earlier: Recipe, recipe: Recipe) -> None:
    """Refuse a teacher of another task; with which losses it learned, and how it was scored, does not matter."""
    then, now = earlier.task, recipe.task
    if then.kind != now.kind:
        raise RecipeError(
            f"was trained for task.kind={then.kind}, but the task here is task.kind={now.kind}; give a teacher of the "
            "same task"
        )
    # Only the file of a task of one's own knows what its options mean for the predictions.
    if then.own_options != now.own_options:
        raise RecipeError(
            f"was trained with task.options={json.dumps(then.own_options)}, but here they are "
            f"task.options={json.dumps(now.own_options)}; give a teacher of the same options"
        )


def _check_images(
    num_classes: int, image_shape: tuple[int, int, int], mean: tuple[float, ...], std: tuple[float, ...], facts: Facts
) -> None:
    known = {"classes": num_classes, "image shape": image_shape, "mean": mean, "std": std}
    expected = {"classes": facts.num_classes, "image shape": facts.image_shape, "mean": facts.mean, "std": facts.std}
    for what, value in expected.items():
        if known[what] != value:
            # What the images are is given; how they are normalised can be chosen.
            own = f", or set data.mean={_written(mean)} and data.std={_written(std)}" if what in ("mean", "std") else ""
            raise RecipeError(
                f"was trained for {what} {known[what]}, but the images here have {value}; give a teacher that was "
                f"trained on such images{own}"
            )


def _written(values: tuple[float, ...]) -> str:
    return ",".join(map(repr, values))


def _check_code(values: Any, recipe: Recipe) -> None:
    """Refuse code that a teacher names and the recipe that asks for it does not."""
    named = {code for _, code in _code_in(recipe_to_dict(recipe))}
    for field, code in _code_in(values):
        if code not in named and field == "kind":
            raise RecipeError(
                f"it was trained with the code {code}, and code runs only if the recipe names it, too; if you trust "
                "that file, export the network, and give the .safetensors file as method.teacher"
            )
        if code not in named:
            raise RecipeError(
                f"its network is made by {code}, and code runs only if the recipe names it, too; if you trust that "
                f"file, set method.teacher_backbone={code}"
            )


def _code_in(values: Any) -> Iterator[tuple[str, str]]:
    """Yield fields and what they name of files in a recipe's plain values, with absolute paths."""
    if isinstance(values, dict):
        for field, value in values.items():
            if field in _CODE_FIELDS and isinstance(value, str) and is_own(value):
                file, colon, function = value.rpartition(":")
                yield field, f"{os.path.abspath(file)}:{function}" if colon else os.path.abspath(value)
            else:
                yield from _code_in(value)
    elif isinstance(values, list):
        for value in values:
            yield from _code_in(value)

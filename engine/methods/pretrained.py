"""How does a network that was trained here come back, from a run folder or from an exported file?"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from engine import backbones
from engine.data import Facts
from engine.errors import RecipeError, RunError
from engine.learners.checkpoints import require_checkpoint
from engine.methods.finding import method_of
from engine.methods.networks import assemble
from engine.recipes import Backbone, load_recipe


def open_pretrained(path: str | None, name: str | None, facts: Facts) -> nn.Sequential:
    """Return a trained network, in evaluation mode on the CPU.

    Args:
        path: a run folder, or a .safetensors file that `export` wrote.
        name: which network of a run folder, where it has several.
        facts: what is known of the images that it will see.

    Raises:
        RecipeError: there is no such network, or it was trained for other images or classes.
        RunError: the run folder holds no complete checkpoint.
    """
    if path is None:
        raise RecipeError(
            "method.teacher is not given: train a network first, then give its run folder, or the .safetensors file "
            "that export made of it"
        )
    place = Path(path)
    if place.is_dir() and (place / "recipe.json").is_file():
        network, known = _from_run(place, name)
    elif place.is_file() and place.suffix == ".safetensors":
        network, known = _from_file(place)
    else:
        raise RecipeError(
            f"method.teacher={path}: is neither a run folder nor a .safetensors file; give what train or export wrote"
        )
    expected = {"classes": facts.num_classes, "image shape": facts.image_shape, "mean": facts.mean, "std": facts.std}
    for what, value in expected.items():
        if known[what] != value:
            raise RecipeError(
                f"method.teacher={path}: was trained for {what} {known[what]}, but the images here have {value}; give "
                "a teacher that was trained on such images, or set data.mean and data.std to the teacher's"
            )
    return network


def _from_run(folder: Path, name: str | None) -> tuple[nn.Sequential, dict[str, object]]:
    recipe = load_recipe(folder / "recipe.json")
    try:
        checkpoint = require_checkpoint(folder / "checkpoints")
    except RunError as error:
        raise RecipeError(f"method.teacher: {error}") from error
    facts = Facts.from_json(checkpoint.values["facts"])
    networks = method_of(recipe).team(recipe, facts).networks
    if name is None and len(networks) == 1:
        name = next(iter(networks))
    if name is None or name not in networks:
        raise RecipeError(f"method.teacher_network={name}: {folder} has {', '.join(networks)}; give one of these names")
    known = {"classes": facts.num_classes, "image shape": facts.image_shape, "mean": facts.mean, "std": facts.std}
    return assemble(networks[name], facts, checkpoint.states), known


def _from_file(path: Path) -> tuple[nn.Sequential, dict[str, object]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise RecipeError(f"method.teacher={path}: could not be read: {error}") from error
    try:
        settings = TypeAdapter(Backbone).validate_json(metadata["backbone_settings"])
        shape = tuple(json.loads(metadata["image_shape"]))
        known: dict[str, object] = {
            "classes": int(metadata["num_classes"]),
            "image shape": shape,
            "mean": tuple(json.loads(metadata["mean"])),
            "std": tuple(json.loads(metadata["std"])),
        }
    except (KeyError, ValueError, ValidationError) as error:
        raise RecipeError(
            f"method.teacher={path}: its metadata do not say which network it holds ({error}); give a file that "
            "`local-learning export` wrote, or a run folder"
        ) from error
    network = backbones.build(settings, int(metadata["num_classes"]), shape, seed=0)
    backbones.load_plain_state(network, settings.name, tensors)
    return network.eval(), known

"""Networks of a recipe: built with their initial weights, and put together again from what learners have trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine import backbones
from engine.checkpoints import LearnerState
from engine.data import Facts
from engine.errors import RecipeError, RunError
from engine.methods.team import LearnerSummary, Network
from engine.objectives import Objective
from engine.partition import Segment
from engine.reading import first_line
from engine.recipes import Recipe
from engine.tasks import task_of

_BODY = "body."


def build_network(recipe: Recipe, facts: Facts, seed: int, peer: int = 0) -> nn.Sequential:
    """Return the whole backbone of a recipe with the initial weights of a seed and a place in a cohort.

    Raises:
        RecipeError: it needs two images at a time, and a batch of an epoch holds one.
    """
    images, at_once = facts.sizes["train"], recipe.data.batch_size
    if backbones.needs_two_images(recipe.backbone.name) and (images % at_once or at_once) == 1:
        raise RecipeError(
            f"backbone.name={recipe.backbone.name}: batch norm behind its mean of all positions needs two images, but "
            f"of {images:,} training images in batches of {at_once} the last holds one: change data.batch_size, or set "
            f"data.train_limit={images - 1}"
        )
    return backbones.build(recipe.backbone, task_of(recipe, facts).outputs, facts.image_shape, seed, peer)


def refuse_auxiliary_heads(recipe: Recipe, trainer: str) -> None:
    """Refuse a backbone's own auxiliary classifiers where they would silently not be trained.

    Args:
        recipe: whose backbone may be to have some.
        trainer: the field by which they are left out, such as ``method.kind=ps_kd``.

    Raises:
        RecipeError: it is to have some.
    """
    if recipe.backbone.auxiliary_heads:
        raise RecipeError(
            f"backbone.auxiliary_heads=true, but {trainer} trains no classifiers that a backbone brings: set "
            "backbone.auxiliary_heads=false, here and in what you compare with, or choose method.kind=end_to_end, dml, "
            "or one that cuts"
        )


def summarise(name: str, segment: Segment, network: nn.Sequential, objective: Objective) -> LearnerSummary:
    """Return what the learner of a segment will hold."""
    names = [block for block, _ in network.named_children()]
    body = network[segment.start : segment.stop]
    return LearnerSummary(name, tuple(names[segment.start : segment.stop]), _trained(body), _trained(objective))


def _trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def assemble(network: Network, facts: Facts, states: Mapping[str, LearnerState]) -> nn.Sequential:
    """Return a network whose blocks some learners trained, in evaluation mode on the CPU.

    Raises:
        RunError: the states are not those of these learners.
    """
    # The trained weights replace whatever the training started from, so that file need not exist any more.
    settings = network.backbone.without_weights()
    module = backbones.build(settings, network.outputs, facts.image_shape, seed=0)
    missing = [learner for learner in network.learners if learner not in states]
    if missing:
        raise RunError(f"the checkpoint holds the learners {', '.join(states)}, but not {', '.join(missing)}")
    tensors = {
        name[len(_BODY) :]: value
        for learner in network.learners
        for name, value in states[learner].tensors.items()
        if name.startswith(_BODY)
    }
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise RunError(f"the checkpoint does not fit the network {settings.name}: {first_line(error)}") from error
    return module.eval()


def networks_sha256(networks: Mapping[str, Network], facts: Facts, states: Mapping[str, LearnerState]) -> str:
    """Return the digest of what a run deploys: `weights_sha256` of each of its networks, joined by a dash.

    Raises:
        RunError: as `assemble`.
    """
    return "-".join(weights_sha256(assemble(each, facts, states).state_dict()) for each in networks.values())


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over name, dtype, shape and bytes of all tensors, in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

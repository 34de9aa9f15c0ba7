"""Puts a run's network together again: the plain backbone, with neither heads nor decoders."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from engine import backbones
from engine.data import Facts
from engine.learners import LearnerState
from engine.recipes import Recipe

_BODY = "body."


def assemble(
    recipe: Recipe, facts: Facts, states: Mapping[str, LearnerState], learners: Sequence[str]
) -> nn.Sequential:
    """Return the network whose blocks the given learners trained, in evaluation mode on the CPU."""
    # The trained weights replace whatever the training started from, so that file need not exist any more.
    settings = dataclasses.replace(recipe.backbone, weights=None)
    network = backbones.build(settings, facts.num_classes, facts.image_shape, recipe.seed)
    tensors = {
        name[len(_BODY) :]: value
        for learner in learners
        for name, value in states[learner].tensors.items()
        if name.startswith(_BODY)
    }
    network.load_state_dict(tensors, strict=True)
    return network.eval()


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over name, dtype, shape and bytes of all tensors, in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Puts a run's network together again: the plain backbone, with neither heads nor decoders."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine import backbones
from engine.data import Facts
from engine.learners import LearnerState
from engine.methods.team import Network

_BODY = "body."


def assemble(network: Network, facts: Facts, states: Mapping[str, LearnerState]) -> nn.Sequential:
    """Return a network whose blocks some learners trained, in evaluation mode on the CPU."""
    # The trained weights replace whatever the training started from, so that file need not exist any more.
    settings = dataclasses.replace(network.backbone, weights=None)
    module = backbones.build(settings, facts.num_classes, facts.image_shape, seed=0)
    tensors = {
        name[len(_BODY) :]: value
        for learner in network.learners
        for name, value in states[learner].tensors.items()
        if name.startswith(_BODY)
    }
    module.load_state_dict(tensors, strict=True)
    return module.eval()


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over name, dtype, shape and bytes of all tensors, in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Puts a run's network together again: the plain backbone, with neither heads nor decoders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine import backbones
from engine.checkpoints import LearnerState
from engine.data import Facts
from engine.errors import RunError
from engine.methods.team import Network
from engine.reading import first_line

_BODY = "body."


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

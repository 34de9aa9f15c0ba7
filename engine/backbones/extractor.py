"""A network without its classifier: what is left gives the features that enter the last linear layer."""

from __future__ import annotations

from torch import nn


def without_classifier(network: nn.Sequential) -> nn.Sequential:
    """Replace the last linear layer of a network by nothing, and return the network.

    It then maps images ``[B, C, H, W]`` to features ``[B, D]``.
    """
    name = next(name for name, module in reversed(list(network.named_modules())) if isinstance(module, nn.Linear))
    parent, _, last = name.rpartition(".")
    network.get_submodule(parent).add_module(last, nn.Identity())
    return network

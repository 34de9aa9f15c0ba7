"""Initial weights of branches."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from engine.backbones.initial_weights import initialise
from engine.recipes.own_files import is_own


def draw_weights(branch: nn.Module, backbone_name: str) -> None:
    """Draw all weights of a branch as the builder of its backbone draws the network's, from torch's default generator.

    Layers of a network of the user's own start as torch starts them, for nobody knows what its function does then. The
    released code of dynamic hierarchical mimicking leaves what torch draws for the biases of the linear layers of wide
    ResNets and DenseNets, which are 0 here, on the branches as in the network.
    Statistics of batch norms start at mean 0 and variance 1.

    Args:
        branch: layers of torch.nn, whose weights may be without values.
        backbone_name: the recipe's ``backbone.name``.
    """
    for module in branch.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    for module in branch.modules():
        # It draws only some of its weights, after its own linear layer has drawn the others.
        if isinstance(module, nn.MultiheadAttention):
            module._reset_parameters()
    if is_own(backbone_name) or backbone_name.startswith(_AS_TORCH):
        return
    initialise(branch)
    linear = next((draw for prefix, draw in _LINEAR.items() if backbone_name.startswith(prefix)), None)
    for module in branch.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear is not None and module.bias is not None:
            linear(module)
            nn.init.zeros_(module.bias)


def _as_torch(layer: nn.Linear) -> None:
    pass


def _narrow(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight, 0.0, 0.01)


def _by_outputs(layer: nn.Linear) -> None:
    bound = 1 / math.sqrt(layer.out_features)
    nn.init.uniform_(layer.weight, -bound, bound)


def _fan_out(layer: nn.Linear) -> None:
    nn.init.kaiming_uniform_(layer.weight, mode="fan_out", nonlinearity="sigmoid")


# torchvision's ShuffleNets draw nothing themselves.
_AS_TORCH = ("shufflenet_",)
# Families whose linear layers have biases of 0, and how they draw the weights: torchvision's way where it has them.
_LINEAR: dict[str, Callable[[nn.Linear], None]] = {
    "densenet_": _as_torch,
    "wrn_": _as_torch,
    "vgg": _narrow,
    "mobilenet_v2": _narrow,
    "mobilenet_v3_": _narrow,
    "efficientnet_": _by_outputs,
    "mnasnet": _fan_out,
}

"""Batch-norm neck (BNNeck; Luo, Gu, Liao, Lai & Jiang 2019, "Bag of Tricks", section 3.5) before a classifier.

Losses that compare features, such as the triplet loss, take what comes before the neck; the classifier, and whoever
looks for a picture, take what comes after it.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from engine.errors import RecipeError

NECK = "neck"
_STANDARD_DEVIATION = 0.001


class BatchNormNeck(nn.BatchNorm1d):
    """Batch norm of features ``[B, D]`` without a shift, so that classes are separated by angles."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        """Let it scale by 1, and forget what it has seen."""
        self.reset_running_stats()
        nn.init.ones_(self.weight)


class NeckedClassifier(nn.Linear):
    """A linear layer without bias, its weights from N(0, 0.001) as in the authors' code."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weights from torch's default generator."""
        nn.init.normal_(self.weight, std=_STANDARD_DEVIATION)


def add_neck(network: nn.Sequential, name: str) -> None:
    """Put a neck before the last linear layer of a network, which is replaced by one without bias.

    Args:
        network: changed in place; weights of the new layer come from torch's default generator.
        name: the recipe's ``backbone.name``, for messages.

    Raises:
        RecipeError: there is no linear layer, it is no part of an ``nn.Sequential``, or something there has the
            neck's name already.
    """
    last, layer = next(
        ((each, module) for each, module in reversed(list(network.named_modules())) if isinstance(module, nn.Linear)),
        ("", None),
    )
    parent_name, _, own = last.rpartition(".")
    parent = network.get_submodule(parent_name)
    if layer is None or not isinstance(parent, nn.Sequential) or NECK in parent._modules:
        raise RecipeError(
            f"backbone.neck=batch_norm: {name} has no last linear layer in an nn.Sequential without another {NECK!r}, "
            "before which it is put; leave the field out, or choose another backbone"
        )
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for each, module in parent.named_children():
        if each == own:
            parts[NECK] = BatchNormNeck(layer.in_features)
            module = NeckedClassifier(layer.in_features, layer.out_features)
        parts[each] = module
    parent._modules.clear()
    parent._modules.update(parts)

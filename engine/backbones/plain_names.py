"""Under which names does the rest of the world know a network's weights?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from engine.backbones.own_file import is_own
from engine.backbones.registry import find
from engine.errors import RecipeError

_SHOWN = 3


def stage_prefix(child: str) -> str:
    """Return the prefix of a child in an ordinary ResNet: ``layer1_0`` is ``layer1.0``; stem and classifier: none."""
    return "" if child in ("stem", "classifier") else child.replace("_", ".")


def plain_state(network: nn.Sequential, name: str) -> dict[str, Tensor]:
    """Return the state under the ordinary module's names, such as ``layer1.0.conv1.weight``; tensors are not copied.

    ResNet-18 to -152 get torchvision's names, a network of the user's own keeps its names.
    """
    state = network.state_dict()
    return {plain: state[key] for plain, key in _key_of_plain(network, name).items()}


def load_plain_state(network: nn.Sequential, name: str, state: Mapping[str, Tensor]) -> None:
    """Copy a state with plain names into a network: the inverse of `plain_state`.

    Counters of batch norms may be missing, as in files written before torch 0.4.1; they stay as they are.

    Raises:
        RecipeError: names or shapes do not fit; nothing was copied.
    """
    keys = _key_of_plain(network, name)
    own = network.state_dict()
    missing = [plain for plain in keys if plain not in state and not plain.endswith("num_batches_tracked")]
    unexpected = [plain for plain in state if plain not in keys]
    wrong = [plain for plain in state if plain in keys and state[plain].shape != own[keys[plain]].shape]
    if missing or unexpected:
        raise RecipeError(
            f"the names do not fit {name}: missing {_first(missing)}; unexpected {_first(unexpected)}. Expected names "
            f"such as {_first(list(keys))}. Give the weights of a {name} with the same backbone.shortcut and "
            "backbone.widths."
        )
    if wrong:
        raise RecipeError(_wrong_shapes(network, name, wrong, state, own, keys))
    with torch.no_grad():
        for plain, tensor in state.items():
            own[keys[plain]].copy_(tensor)


def _wrong_shapes(
    network: nn.Sequential,
    name: str,
    wrong: list[str],
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    keys: Mapping[str, str],
) -> str:
    shapes = [
        f"{plain}: found {tuple(state[plain].shape)}, expected {tuple(own[keys[plain]].shape)}" for plain in wrong
    ]
    last = list(network._modules)[-1]
    if all(keys[plain].startswith(f"{last}.") for plain in wrong):
        remedy = (
            "Only the classifier differs, so these weights are for another number of classes: give weights for "
            "the classes of this data set, or leave backbone.weights out."
        )
    else:
        remedy = (
            f"Give the weights of a {name} with the same backbone.stem and backbone.widths, or change these fields."
        )
    return f"the shapes do not fit {name}: {_first(shapes, '; ')}. {remedy}"


def _key_of_plain(network: nn.Sequential, name: str) -> dict[str, str]:
    prefix: Callable[[str], str] = (lambda child: child) if is_own(name) else find(name).plain_prefix
    keys = {}
    for key in network.state_dict():
        child, _, rest = key.partition(".")
        keys[f"{prefix(child)}.{rest}".removeprefix(".")] = key
    assert len(keys) == len(network.state_dict()), f"two weights of {name} have the same plain name"
    return keys


def _first(items: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return separator.join(items[:_SHOWN]) + more if items else "none"

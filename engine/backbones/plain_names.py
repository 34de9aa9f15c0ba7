"""Translation between a network's parameter names and those of published weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from engine.backbones.registry import find
from engine.errors import RecipeError
from engine.recipes.own_files import is_own

_SHOWN = 3
# Names come from files of others; the longest of ours with its shapes is shorter.
_LONGEST = 200


def stage_prefix(child: str) -> str:
    """Return the prefix of a child in an ordinary ResNet: ``layer1_0`` is ``layer1.0``; stem and classifier: none."""
    return "" if child in ("stem", "classifier") else child.replace("_", ".")


def plain_state(network: nn.Sequential, name: str) -> dict[str, Tensor]:
    """Return the state under the ordinary module's names, such as ``layer1.0.conv1.weight``; tensors are not copied.

    ResNets and ResNeXts of torchvision get its names, a network of the user's own keeps its names.
    """
    state = network.state_dict()
    return {plain: state[key] for plain, key in _key_of_plain(network, name).items()}


def load_plain_state(
    network: nn.Sequential, name: str, state: Mapping[str, Tensor], without: str | None = None
) -> None:
    """Copy a state with plain names into a network: the inverse of `plain_state`.

    Counters of batch norms may be missing, as in files written before torch 0.4.1; they stay as they are.

    Args:
        network: to be changed.
        name: of the backbone.
        state: tensors by plain name.
        without: ``classifier`` to leave the last child as it is, whatever the state holds of it.

    Raises:
        RecipeError: names or shapes do not fit; nothing was copied.
    """
    check_plain_state(network, name, state, without)
    keys, own = _wanted(network, name, without), network.state_dict()
    with torch.no_grad():
        for plain, tensor in state.items():
            if plain in keys:
                own[keys[plain]].copy_(tensor)


def check_plain_state(
    network: nn.Sequential, name: str, state: Mapping[str, Tensor], without: str | None = None
) -> None:
    """Refuse a state that does not fit; as `load_plain_state`. Of the tensors only names and shapes are looked at."""
    keys, own = _wanted(network, name, without), network.state_dict()
    classifier = _of_classifier(network, name)
    missing = [plain for plain in keys if plain not in state and not plain.endswith("num_batches_tracked")]
    known = keys if without is None else {**keys, **dict.fromkeys(_within(state, classifier))}
    unexpected = [plain for plain in state if plain not in known]
    wrong = [plain for plain in state if plain in keys and state[plain].shape != own[keys[plain]].shape]
    if missing and not unexpected and set(missing) <= set(classifier):
        raise RecipeError(
            f"it lacks the classifier of {name} ({_first(missing)}). Set backbone.weights_without=classifier to train "
            "a new classifier on top of these weights, or give weights that hold one."
        )
    if missing or unexpected:
        raise RecipeError(
            f"the names do not fit {name}: missing {_first(missing)}; unexpected {_first(unexpected)}. Expected names "
            f"such as {_first(list(keys))}. Give the weights of a {name} with the same backbone.shortcut and "
            "backbone.widths."
        )
    if wrong:
        raise RecipeError(_wrong_shapes(name, wrong, state, own, keys, set(classifier)))


def _wrong_shapes(
    name: str,
    wrong: list[str],
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    keys: Mapping[str, str],
    classifier: set[str],
) -> str:
    shapes = [
        f"{plain}: found {tuple(state[plain].shape)}, expected {tuple(own[keys[plain]].shape)}" for plain in wrong
    ]
    if set(wrong) <= classifier:
        remedy = (
            "Only the classifier differs, so these weights are for another number of classes: set "
            "backbone.weights_without=classifier to train a new classifier on top of them, or give weights for the "
            "classes of this data set."
        )
    else:
        remedy = (
            f"Give the weights of a {name} with the same backbone.stem and backbone.widths, or change these fields."
        )
    return f"the shapes do not fit {name}: {_first(shapes, '; ')}. {remedy}"


def _of_classifier(network: nn.Sequential, name: str) -> list[str]:
    last = list(network._modules)[-1]
    return [plain for plain, key in _key_of_plain(network, name).items() if key.startswith(f"{last}.")]


def _within(state: Mapping[str, Tensor], classifier: list[str]) -> list[str]:
    """Return the names of a state that belong to the modules of a classifier, of whichever parts they are made."""
    modules = {plain.rpartition(".")[0] for plain in classifier}
    return [plain for plain in state if any(plain.startswith(f"{module}.") for module in modules if module)]


def _wanted(network: nn.Sequential, name: str, without: str | None) -> dict[str, str]:
    """Return the names in the network of what is to be copied, by plain name."""
    keys = _key_of_plain(network, name)
    left_out = set() if without is None else set(_of_classifier(network, name))
    return {plain: key for plain, key in keys.items() if plain not in left_out}


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
    shown = [item.encode("ascii", "backslashreplace").decode()[:_LONGEST] for item in items[:_SHOWN]]
    return separator.join(shown) + more if items else "none"

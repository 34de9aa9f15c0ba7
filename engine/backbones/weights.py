"""How do published weights get from a file into a network?"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.backbones.plain_names import load_plain_state
from engine.backbones.wording import one_line
from engine.errors import RecipeError


def load_weights(network: nn.Sequential, name: str, path: str) -> None:
    """Copy the weights of a ``.safetensors`` file, or of torchvision's ``.pth`` or ``.pt``, into a network.

    The file has plain names, see `engine.backbones.plain_names.plain_state`.

    Raises:
        RecipeError: the file is missing, unreadable or no flat state, or its names or shapes do not fit.
    """
    state = _read(Path(path))
    try:
        load_plain_state(network, name, state)
    except RecipeError as error:
        raise RecipeError(f"backbone.weights={path}: {error}") from error


def _read(path: Path) -> dict[str, Tensor]:
    readers: dict[str, Callable[[Path], object]] = {".safetensors": load_file, ".pth": _load_torch, ".pt": _load_torch}
    if path.suffix not in readers:
        raise RecipeError(
            f"backbone.weights={path}: found a file of type {path.suffix or '(none)'}. Expected {', '.join(readers)}."
        )
    if not path.is_file():
        raise RecipeError(f"backbone.weights={path}: there is no such file (looked for {path.resolve()}).")
    try:
        state = readers[path.suffix](path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError) as error:
        raise RecipeError(
            f"backbone.weights={path}: the file cannot be read: {one_line(error)}. "
            "Expected nothing but tensors; fetch the file again, or save the weights as .safetensors."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        found = f"a dict of {', '.join(map(str, list(state)[:3]))}" if isinstance(state, dict) else type(state).__name__
        raise RecipeError(
            f"backbone.weights={path}: found {found}. Expected a flat dict from names to tensors: "
            "save the inner state dict alone."
        )
    return state


def _load_torch(path: Path) -> object:
    # weights_only: an unrestricted pickle could run any code.
    return torch.load(path, map_location="cpu", weights_only=True)

"""Loading of published weights from a file into a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from engine.backbones.plain_names import check_plain_state, load_plain_state
from engine.backbones.safetensors_files import Header, read_header, read_tensors, refuse_newer_export
from engine.backbones.segmentation import is_for_segmentation, of_segmentation
from engine.backbones.torch_files import read_torch_file
from engine.errors import RecipeError, VersionError
from engine.paths import kind_of

_SUFFIXES = (".safetensors", ".pth", ".pt")
# Of the network's own size: weights in float64, of many more classes, and what else a file may hold beside them.
_LARGEST = 4
_ROOM_BYTES = 256 * 2**20

_Read = TypeVar("_Read")


def load_weights(network: nn.Sequential, name: str, path: str, without: str | None = None) -> None:
    """Copy the weights of a ``.safetensors`` file, or of torchvision's ``.pth`` or ``.pt``, into a network.

    The file has plain names, see `engine.backbones.plain_names.plain_state`.

    Args:
        network: to be changed.
        name: of the backbone.
        path: of the file.
        without: ``classifier`` to leave the last child as it is, whatever the file holds of it.

    Raises:
        RecipeError: the file is missing, unreadable or no flat state, or its names or shapes do not fit.
        VersionError: a newer engine has exported it.
    """
    place = Path(path)
    if place.suffix not in _SUFFIXES:
        raise RecipeError(
            f"backbone.weights={path}: found a file of type {place.suffix or '(none)'}. "
            f"Expected {', '.join(_SUFFIXES)}."
        )
    if kind_of(place, "backbone.weights", RecipeError) is None:
        raise RecipeError(
            f"backbone.weights={path}: there is no such file (looked for {place.absolute()}); "
            "give the path of one that is there, or leave it out."
        )
    try:
        if place.suffix == ".safetensors":
            # Names and shapes before anything is read: a file that does not fit may be of any size.
            header: Header = _readable(place, lambda: read_header(place, RecipeError))
            refuse_newer_export(header, "its metadata", RecipeError)
            check_plain_state(network, name, _translated(header.tensors, name, without), without)
            state = _readable(place, lambda: read_tensors(place, RecipeError))
        else:
            limit = _LARGEST * sum(value.nbytes for value in network.state_dict().values()) + _ROOM_BYTES
            state = _readable(place, lambda: read_torch_file(place, RecipeError, limit))
        load_plain_state(network, name, _translated(state, name, without), without)
    except (RecipeError, VersionError) as error:
        raise type(error)(f"backbone.weights={path}: {error}") from error


def _translated(state: dict[str, Tensor], name: str, without: str | None) -> dict[str, Tensor]:
    """Return a state under the names that its network has here, where its body is shared with other networks."""
    return of_segmentation(state, without) if is_for_segmentation(name) else state


def _readable(path: Path, read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except RecipeError as error:
        reason = str(error).removeprefix(f"{path}: ")
        # It can be read, and holds something else.
        if reason.startswith("found "):
            raise RecipeError(reason) from error
        raise RecipeError(
            f"the file cannot be read: {reason}. Expected nothing but tensors; fetch the file again, or save the "
            "weights as .safetensors."
        ) from error

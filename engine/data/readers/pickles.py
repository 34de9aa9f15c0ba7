"""Reader of CIFAR's pickled batches that runs no code which a file might bring along.

Nothing of numpy is called with what a file says: its arrays become stand-ins that are checked before they are made.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.reading import first_line, read_bytes

_MOST_BYTES = 512 * 2**20
"""CIFAR-100's training file has 155 MB."""

_MOST_OPERATIONS = 1_000_000
"""CIFAR-100's training file has some 250,000; each can make one object, of some hundred bytes."""

_DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "i8", "uint8", "int64", "int32"}


class _Dtype:
    """Stands for a numpy.dtype of whole numbers."""

    __slots__ = ("name", "order")

    def __init__(self, name: str, *ignored: object) -> None:
        if name not in _DTYPES:
            raise DataError(f"it holds an array of {name!r}, expected whole numbers")
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


class _Array:
    """Stands for a numpy.ndarray, and for what makes an empty one before its content is set."""

    __slots__ = ("values",)

    def __init__(self, *ignored: object) -> None:
        self.values = np.zeros(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, content = state
        stored = content.encode("latin1") if isinstance(content, str) else content
        kind = np.dtype(dtype.name).newbyteorder(dtype.order)
        values = np.frombuffer(stored, dtype=kind)
        self.values = values.reshape(shape, order="F" if by_columns else "C")


# The files name `numpy.core`, which NumPy 2 calls `numpy._core`; both are the same function.
_ALLOWED: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that makes arrays, lists, dictionaries and strings, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"it asks for {module}.{name}, expected nothing but arrays: the file is not CIFAR and may be harmful"
            )
        return _ALLOWED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary in one of CIFAR's pickle files, written by Python 2.

    Raises:
        DataError: the file is cut, is no dictionary, is larger than any of CIFAR's, or asks for any Python object
            besides arrays.
    """
    content = read_bytes(path, DataError, _MOST_BYTES)
    try:
        for operations, _ in enumerate(pickletools.genops(content)):
            if operations >= _MOST_OPERATIONS:
                raise DataError(f"it makes more than {_MOST_OPERATIONS:,} objects, more than any file of CIFAR")
        found = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{path} was not loaded: {error}; fetch the file again") from error
    except Exception as error:
        # Damaged bytes are executed as other pickle instructions, which fail in any way.
        raise DataError(
            f"{path} ({len(content):,} bytes) cannot be read ({type(error).__name__}: {first_line(error)}): "
            f"the copy is incomplete or damaged; fetch it again"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, expected CIFAR's dictionary; fetch the file again")
    return {
        key: value.values if isinstance(value, _Array) else value
        for key, value in found.items()
        if isinstance(key, str)
    }

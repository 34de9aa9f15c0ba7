"""How are CIFAR's pickled batches read without running code that a file might bring along?"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from engine.errors import DataError

# The files name `numpy.core`, which NumPy 2 calls `numpy._core`; both are the same function.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
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
        DataError: the file is cut, is no dictionary, or asks for any Python object besides arrays.
    """
    try:
        with path.open("rb") as file:
            found = _ArraysOnly(file, encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{path} was not loaded: {error}") from error
    except Exception as error:
        # Damaged bytes are executed as other pickle instructions, which fail in any way.
        raise DataError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read ({type(error).__name__}: {error}): "
            f"the copy is incomplete or damaged; fetch it again"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, expected CIFAR's dictionary; fetch the file again")
    return found

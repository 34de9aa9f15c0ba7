"""How is a Python process of our own started, so that it imports nothing that happens to lie in the current folder?

``python -c`` looks for modules in the current folder first, and so would take a `torch.py` there for torch. What starts
this program does not do so, so its children must not either.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import engine

# The folder that holds the engine comes last: it need not be installed, but shall hide nothing.
_SAFE_PATH = "import sys; sys.path[:] = [folder for folder in sys.path if folder]; sys.path.append(sys.argv.pop(1))\n"


def python_command(code: str, words: Sequence[str] = ()) -> list[str]:
    """Return the command that runs code in a Python like this one, which finds this engine and what is installed.

    Args:
        code: Python's statements.
        words: ``sys.argv[1:]`` of the process.
    """
    return [sys.executable, "-c", _SAFE_PATH + code, str(engine_folder()), *words]


def engine_folder() -> Path:
    """Return the folder that holds the package of this engine."""
    return Path(engine.__file__).resolve().parents[1]

"""Python processes of our own: their command, lines of JSON to and from them, and their certain end.

``python -c`` looks for modules in the current folder first, and so would take a `torch.py` there for torch. What starts
this program does not do so, so its children must not either.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import engine

# The folder that holds the engine comes last: it need not be installed, but shall hide nothing.
_SAFE_PATH = "import sys; sys.path[:] = [folder for folder in sys.path if folder]; sys.path.append(sys.argv.pop(1))\n"
_STDOUT, _STDERR = 1, 2


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


def tell(child: subprocess.Popen[Any], values: Mapping[str, Any]) -> None:
    """Write a line of JSON to a child's standard input; one that is gone is noticed by who waits for its answer."""
    assert child.stdin is not None
    with contextlib.suppress(OSError), os.fdopen(os.dup(child.stdin.fileno()), "wb") as pipe:
        pipe.write(json.dumps(values).encode() + b"\n")


def open_answers() -> TextIO:
    """Return this process's standard output for lines of JSON; whatever else is printed goes where errors go."""
    answers = os.fdopen(os.dup(_STDOUT), "w")
    os.dup2(_STDERR, _STDOUT)
    return answers


def answer(answers: TextIO, values: Mapping[str, Any]) -> None:
    """Write a line of JSON that the parent waits for."""
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def ending(code: int) -> str:
    """Return in words how a process ended that has this return code."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def wait_or_kill(children: Iterable[subprocess.Popen[Any]], seconds: float) -> None:
    """Wait for children that were told to end, for so long in all; those that do not listen end by force."""
    deadline = time.monotonic() + seconds
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

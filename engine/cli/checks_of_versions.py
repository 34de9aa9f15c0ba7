"""Checks of `local-learning doctor`: Python and the packages that this engine works with."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement

from engine.cli.check import Check
from engine.cli.words import PROGRAM

_SMALLEST_PYTHON = (3, 10)
# What is looked for where this engine is used from a folder and its metadata is not installed.
_NEEDED = ("torch", "torchvision", "ray", "numpy", "pydantic", "pyarrow", "safetensors")
_EXTRAS = {
    "onnx": (("onnx", "onnxscript"), "needed for `export --to FILE.onnx`"),
    "analysis": (("scikit-learn",), "needed for `analyse --of tsne`"),
    "search": (("optuna",), "needed for searches with searcher='tpe'"),
}


def version_checks() -> Iterator[Check]:
    """Yield a check for Python and one for each package that the engine needs."""
    found = platform.python_version()
    if sys.version_info < _SMALLEST_PYTHON:
        yield Check("problem", "python", found, f"install Python {'.'.join(map(str, _SMALLEST_PYTHON))} or newer")
    else:
        yield Check("ok", "python", found)
    yield from (_package(requirement) for requirement in _requirements())


def _requirements() -> list[Requirement]:
    try:
        stated = importlib.metadata.requires(PROGRAM) or []
    except importlib.metadata.PackageNotFoundError:
        return [Requirement(name) for name in _NEEDED]
    requirements = map(Requirement, stated)
    return [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]


def _package(requirement: Requirement) -> Check:
    remedy = f"pip install '{requirement.name}{requirement.specifier}'"
    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Check("problem", requirement.name, "is not installed", remedy)
    if not requirement.specifier.contains(found, prereleases=True):
        return Check("warning", requirement.name, f"{found}, tested with {requirement.specifier}", remedy)
    return Check("ok", requirement.name, found)


def extra_checks() -> Iterator[Check]:
    """Yield a check for each optional part."""
    for extra, (packages, purpose) in _EXTRAS.items():
        missing = [name for name in packages if not _is_installed(name)]
        if missing:
            remedy = f"pip install '{PROGRAM}[{extra}]'"
            yield Check("warning", f"extra {extra}", f"{', '.join(missing)} not installed; {purpose}", remedy)
        else:
            yield Check("ok", f"extra {extra}", "installed")


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

"""Environment of a run: versions, processor, devices, and the user's own files that its recipe names.

Weights follow from the recipe only where these stay: a run that goes on in another environment says so.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import engine
from engine.data.class_names import printable
from engine.errors import RunError
from engine.reading import read_json
from engine.recipes import Recipe, recipe_to_dict
from engine.recipes.own_files import own_files

ENVIRONMENT = "environment.json"

_FILES = "own_files"
# Of what is kept, that on which numbers may depend.
_COMPARED = ("engine", "processor", "cpu_capability", "gpus")

_PACKAGES = ("torch", "torchvision", "ray", "numpy", "pyarrow", "safetensors", "pydantic")


def describe_environment(recipe: Recipe) -> dict[str, Any]:
    """Return versions, hardware and digests of files as JSON values.

    Args:
        recipe: that is trained; of each file of the user's own that it names, the SHA-256 is kept.
    """
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "engine": engine.__version__,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
        "packages": packages,
        _FILES: own_files(recipe_to_dict(recipe)),
    }


def changes(then: object, now: Mapping[str, Any]) -> list[str]:
    """Return, each in words, what has changed on which numbers may depend.

    Args:
        then: what `describe_environment` said when a checkpoint was written, as it was read from there; None where it
            was not kept yet.
        now: what it says now.
    """
    earlier = _mapping(then)
    before = {**{name: earlier.get(name) for name in _COMPARED}, **_mapping(earlier.get("packages"))}
    after = {**{name: now[name] for name in _COMPARED}, **now["packages"]}
    names = [name for name, value in after.items() if before.get(name) is not None and before[name] != value]
    told = [f"{name} was {_words(before[name])} and is {_words(after[name])}" for name in names]
    return [*_changed_files(earlier, now[_FILES]), *told]


def files_changed_since(folder: Path, recipe: Recipe) -> list[str]:
    """Return, in words, which of the user's own files have changed since a finished run was trained with them.

    Args:
        folder: of the run.
        recipe: of the run.
    """
    return changed_files(_environment_of(folder), recipe)


def changed_since(folder: Path, recipe: Recipe) -> list[str]:
    """Return, in words, all that has changed since a finished run was trained: files, versions and hardware.

    Args:
        folder: of the run.
        recipe: of the run.
    """
    then = _environment_of(folder)
    return changes(then, describe_environment(recipe)) if then else []


def _environment_of(folder: Path) -> Mapping[str, Any]:
    try:
        return _mapping(read_json(folder / ENVIRONMENT, RunError, follow_links=False))
    except RunError:
        # Whoever looks at a run that is finished needs it for nothing else.
        return {}


def changed_files(then: object, recipe: Recipe) -> list[str]:
    """Return, in words, which of the user's own files have changed.

    Args:
        then: as of `changes`.
        recipe: that names the files.
    """
    return _changed_files(_mapping(then), own_files(recipe_to_dict(recipe)))


def _changed_files(then: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    digests = _mapping(then.get(_FILES))
    return [f"{path} has changed" for path, digest in now.items() if digests.get(path, digest) != digest]


def _mapping(values: object) -> Mapping[str, Any]:
    return values if isinstance(values, dict) else {}


def _words(value: object) -> str:
    if isinstance(value, list):
        value = ", ".join(f"{number} x {name}" for name, number in Counter(map(str, value)).items())
    # A run folder may be somebody else's.
    return printable(str(value or "none"), None)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    folder = Path(engine.__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

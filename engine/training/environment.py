"""Environment of a run: versions, processor, devices, and the user's own files that its recipe names.

Weights follow from the recipe only where these stay: a run that goes on in another environment says so.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
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
        recipe: that is trained; of each field that names a file of the user's own, the file's SHA-256 is kept.
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
        _FILES: {field: digest for field, _, digest in own_files(recipe_to_dict(recipe))},
    }


def changes(folder: Path, recipe: Recipe, now: Mapping[str, Any] | None = None) -> list[str]:
    """Return what has changed since the newest command that trained in a run folder, each in words.

    Args:
        folder: the run folder.
        recipe: of the run.
        now: what `describe_environment` says; the files alone are compared unless given.

    Returns:
        Nothing where no checkpoint is left of that command.
    """
    path = folder / ENVIRONMENT
    if not os.path.exists(path) or not any((folder / "checkpoints").glob("step-*")):
        return []
    try:
        then = _mapping(read_json(path, RunError))
    except RunError as error:
        return [f"{error}; what has changed since is not known"]
    digests = _mapping(then.get(_FILES))
    files = own_files(recipe_to_dict(recipe))
    found = [f"{file} ({field}) has changed" for field, file, digest in files if digests.get(field, digest) != digest]
    if now is None:
        return found
    before = {**{name: then.get(name) for name in _COMPARED}, **_mapping(then.get("packages"))}
    after = {**{name: now[name] for name in _COMPARED}, **now["packages"]}
    names = [name for name, value in after.items() if before.get(name) is not None and before[name] != value]
    return [*found, *(f"{name} was {_words(before[name])} and is {_words(after[name])}" for name in names)]


def _mapping(values: Any) -> Mapping[str, Any]:
    return values if isinstance(values, dict) else {}


def _words(value: Any) -> str:
    # A run folder may be somebody else's.
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value or "")) or "none"


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

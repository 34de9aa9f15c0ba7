"""What was measured of the parts of a network, kept on disk, so that the same command measures nothing twice."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors.numpy

import engine
from engine.analysis.analysis import Analysis, Arrays
from engine.analysis.opened import OpenedRun
from engine.atomic import replace_file, write_error
from engine.errors import RunError
from engine.reading import read_bytes

_LARGEST = 8 * 2**30
_FOLDER = "parts"


class KeptParts:
    """The parts that an analysis of one run has measured, each in a file named by all that decides what is in it.

    Args:
        analysis: whose parts.
        opened: the run.
    """

    def __init__(self, analysis: Analysis, opened: OpenedRun) -> None:
        self._analysis, self._opened = analysis, opened
        self._folder = opened.folder / analysis.name / _FOLDER
        self._used: set[str] = set()

    def _path(self, network: str, part: str) -> Path:
        settings = dataclasses.replace(self._opened.settings, data_root=None)
        if not self._analysis.trains_probes:
            settings = dataclasses.replace(settings, probe_epochs=None)
        decides = {
            "engine": engine.__version__,
            "analysis": self._analysis.name,
            "network": network,
            "part": part,
            "checkpoint": self._opened.checkpoint_sha256,
            "images": self._opened.images_sha256,
            "settings": dataclasses.asdict(settings),
            "device": self._opened.device.type,
        }
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        path = self._folder / f"{digest[:32]}.safetensors"
        self._used.add(path.name)
        return path

    def get(self, network: str, part: str) -> Arrays | None:
        """Return what was measured of a part; None where nothing, or nothing whole, is there."""
        path = self._path(network, part)
        if not path.exists():
            return None
        # Whatever it is, it is measured again and replaced.
        with contextlib.suppress(RunError, safetensors.SafetensorError):
            found: dict[str, np.ndarray] = safetensors.numpy.load(read_bytes(path, RunError, _LARGEST))
            return found
        return None

    def put(self, network: str, part: str, arrays: Arrays) -> None:
        """Keep what was measured of a part. Raises NotWritten."""
        path = self._path(network, part)
        # Not numpy.ascontiguousarray, which makes a row of a single number.
        contiguous = {name: np.asarray(each, order="C") for name, each in arrays.items()}
        try:
            replace_file(path, safetensors.numpy.save(contiguous))
        except OSError as error:
            raise write_error(path, error) from error

    def remove_others(self) -> None:
        """Remove what was measured of other checkpoints or images: it would only grow."""
        for path in self._folder.glob("*.safetensors"):
            if path.name not in self._used:
                with contextlib.suppress(OSError):
                    path.unlink()

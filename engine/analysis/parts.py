"""Measurements of the parts of a network, kept on disk, so that the same command measures nothing twice."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import safetensors.numpy

import engine
from engine.analysis.analysis import Analysis, Arrays
from engine.analysis.opened import OpenedRun
from engine.atomic import UNLOCKED_SECONDS, remove_unfinished, replace_file
from engine.errors import RunError
from engine.reading import read_bytes

_LARGEST = 8 * 2**30
_FOLDER, _ENDING = "parts", ".safetensors"
_SHA256 = "sha256"


@dataclass(frozen=True)
class Part:
    """What was measured of one part of a network.

    Attributes:
        arrays: what `Analysis.measure` returned.
        device: where: cpu or cuda.
    """

    arrays: Arrays
    device: str


class KeptParts:
    """The parts that an analysis of one run has measured, each in a file named by what decides what is in it.

    Args:
        analysis: whose parts.
        opened: the run.
    """

    def __init__(self, analysis: Analysis, opened: OpenedRun) -> None:
        self._analysis, self._opened = analysis, opened
        self._folder = opened.folder / analysis.name / _FOLDER
        self._used: set[str] = set()

    def _digest(self, network: str, part: str) -> str:
        settings = dataclasses.replace(self._opened.settings, data_root=None)
        if not self._analysis.trains_probes:
            settings = dataclasses.replace(settings, probe_epochs=None)
        decides = {
            "engine": engine.__version__,
            "analysis": self._analysis.name,
            "version": self._analysis.version,
            "network": network,
            "part": part,
            "checkpoint": self._opened.checkpoint_sha256,
            "images": self._opened.images_sha256,
            "settings": dataclasses.asdict(settings),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]

    def get(self, network: str, part: str) -> Part | None:
        """Return what was measured of a part, wherever; None where nothing, or nothing whole, is there."""
        for path in sorted(self._folder.glob(f"{self._digest(network, part)}.*{_ENDING}")):
            # Nothing is lost by measuring again, so that is what anything wrong with a file means: a damaged header
            # alone ends in errors of many kinds.
            with contextlib.suppress(Exception):
                arrays = _whole(path.name, read_bytes(path, RunError, _LARGEST, follow_links=False))
                if arrays is not None:
                    self._used.add(path.name)
                    return Part(arrays, path.name.split(".")[1])
        return None

    def put(self, network: str, part: str, measured: Part) -> None:
        """Keep what was measured of a part. Raises NotWritten."""
        path = self._folder / f"{self._digest(network, part)}.{measured.device}{_ENDING}"
        # Not numpy.ascontiguousarray, which makes a row of a single number.
        contiguous = {name: np.asarray(each, order="C") for name, each in measured.arrays.items()}
        about = {_SHA256: _sha256(path.name, contiguous)}
        replace_file(path, safetensors.numpy.save(contiguous, about))
        self._used.add(path.name)

    def remove_others(self) -> None:
        """Remove what was measured of other checkpoints or images: it would only grow."""
        for path in self._folder.glob(f"*{_ENDING}"):
            if path.name not in self._used:
                with contextlib.suppress(OSError):
                    path.unlink()
        remove_unfinished(self._folder, UNLOCKED_SECONDS)


def _whole(name: str, content: bytes) -> Arrays | None:
    """Return what a file of this name holds; None where it is not what was measured, or nobody has said what that was.

    Raises:
        Exception: of many kinds: it is no such file.
    """
    arrays: dict[str, np.ndarray] = safetensors.numpy.load(content)
    # Begins with the size of the header, of which the library that reads the arrays does not give the rest.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return arrays if header["__metadata__"][_SHA256] == _sha256(name, arrays) else None


def _sha256(name: str, arrays: Arrays) -> str:
    """Return the digest of arrays, and of the name that says what they were measured of: those of another would fit."""
    digest = hashlib.sha256(name.encode())
    for key, array in sorted(arrays.items()):
        digest.update(f"\n{key} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

"""The inside of processes of a training that faults are put into: it sends them signals at exact moments.

A process comes to know of it by `start/sitecustomize.py`. Nothing is imported here that the process would not import;
the engine's own functions are wrapped as they are imported, and do what they did until a fault's moment has come. Each
fault comes once: a file says that it has come, and is there before the signal is sent.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.faults import fault as faults
from experiments.faults.disk import take_nothing

VARIABLE = "INJECTED_FAULTS"
"""Environment variable: the folder that holds ``case.json``, and what happens."""
EVENTS = "events.jsonl"
OBJECTS = "objects.txt"
_COUNTING_SECONDS = 1.0
# In which a node is taken away.
_TAKING_SECONDS = 60.0


class Here:
    """This process: who it is, how far it has come, and what is to happen to it.

    Args:
        folder: that `VARIABLE` names.
    """

    def __init__(self, folder: Path) -> None:
        values = json.loads((folder / "case.json").read_text())
        self.folder, self.run_dir = folder, values["run_dir"]
        self.faults = [faults.Fault(**each) for each in values["faults"]]
        self.name, self.step, self.offered = faults.DRIVER, 0, 0
        self.lock, self._counted = threading.Lock(), -math.inf

    def note(self, what: str, **values: Any) -> None:
        """Append to what has happened in the training."""
        line = json.dumps({"time": time.time(), "what": what, "name": self.name, "pid": os.getpid(), **values})
        with (self.folder / EVENTS).open("a") as file:
            file.write(line + "\n")

    def count_objects(self) -> None:
        """Say, once a second at most, how many of Ray's objects this process refers to."""
        if time.monotonic() - self._counted > _COUNTING_SECONDS:
            from ray._private.worker import global_worker

            self._counted = time.monotonic()
            (self.folder / OBJECTS).write_text(str(len(global_worker.core_worker.get_all_reference_counts())))

    def happened(self, what: str) -> list[dict[str, Any]]:
        """Return what has happened in the training of a kind, in its order."""
        return happened(self.folder, what)

    def reach(self, phase: str, step: int | None = None, path: Path | None = None) -> None:
        """Let happen what is to happen in a phase that this process has come to.

        Args:
            phase: of a fault.
            step: of the run; the one that this process is in unless given.
            path: of a checkpoint that is whole, or of one that is not, whose name begins with a dot.
        """
        step = self.step if step is None else step
        for number, fault in enumerate(self.faults):
            if (fault.at, fault.phase) != (self.name, phase) or fault.step not in (0, step):
                continue
            if path is not None and (fault.kind in (faults.CUT, faults.FLIP)) == path.name.startswith("."):
                continue
            self._act(number, fault, path)

    def _act(self, number: int, fault: faults.Fault, path: Path | None) -> None:
        victim = self._process(fault.victim)
        if victim is None or not self._is_first(number, victim):
            return
        if fault.kind in (faults.FULL, faults.FAILING):
            take_nothing(self.run_dir, fault.kind, fault.seconds)
        elif fault.kind == faults.NODE:
            # Whoever watches the training takes it away, and this process with it.
            time.sleep(_TAKING_SECONDS)
        elif fault.kind in (faults.CUT, faults.FLIP):
            assert path is not None
            damage(path, fault.victim, fault.kind)
            os.kill(victim, signal.SIGKILL)
        else:
            os.kill(victim, signal.SIGKILL if fault.kind == faults.KILL else signal.SIGSTOP)

    def _is_first(self, number: int, victim: int) -> bool:
        """Say that a fault has come, with all that others want to know of it, unless it had come before."""
        aside = self.folder / f".fault-{number}.{os.getpid()}.{threading.get_ident()}"
        said = {"number": number, "time": time.time(), "pid": victim, "builds": len(self.happened("build"))}
        if self.faults[number].kind == faults.NODE:
            said["node"] = self._built(self.faults[number].victim)[-1]["node"]
        aside.write_text(json.dumps(said))
        try:
            os.link(aside, self.folder / f"fault-{number}.json")
        except FileExistsError:
            return False
        finally:
            aside.unlink()
        return True

    def _process(self, victim: str) -> int | None:
        if victim in (faults.RAYLET, faults.GCS):
            import psutil

            # Below the command, or the process that holds its Ray: whichever began this process's session.
            children = psutil.Process(os.getsid(0)).children(recursive=True)
            return next((child.pid for child in children if child.name() == victim), None)
        if victim in (self.name, faults.DISK, *faults.FILES):
            return os.getpid()
        return next((event["pid"] for event in reversed(self._built(victim))), None)

    def _built(self, learner: str) -> list[dict[str, Any]]:
        return [event for event in self.happened("build") if event["name"] == learner]


def happened(folder: Path, what: str) -> list[dict[str, Any]]:
    """Return what has been noted in a folder of a kind, in its order."""
    with contextlib.suppress(FileNotFoundError):
        return [event for event in map(json.loads, (folder / EVENTS).read_text().splitlines()) if event["what"] == what]
    return []


def damage(checkpoint: Path, file: str, kind: str) -> Path:
    """Cut off, or flip a byte of, a file of a checkpoint; returns which."""
    learners = sorted(checkpoint.glob("*.safetensors"))
    pieces = [path for path in learners if ".knowledge-" in path.name]
    groups = {"knowledge": pieces, "tensors": [path for path in learners if path not in pieces]}
    path = groups[file][-1] if file in groups else checkpoint / file
    with path.open("r+b") as opened:
        middle = path.stat().st_size // 2
        if kind == faults.CUT:
            opened.truncate(middle)
        else:
            opened.seek(middle)
            byte = opened.read(1)[0]
            opened.seek(middle)
            opened.write(bytes([byte ^ 0x10]))
        os.fsync(opened.fileno())
    return path


def watch_imports() -> None:
    """Let the engine's modules be wrapped as soon as this process imports them."""
    from experiments.faults.moments import MOMENTS

    sys.meta_path.insert(0, _Finder(Here(Path(os.environ[VARIABLE])), MOMENTS))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, here: Here, moments: dict[str, Callable[[ModuleType, Here], None]]) -> None:
        self._here, self._moments = here, moments

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._moments:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        loader: Any = spec.loader if spec is not None else None
        if loader is None:
            return spec
        load = loader.exec_module

        @functools.wraps(load)
        def exec_module(module: ModuleType) -> None:
            load(module)
            self._moments[name](module, self._here)

        loader.exec_module = exec_module
        return spec

"""Trials whose processes are stopped: Ray Tune waits for them for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import psutil

from engine.runtimes.ray.private.current import current_private_ray
from engine.runtimes.stopped import STOPPED_SECONDS, StoppedProcesses
from engine.training.holding import holder_here

# As Ray calls a process in which Tune runs a function.
_NAME = "ray::ImplicitFunc"


class HangingTrials:
    """Looks for trials on this machine that hang, and ends them with SIGKILL.

    Args:
        seconds: after which a process that is stopped counts as hanging; a minute unless given.
    """

    def __init__(self, seconds: float | None) -> None:
        self._stopped = StoppedProcesses[int](seconds or STOPPED_SECONDS)

    def end(self, run_dirs: Mapping[int, Path]) -> list[tuple[int | None, str]]:
        """End what hangs, if it is time to look.

        Args:
            run_dirs: folders of the trials that run, by number.

        Returns:
            the number of each that was ended, None where it had not begun to train, and since when it was stopped.
        """
        processes: dict[int, psutil.Process] = {}

        def find() -> dict[int, psutil.Process]:
            processes.update(_processes_of_trials(run_dirs))
            return processes

        found = self._stopped.look(find)
        numbers = _numbers(run_dirs) if found else {}
        for pid in found:
            with contextlib.suppress(psutil.Error):
                processes[pid].kill()
        return [(numbers.get(pid), what) for pid, what in found.items()]


def _processes_of_trials(run_dirs: Mapping[int, Path]) -> dict[int, psutil.Process]:
    private = current_private_ray()
    # One that has just started holds no folder yet, and one that holds a folder may be of a Ray that is not ours.
    found = {process.pid: process for process in private.processes()} if private is not None else {}
    for pid in _numbers(run_dirs):
        with contextlib.suppress(psutil.Error):
            found[pid] = psutil.Process(pid)
    return {pid: process for pid, process in found.items() if _trains(process)}


def _numbers(run_dirs: Mapping[int, Path]) -> dict[int, int]:
    """Return the numbers of trials by the processes of this machine that train them."""
    pids = {number: holder_here(run_dir) for number, run_dir in run_dirs.items()}
    return {pid: number for number, pid in pids.items() if pid is not None}


def _trains(process: psutil.Process) -> bool:
    # What a lock says of a process that has ended may be the number of another program by now.
    with contextlib.suppress(psutil.Error):
        return process.name().startswith(_NAME)
    return False

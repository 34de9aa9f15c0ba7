"""A probe of the load: who else used this machine's processors while something was measured."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Load:
    """Processor use beside what was measured, in cores: 0.05 is 5 % of one core.

    Attributes:
        others: of processes that have nothing to do with the measurement; None where this machine does not tell.
        waiting: of the measurement's own processes whose turn it was not; the one that gives the turns only waits.
    """

    others: float | None
    waiting: float


class LoadMeter:
    """Follows the use of processors from now on.

    Args:
        measured: processes whose turn it is; their children count with them.
    """

    def __init__(self, measured: Sequence[int]) -> None:
        self._measured = measured
        self._started, self._all = time.monotonic(), _machine_seconds()
        self._used = self._seconds()

    def result(self) -> Load:
        """Return the load since the meter was made."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        own, waiting, here = (now - then for now, then in zip(self._seconds(), self._used, strict=True))
        everything, before = _machine_seconds(), self._all
        others = None
        if everything is not None and before is not None:
            others = max(0.0, (everything - before - own - waiting - here) / elapsed)
        return Load(others, max(0.0, waiting / elapsed))

    def _seconds(self) -> tuple[float, float, float]:
        """Return the processor seconds of what is measured, of the other processes below this one, and of this one."""
        here = psutil.Process()
        ours = {process.pid: process for process in (here, *here.children(recursive=True))}
        own = {pid for pid in ours if pid in self._measured}
        for pid in list(own):
            with contextlib.suppress(psutil.Error):
                own |= {child.pid for child in ours[pid].children(recursive=True)}
        used = {pid: _process_seconds(process) for pid, process in ours.items()}
        measured = sum(used[pid] for pid in own if pid in used)
        return measured, sum(used.values()) - measured - used[here.pid], used[here.pid]


def _process_seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _machine_seconds() -> float | None:
    """Return the seconds that all processors of this machine were busy since it started, as in proc(5)."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")

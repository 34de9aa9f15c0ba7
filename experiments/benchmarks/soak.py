"""One training that lasts, with a fault every minute, and whether any of its processes, or what they leave, grows.

    python -m experiments.benchmarks.soak --minutes 60 --every 60 --out FOLDER

Digits on Ray, on direct links, trained until the time is over. In turn a learner is killed, stopped for a moment,
stopped for good, and Ray's GCS is killed; which learner is drawn from the seed. All the while the resident memory of
the driver, of the learners and of Ray's processes is sampled, with the driver's open files and threads, the objects of
Ray that it refers to, the files in shared memory of this machine, and what lies below the folder of its Ray. The table
compares the medians of the first and of the last third of the time, after the first minute, in which a process still
loads code. A figure is flat if the later median is at most 5 % above the earlier one, or above it by no more than is
named beside it: a few open files or threads, which come and go, or some pages of a log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from experiments.faults.fault import FIELDS, GCS, KILL, LEARNERS, PAUSE, STOP, Case
from experiments.faults.inside import OBJECTS, happened
from experiments.faults.leftovers import SHARED_MEMORY, Leftovers
from experiments.faults.training import environment, temporary_folder

RECIPE = "infopro_digits"
_CHANGED = {"epochs": "1000000", "plan.evaluate_every_epochs": "1000", "plan.report_every_steps": "20"}
_CHOSEN = {**dict(field.split("=", 1) for field in FIELDS), **_CHANGED}
CASE = Case(RECIPE, "direct", (), tuple(f"{name}={value}" for name, value in _CHOSEN.items()))
WAYS = ((KILL, ""), (PAUSE, ""), (STOP, ""), (KILL, GCS))
_MIB = 2.0**20
# Name, its unit, and how much more is nothing.
FIGURES = (
    ("driver's resident memory", "MiB", 16.0),
    ("learners' resident memory", "MiB", 32.0),
    ("resident memory of Ray's processes", "MiB", 32.0),
    ("driver's open files", "", 4.0),
    ("driver's threads", "", 4.0),
    ("Ray's objects", "", 8.0),
    ("files in shared memory", "MiB", 4.0),
    ("folder of its Ray", "MiB", 16.0),
)
_SAMPLE_SECONDS, _WARM_SECONDS, _END_SECONDS = 3.0, 60.0, 120.0
_MOST_GROWTH = 1.05


def sample(driver: psutil.Process, folder: Path, temporary: Path) -> list[float]:
    """Return the `FIGURES` at this moment."""
    learners, others = _resident_below(driver)
    objects = folder / OBJECTS
    return [
        driver.memory_info().rss / _MIB,
        learners / _MIB,
        others / _MIB,
        driver.num_fds(),
        driver.num_threads(),
        float(objects.read_text() or 0) if objects.exists() else 0.0,
        _bytes_below(SHARED_MEMORY) / _MIB,
        sum(map(_bytes_below, temporary.glob("local_learning_ray_*"))) / _MIB,
    ]


def _resident_below(driver: psutil.Process) -> tuple[int, int]:
    """Return the resident bytes of all learners, and of Ray's other processes; those that vanish are left out."""
    learners = others = 0
    for child in driver.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.name().startswith("ray::Learner"):
                learners += child.memory_info().rss
            else:
                others += child.memory_info().rss
    return learners, others


def _bytes_below(folder: Path) -> int:
    """Return the bytes on the disk of all files below a folder; those that vanish meanwhile are left out."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


class Soak:
    """A training that lasts, and what is seen of it.

    Args:
        folder: for all that is noted, and the run folder.
        temporary: for temporary files.
        seed: of who is hit.
    """

    def __init__(self, folder: Path, temporary: Path, seed: int) -> None:
        self._folder, self._temporary, self._draw = folder, temporary, random.Random(f"soak/{seed}")
        self.samples: list[tuple[float, list[float]]] = []
        self.faults: list[str] = []
        folder.mkdir(parents=True)
        run_dir = folder / "run"
        (folder / "case.json").write_text(json.dumps({**CASE.to_json(), "run_dir": str(run_dir)}))
        with (folder / "errors.txt").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine", "train", *CASE.words(), "--run-dir", str(run_dir)],
                env=environment(folder, temporary),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        self._leftovers = Leftovers(self._process.pid, temporary)

    def run(self, seconds: float, every: float, tell: Callable[[str], None]) -> None:
        """Train for so many seconds, with a fault in every interval, and sample.

        Raises:
            RuntimeError: the training ended by itself.
        """
        started = time.monotonic()
        next_fault, driver = every, psutil.Process(self._process.pid)
        while (now := time.monotonic() - started) < seconds:
            if self._process.poll() is not None:
                said = (self._folder / "errors.txt").read_text()[-2000:]
                raise RuntimeError(f"the training ended with {self._process.returncode} after {now:.0f} s:\n{said}")
            self._leftovers.look()
            self.samples.append((now, sample(driver, self._folder, self._temporary)))
            if now >= next_fault and (what := self._hit(WAYS[len(self.faults) % len(WAYS)])) is not None:
                next_fault = now + every
                self.faults.append(what)
                tell(f"{now:6.0f} s: {what}; {', '.join(f'{value:,.0f}' for value in self.samples[-1][1])}")
            time.sleep(_SAMPLE_SECONDS)

    def _hit(self, way: tuple[str, str]) -> str | None:
        kind, victim = way
        victim = victim or self._draw.choice(LEARNERS[RECIPE])
        process = self._process_of(victim)
        if process is None:
            return None
        try:
            os.kill(process, signal.SIGKILL if kind == KILL else signal.SIGSTOP)
            if kind == PAUSE:
                time.sleep(1.5)
                os.kill(process, signal.SIGCONT)
        except ProcessLookupError:
            return None
        return f"{kind} of {victim}"

    def _process_of(self, victim: str) -> int | None:
        if victim == GCS:
            children = psutil.Process(self._process.pid).children(recursive=True)
            return next((child.pid for child in children if child.name() == GCS), None)
        builds = [each for each in happened(self._folder, "build") if each["name"] == victim]
        return builds[-1]["pid"] if builds else None

    def end(self) -> dict[str, Any]:
        """Interrupt the training; returns its exit code, how often a team was started again, and what is left."""
        self._process.send_signal(signal.SIGINT)
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_END_SECONDS)
        left = self._leftovers.after(20.0)
        self.close()
        log = (self._folder / "run" / "log.txt").read_text()
        return {"code": code, "started_again": log.count("started again"), "left": left}

    def close(self) -> None:
        """End all processes that are left."""
        self._leftovers.end()
        self._process.wait()


def table(samples: list[tuple[float, list[float]]]) -> list[str]:
    """Return the lines of a table: the first third of the time against the last."""
    samples = [each for each in samples if each[0] > min(_WARM_SECONDS, samples[-1][0] / 4)]
    third = max(1, len(samples) // 3)
    lines = ["| | first third | last third | flat | or at most |", "|---|---|---|---|---|"]
    for place, (name, unit, nothing) in enumerate(FIGURES):
        first, last = (
            statistics.median(each[1][place] for each in part) for part in (samples[:third], samples[-third:])
        )
        flat = "yes" if last <= max(first * _MOST_GROWTH, first + nothing) else "NO"
        lines.append(f"| {name} | {first:,.1f} {unit} | {last:,.1f} {unit} | {flat} | +{nothing:g} {unit} |")
    return lines


def main() -> None:
    """Train, sample, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    arguments = parser.parse_args()
    # The commands that it starts end with it, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = arguments.out.resolve()
    with temporary_folder() as temporary:
        soak = Soak(out, temporary, arguments.seed)
        try:
            soak.run(60.0 * arguments.minutes, arguments.every, lambda line: print(line, flush=True))
            ended = soak.end()
        finally:
            soak.close()
    print(f"{len(soak.faults)} faults, a team was started again {ended['started_again']} times; {ended}")
    print(*table(soak.samples), sep="\n")
    results = {"faults": soak.faults, "ended": ended, "figures": [name for name, _, _ in FIGURES]}
    (out / "results.json").write_text(json.dumps({**results, "samples": soak.samples}) + "\n")


if __name__ == "__main__":
    main()

"""Seconds from the command to the first step on Ray, where they go, and what each learner's process holds.

    python -m experiments.benchmarks.startup [--rounds 5] [--segments 2 7]

Greedy training of digits with K segments is started as by a user, in turn with imports alone, and stopped after its
first steps. The moments are seen from outside: the first process of the private Ray, the first learner's process, the
run folder, which is made when every learner is built, and the first record of a step. A figure is the median of all
rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from experiments.benchmarks.side_by_side import in_turn

MOMENTS = ("Ray's first process", "a learner's process", "all learners are built", "the first step")
IMPORTS = {
    "torch": "import torch",
    "all that a learner needs": "import engine.runtimes.ray.actor",
    "all that the command needs": "import engine.cli.main",
}
WORDS = ("epochs=100000", "plan.executor=ray", "plan.report_every_steps=1", "plan.evaluate_every_epochs=100000")
_PAUSE_SECONDS = 0.02
_MIB = 1 << 20


def import_seconds(code: str) -> float:
    """Return how long a new process takes for imports, its own start included."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment())
    return time.perf_counter() - started


def resident_after_imports(code: str) -> float:
    """Return the MiB that are resident of a new process after imports."""
    tell = f"{code}\nimport psutil\nprint(psutil.Process().memory_info().rss)"
    done = subprocess.run([sys.executable, "-c", tell], check=True, env=_environment(), capture_output=True, text=True)
    return int(done.stdout) / _MIB


def start(segments: int) -> tuple[dict[str, float], dict[str, float]]:
    """Start a training and stop it after its first step.

    Returns:
        seconds from the command to each moment; bytes that the learners' processes hold in the mean: resident, and
        alone (not shared with any other process).
    """
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        words = [f"method.num_segments={segments}", *WORDS, "--run-dir", str(folder)]
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "engine", "train", "greedy_digits", *words],
            env=_environment(),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ) as process:
            try:
                moments: dict[str, float] = {}
                while len(moments) < len(MOMENTS):
                    for moment in _reached(process, folder, moments):
                        moments[moment] = time.perf_counter() - started
                    assert process.poll() is None, "the training ended by itself"
                    time.sleep(_PAUSE_SECONDS)
                held = _held(process)
            finally:
                process.terminate()
        return moments, held


def _reached(process: subprocess.Popen[bytes], folder: Path, before: dict[str, float]) -> list[str]:
    """Return the moments that have come since."""
    found = []
    if MOMENTS[1] not in before:
        names = [name for name, _ in _below(process)]
        if MOMENTS[0] not in before and any("gcs_server" in name for name in names):
            found.append(MOMENTS[0])
        if any("LearnerActor" in name for name in names):
            found.append(MOMENTS[1])
    if MOMENTS[2] not in before and (folder / "recipe.json").exists():
        found.append(MOMENTS[2])
    metrics = folder / "metrics.jsonl"
    if MOMENTS[3] not in before and metrics.exists() and metrics.stat().st_size:
        found.append(MOMENTS[3])
    return found


def _below(process: subprocess.Popen[bytes]) -> list[tuple[str, psutil.Process]]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.append((child.name(), child))
    return found


def _held(process: subprocess.Popen[bytes]) -> dict[str, float]:
    infos = [child.memory_full_info() for name, child in _below(process) if "LearnerActor" in name]
    return {
        "resident": statistics.mean(info.rss for info in infos),
        "alone": statistics.mean(info.uss for info in infos),
    }


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--segments", type=int, nargs="+", default=[2, 7])
    arguments = parser.parse_args()
    seen: dict[str, dict[str, list[float]]] = {}

    def training(segments: int) -> float:
        moments, held = start(segments)
        for name, value in {**moments, **held}.items():
            seen.setdefault(f"K = {segments}", {}).setdefault(name, []).append(value)
        return moments[MOMENTS[-1]]

    ways = {f"importing {name}": lambda code=code: import_seconds(code) for name, code in IMPORTS.items()}
    trainings = {f"K = {count}": lambda count=count: training(count) for count in arguments.segments}
    # The first one reads files from the disk.
    import_seconds(IMPORTS["all that the command needs"])
    taken, loads = in_turn({**ways, **trainings}, arguments.rounds)
    for way in ways:
        print(f"{way:40} {_range(taken[way])} s")
    for name, code in IMPORTS.items():
        print(f"{f'after importing {name}':40} {resident_after_imports(code):8.2f} MiB, resident")
    for way, values in seen.items():
        for moment in MOMENTS:
            print(f"{f'{way}: until {moment}':40} {_range(values[moment])} s")
        for name in ("resident", "alone"):
            mebibytes = [value / _MIB for value in values[name]]
            print(f"{f'{way}: a learner, {name}':40} {_range(mebibytes)} MiB")
    print(f"others used at most {max(max(shares) for shares in loads.values()):.2f} of a core")


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):8.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()

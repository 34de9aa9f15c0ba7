"""All tables of the results that need a GPU, in one run of about ten minutes.

    python -m experiments.gpu [--tables memory,methods,links,replicas] [--minutes 10] [--rounds 3] [--steps 5]
        [--folder runs/gpu] [--device cuda] [--shrink 1]

- memory: InfoPro's published networks and batches, end to end, with checkpointing, and cut: the planner's bytes beside
  the device's own peak, and what the paper says of memory and time.
- methods: the planner's bytes beside the device's own peak for a recipe of each of nine other methods.
- links: a step of two segments by the way that messages travel, as actors on Ray.
- replicas: a step of one and of two replicas of each segment, as actors on Ray.

Images are random; weights do not matter. All ways of a table take turns in every round; a figure is the median over
rounds. Where time is up, the rounds that are left are not begun: the output says how many a figure stands for, and
names what was not measured at all. Without Ray the last two tables are left out, and the output says so.
`--device cpu --shrink 128` is the same with batches 128 times as small: a rehearsal, whose figures say nothing of a
GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from engine.errors import EngineError
from experiments.benchmarks.gpu_ways import Device, Figures, Way, link_ways, memory_ways, method_ways, replica_ways

Table = Mapping[str, list[Figures]]

TABLES: dict[str, Callable[[Device, int], list[Way]]] = {
    "memory": memory_ways,
    "methods": method_ways,
    "links": link_ways,
    "replicas": replica_ways,
}
_ON_RAY = ("links", "replicas")
_GIB = 1 << 30


def measure(ways: list[Way], rounds: int, steps: int, deadline: float, folder: Path) -> tuple[Table, dict[str, str]]:
    """Measure ways in turn.

    Returns:
        the figures of each way, by round; why a way has none.
    """
    found: dict[str, list[Figures]] = {way.name: [] for way in ways}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for way in ways:
            if way.name in failed or time.monotonic() > deadline:
                continue
            try:
                found[way.name].append(way.measure(steps, folder))
            except torch.cuda.OutOfMemoryError:
                failed[way.name] = "more memory than the device has"
            except EngineError as error:
                failed[way.name] = str(error)
    late = {name: "not measured: time was up" for name, each in found.items() if not each and name not in failed}
    return found, failed | late


def lines_of(title: str, ways: list[Way], found: Table, failed: Mapping[str, str]) -> list[str]:
    """Return a table as lines of Markdown; shares are of the first way of the same group, round by round.

    A way that failed in any round has no figures.
    """
    head = ["way", "planner, GiB", "peak, GiB", "peak of planner", "peak of first", "published", "ms", "of first"]
    lines = [f"## {title}", "", f"| {' | '.join([*head, 'published'])} |", "|---" * (len(head) + 1) + "|"]
    first: dict[str, str] = {}
    for way in ways:
        figures = found[way.name]
        first.setdefault(way.group, way.name)
        if way.name in failed:
            lines.append(f"| {way.name} | {failed[way.name]} |" + " |" * (len(head) - 1))
            continue
        base = found[first[way.group]]
        peak, planned = max(each.peak for each in figures), way.planned_bytes
        cells = [f"{planned / _GIB:.3f}" if planned else "", f"{peak / _GIB:.3f}" if peak else ""]
        cells.append(f"{peak / planned:.2f}" if peak and planned else "")
        whole = max((each.peak for each in base), default=0)
        cells += [f"{peak / whole:.2f}" if peak and whole else "", way.published_memory]
        cells.append(f"{1000 * statistics.median(each.seconds for each in figures):.1f}")
        ratios = [own.seconds / other.seconds for own, other in zip(figures, base, strict=False)]
        cells += [f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""]
        lines.append(f"| {way.name} | {' | '.join([*cells, way.published_time])} |")
    counts = [len(found[way.name]) for way in ways if way.name not in failed]
    return [*lines, "", f"{min(counts)} to {max(counts)} rounds." if counts else "Nothing was measured.", ""]


def describe(device: str) -> str:
    """Return in words what is measured on."""
    versions = f"torch {torch.__version__}, Python {sys.version.split()[0]}"
    if device != "cuda":
        return f"{device}; {versions}"
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{len(names)} x {names[0]}; {versions}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def main(words: list[str] | None = None) -> int:
    """Measure all tables, print them, and write ``gpu.md`` and ``gpu.json``; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shrink", type=int, default=1, help="by how much batches are smaller than those published")
    options = parser.parse_args(words)
    names = options.tables.split(",")
    if unknown := [name for name in names if name not in TABLES]:
        parser.error(f"--tables {unknown[0]}: there is no such table; there is {', '.join(TABLES)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; `--device cpu --shrink 128` rehearses on the CPU")
    deadline = time.monotonic() + 60 * options.minutes
    options.folder.mkdir(parents=True, exist_ok=True)
    lines, document = [f"# {describe(options.device)}", ""], dict[str, Any]()
    for name in names:
        lines += _table(name, options, deadline, document)
        # After every table, because whoever lends the machine may end this at any time.
        (options.folder / "gpu.md").write_text("\n".join(lines))
        (options.folder / "gpu.json").write_text(json.dumps(document, indent=1))
    print("\n".join(lines))
    return 0


def _table(name: str, options: argparse.Namespace, deadline: float, document: dict[str, Any]) -> list[str]:
    if name in _ON_RAY and importlib.util.find_spec("ray") is None:
        return [f"## {name}", "", "Left out: Ray is not installed here.", ""]
    ways = TABLES[name](options.device, options.shrink)
    with TemporaryDirectory() as folder:
        found, failed = measure(ways, options.rounds, options.steps, deadline, Path(folder))
    document[name] = {
        way.name: {
            "planned_bytes": way.planned_bytes,
            "peak_bytes": [each.peak for each in found[way.name]],
            "seconds": [each.seconds for each in found[way.name]],
            "failed": failed.get(way.name),
        }
        for way in ways
    }
    return lines_of(name, ways, found, failed)


if __name__ == "__main__":
    sys.exit(main())

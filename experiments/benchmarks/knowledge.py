"""Memory of group knowledge, and the time of its reads and writes in a step.

    python -m experiments.benchmarks.knowledge [--images 50000,100000,1281167] [--classes 100,200,1000]
        [--groups 1,2,3] [--batch-size 512] [--rounds 3] [--folder DIR]

For each size: a store in memory, one mapped to a file, and one of the 20 largest probabilities. A step recalls a batch
of random images from one group and remembers predictions of it in another. The rows of 100 steps are written once
first, which is the column "first": its memory is taken then. "mixed" remembers two predictions of each image, with
weights, as steps on mixed images do. "changes" copies for a checkpoint what 100 steps changed. All runs on one thread.
Rounds are interleaved and medians compared; the share of a core that other processes used is recorded, and a row taken
beside more than 5 % of it is marked. Only the rows of these 100 steps are written; where the operating system gives
memory in large pages, a store in memory may take all of its size even so.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.knowledge import KnowledgeStore
from engine.streams import generator
from experiments.benchmarks.side_by_side import in_turn

STEPS = 100
TOP_K = 20
TIMED = ("recall", "remember", "mixed", "changes")


class Steps:
    """The steps of a training that use one store.

    Args:
        store: empty.
        batch_size: images of a step.
    """

    def __init__(self, store: KnowledgeStore, batch_size: int) -> None:
        self.store = store
        random = generator("batches", store.images, batch_size)
        epochs = -(-STEPS * batch_size // store.images)
        indices = torch.cat([torch.randperm(store.images, generator=random) for _ in range(epochs)])
        self._batches = indices[: STEPS * batch_size].reshape(STEPS, batch_size).numpy()
        self._values = torch.randn(2 * batch_size, store.classes, generator=random).mul_(3).softmax(dim=1)
        self._weights = torch.rand(2 * batch_size, generator=random)
        self._batch_size = batch_size

    def recall(self) -> float:
        """Return the seconds of one read, of the group above the one that a step trains."""
        return self._seconds(lambda group, batch: self.store.recall((group - 1) % self.store.groups, batch))

    def remember(self) -> float:
        """Return the seconds of one write."""
        return self._seconds(lambda group, batch: self.store.remember(group, batch, self._values[: self._batch_size]))

    def mixed(self) -> float:
        """Return the seconds of one write of two predictions of each image."""
        return self._seconds(
            lambda group, batch: self.store.remember(
                group, np.concatenate([batch, np.roll(batch, 1)]), self._values, self._weights
            )
        )

    def changes(self) -> float:
        """Return the seconds of copying what the steps since the last copy changed."""
        started = time.perf_counter()
        self.store.changes()
        return time.perf_counter() - started

    def _seconds(self, step: Callable[[int, np.ndarray], Tensor | None]) -> float:
        started = time.perf_counter()
        for number, batch in enumerate(self._batches):
            step(number % self.store.groups, batch)
        return (time.perf_counter() - started) / STEPS


def measure(images: int, classes: int, groups: int, batch_size: int, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Return one row for each way of holding a store of this size."""
    open_store = functools.partial(KnowledgeStore, images, classes, groups, 0.5)
    used = {
        way: Steps(store, batch_size)
        for way, store in {
            "in memory": open_store(),
            "mapped": open_store(folder=folder),
            f"top {TOP_K}": open_store(top_k=TOP_K),
        }.items()
    }
    first = {way: steps.remember() for way, steps in used.items()}
    for steps in used.values():
        steps.store.changes()
    # In this order: what is remembered in a round is what its changes copy.
    ways = {f"{way} {what}": getattr(steps, what) for what in TIMED for way, steps in used.items()}
    taken, loads = in_turn(ways, rounds)
    rows = []
    for way, steps in used.items():
        seconds = {what: taken[f"{way} {what}"] for what in TIMED}
        seconds["both"] = [sum(pair) for pair in zip(seconds["recall"], seconds["remember"], strict=True)]
        rows.append(
            {
                "images": images,
                "classes": classes,
                "groups": groups,
                "batch_size": batch_size,
                "way": way,
                "bytes": steps.store.bytes,
                "milliseconds": {"first": 1000 * first[way]}
                | {what: 1000 * statistics.median(values) for what, values in seconds.items()},
                "both_range": [1000 * min(seconds["both"]), 1000 * max(seconds["both"])],
                "others_cpu_share": statistics.median(share for what in TIMED for share in loads[f"{way} {what}"]),
            }
        )
    return rows


def main() -> None:
    """Measure, and print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="50000,100000,1281167")
    parser.add_argument("--classes", default="100,200,1000")
    parser.add_argument("--groups", default="1,2,3")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="folder of the mapped stores; one for temporary files unless given")
    parser.add_argument("--output", type=Path, help="write the rows as JSON to this file too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [
        [int(size) for size in text.split(",")] for text in (arguments.images, arguments.classes, arguments.groups)
    ]
    columns = ("first", "recall", "remember", "both", "mixed", "changes")
    print(
        f"{'images':>9} {'classes':>7} {'groups':>6} {'way':9} {'MB':>8}", *(f"{name:>9}" for name in columns), "  (ms)"
    )
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for images, classes, groups in itertools.product(*sizes):
            folder = arguments.folder or Path(temporary)
            rows = measure(images, classes, groups, arguments.batch_size, arguments.rounds, folder)
            found += rows
            for row in rows:
                times = " ".join(f"{row['milliseconds'][name]:9.2f}" for name in columns)
                mark = "  beside others" if row["others_cpu_share"] > 0.05 else ""
                size = f"{images:>9,} {classes:>7,} {groups:>6} {row['way']:9} {row['bytes'] / 1e6:8,.1f}"
                print(f"{size} {times}{mark}", flush=True)
    text = json.dumps({"cores": len(os.sched_getaffinity(0)), "torch": torch.__version__, "rows": found})
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

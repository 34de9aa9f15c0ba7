"""A made-up run whose numbers are known, for every kind of team."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from engine.tracking import Record

MadeUp = Callable[..., list[Record]]


@pytest.fixture
def made_up_run() -> MadeUp:
    """A function: number of learners, epochs, steps per epoch -> records; smooth curves, no randomness."""

    def run(learners: int, epochs: int = 3, steps_per_epoch: int = 5, names: tuple[str, ...] = ()) -> list[Record]:
        records = []
        total = epochs * steps_per_epoch
        for step in range(1, total + 1):
            epoch, done = (step - 1) // steps_per_epoch, step / total
            for index, name in enumerate(names or [f"segment{k}" for k in range(learners)]):
                values = {
                    "loss/total": 2.5 * math.exp(-2 * done) + 0.1 * index,
                    "loss/cross_entropy": 2.0 * math.exp(-2 * done),
                    "accuracy": 0.9 * done,
                    "learning_rate": 0.1 * (1 - done),
                    "images_per_second": 1000.0 + index,
                    "waiting_share": 0.05 * index,
                    "memory_bytes": 2.0**30 / (index + 1),
                }
                records += [Record(1e9 + step, epoch, step, name, "train", key, v) for key, v in values.items()]
            if step % steps_per_epoch == 0:
                records.append(Record(1e9 + step, epoch, step, None, "test", "accuracy", 0.85 * done))
        return records

    return run

"""A made-up run whose numbers are known, for every kind of team."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest

from engine.tracking import Record

MadeUp = Callable[..., list[Record]]
TOGETHER = {"accuracy": 0.8, "accuracy_gap": 0.05, "kl_between_peers": 0.25, "disagreement": 0.125}


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


@pytest.fixture
def made_up_cohort(made_up_run: MadeUp) -> MadeUp:
    """A function: peers, segments of each, epochs, splits, last step of who diverges -> records as training does."""

    def cohort(
        peers: int, segments: int = 1, epochs: int = 3, splits: tuple[str, ...] = ("test",), **left: int
    ) -> list[Record]:
        networks = [f"peer{p}" for p in range(peers)]
        names = tuple(
            name if segments == 1 else f"{name}_segment{depth}" for depth in range(segments) for name in networks
        )
        records = []
        for record in made_up_run(0, epochs, names=names):
            # The made-up run is of one network; this one is evaluated peer by peer, the first peer's learner answers
            # for all together.
            if record.learner is not None and record.step <= left.get(record.learner, record.step):
                records.append(record)
                if record.name == "loss/cross_entropy":
                    records.append(dataclasses.replace(record, name="loss/mimicry", value=0.1))
            elif record.learner is None:
                for split in splits:
                    here = dataclasses.replace(record, split=split)
                    for index, network in enumerate(networks):
                        records.append(dataclasses.replace(here, learner=network, value=record.value - 0.05 * index))
                        if index == 0:
                            records += [
                                dataclasses.replace(here, learner="ensemble", name=name, value=value)
                                for name, value in TOGETHER.items()
                            ]
        return records

    return cohort

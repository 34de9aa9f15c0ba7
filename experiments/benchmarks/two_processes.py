"""The limit that a framework can reach: one process per segment, features in a ring of shared memory, nothing else.

Each process builds its learner with the engine's own code, so what differs from a run on Ray is only how the calls
are driven and how features travel. Used by pipeline.py.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import time
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np
import torch

from engine.data import Batch, Facts
from engine.learners import numerics_applied
from engine.methods import method_of
from engine.recipes import Recipe, recipe_from_dict, recipe_to_dict

SLOTS = 2


class Ring:
    """Features from one process to the next: two slots, guarded by two semaphores."""

    def __init__(self, shape: tuple[int, ...], context: Any) -> None:
        self.shape = shape
        self.slots = [RawArray(ctypes.c_float, int(np.prod(shape))) for _ in range(SLOTS)]
        self.filled = context.Semaphore(0)
        self.free = context.Semaphore(SLOTS)

    def tensor(self, step: int) -> torch.Tensor:
        """Return the slot of a step."""
        array = np.frombuffer(memoryview(self.slots[step % SLOTS]), dtype=np.float32)
        return torch.from_numpy(array).view(self.shape)


def _walk(
    recipe: str,
    facts: str,
    name: str,
    takes: Ring | None,
    gives: Ring | None,
    steps: tuple[int, int],
    results: Any,
    barrier: Any,
) -> None:
    resolved: Recipe = recipe_from_dict(json.loads(recipe))
    known = Facts.from_json(json.loads(facts))
    with numerics_applied(resolved.numerics):
        learner = method_of(resolved).build_learner(resolved, known, 10**6, name, torch.device("cpu"))
        batch = _batch(resolved, known)
        warm, timed = steps
        barrier.wait()
        started = ended = 0.0
        # The others work beside it until the last timed step has ended.
        for step in range(warm + timed + SLOTS + 1):
            if step == warm:
                started = time.perf_counter()
            if step == warm + timed:
                ended = time.perf_counter()
            messages = {}
            if takes is not None:
                takes.filled.acquire()
                messages["features"] = takes.tensor(step)
            given = learner.call("forward", batch, messages)
            if gives is not None:
                gives.free.acquire()
                gives.tensor(step).copy_(given[0])
                gives.filled.release()
            learner.call("update", None, {})
            if takes is not None:
                takes.free.release()
        results.put((name, (ended - started) / timed))


def _batch(recipe: Recipe, facts: Facts) -> Batch:
    random = np.random.default_rng(0)
    size = recipe.data.batch_size
    images = random.integers(0, 256, (size, *facts.image_shape), dtype=np.uint8)
    return Batch(images, random.integers(0, facts.num_classes, size), np.arange(size), "train", 0, 0)


def seconds_per_step(
    recipe: Recipe, facts: Facts, shapes: list[tuple[int, ...]], warm: int = 4, timed: int = 10
) -> float:
    """Return the time of one step in steady state, of the last process, which the others feed.

    Args:
        recipe: what to train; its numerics say how many threads each process has.
        facts: of the images, which are random here.
        shapes: of the features after each segment but the last, without the batch axis.
        warm: steps that are not timed.
        timed: steps that are.
    """
    context = multiprocessing.get_context("spawn")
    rings = [Ring((recipe.data.batch_size, *shape), context) for shape in shapes]
    results, barrier = context.Queue(), context.Barrier(len(shapes) + 1)
    arguments = (json.dumps(recipe_to_dict(recipe)), json.dumps(facts.to_json()))
    processes = []
    for index in range(len(shapes) + 1):
        takes = rings[index - 1] if index else None
        gives = rings[index] if index < len(rings) else None
        process = context.Process(
            target=_walk,
            args=(*arguments, f"segment{index}", takes, gives, (warm, timed), results, barrier),
            daemon=True,
        )
        process.start()
        processes.append(process)
    times = dict(results.get(timeout=600) for _ in processes)
    for process in processes:
        process.join()
    return times[f"segment{len(shapes)}"]

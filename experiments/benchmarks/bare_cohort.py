"""The limit that a framework can reach with a cohort: one process per peer, predictions in shared memory, a barrier.

Each process builds its learner with the engine's own code, so what differs from a run on Ray is only how the calls
are driven and how predictions travel. Used by cohort.py.
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

from engine.data import Facts, open_source
from engine.learners import numerics_applied
from engine.methods import method_of
from engine.recipes import Recipe, recipe_from_dict, recipe_to_dict

# Nobody writes to what another may still read: the next step has a slot of its own.
SLOTS = 2


def _walk(
    recipe: str, facts: str, place: int, slots: list[Any], steps: tuple[int, int], results: Any, barrier: Any
) -> None:
    resolved: Recipe = recipe_from_dict(json.loads(recipe))
    known = Facts.from_json(json.loads(facts))
    peers = len(resolved.method.networks(resolved.backbone))
    shape = (peers, resolved.data.batch_size, known.num_classes)
    shared = [torch.from_numpy(np.frombuffer(memoryview(slot), dtype=np.float32)).view(shape) for slot in slots]
    with numerics_applied(resolved.numerics):
        learner = method_of(resolved).build_learner(resolved, known, 10**6, f"peer{place}", torch.device("cpu"))
        batch = open_source(resolved.data, resolved.seed).batch(0, 0)
        warm, timed = steps
        barrier.wait()
        started = 0.0
        for step in range(warm + timed):
            if step == warm:
                started = time.perf_counter()
            slot = shared[step % SLOTS]
            given = learner.call("forward", batch, {})
            heard = {}
            if given:
                slot[place].copy_(given[0])
                barrier.wait()
                heard = {f"peer{other}_predictions": slot[other] for other in range(peers) if other != place}
            learner.call("update", None, heard)
        results.put((time.perf_counter() - started) / timed)


def seconds_per_step(recipe: Recipe, facts: Facts, warm: int, timed: int) -> float:
    """Return the time of one step of the slowest peer, each peer in a process of its own."""
    context = multiprocessing.get_context("spawn")
    peers = len(recipe.method.networks(recipe.backbone))
    size = peers * recipe.data.batch_size * facts.num_classes
    slots = [RawArray(ctypes.c_float, size) for _ in range(SLOTS)]
    results, barrier = context.Queue(), context.Barrier(peers)
    described = json.dumps(recipe_to_dict(recipe)), json.dumps(facts.to_json())
    processes = [
        context.Process(target=_walk, args=(*described, place, slots, (warm, timed), results, barrier))
        for place in range(peers)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return max(found)

"""Fair comparison of ways of doing the same thing: in turn, in one run, with what else ran recorded."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Literal

import psutil

# How messages can travel between actors on CPUs, in the words of `plan.transport`.
TRANSPORTS: tuple[Literal["object_store", "direct"], ...] = ("object_store", "direct")

Measured = dict[str, list[float]]


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> tuple[Measured, Measured]:
    """Run each way once in every round.

    Returns:
        what each way returned, by round; the share of a core that other processes used meanwhile.
    """
    taken: Measured = {way: [] for way in ways}
    loads: Measured = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            before, started = seconds_of_others(), time.perf_counter()
            taken[way].append(run())
            loads[way].append(others_share(before, time.perf_counter() - started))
    return taken, loads


def times_as_fast(way: list[float], other: list[float]) -> str:
    """Return in words how many times as fast a way is as another one: median of the rounds' ratios, and their range."""
    ratios = [theirs / own for own, theirs in zip(way, other, strict=True)]
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def seconds_of_others() -> dict[int, float]:
    """Return the CPU seconds of every process that is neither this one nor a descendant of it."""
    own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in own:
                used = process.cpu_times()
                found[process.pid] = used.user + used.system
    return found


def others_share(before: dict[int, float], elapsed: float) -> float:
    """Return the share of one core that other processes used since ``before``; a lower bound, as some have ended."""
    return sum(used - before.get(pid, 0.0) for pid, used in seconds_of_others().items()) / elapsed

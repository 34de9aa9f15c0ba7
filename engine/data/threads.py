"""Threads that read and decode, in order and in bounded memory."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_MOST = 16
_AHEAD_PER_THREAD = 3
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def num_threads() -> int:
    """Return the cores that this process may use, at most 16."""
    if hasattr(os, "sched_getaffinity"):
        return min(_MOST, len(os.sched_getaffinity(0)))
    return min(_MOST, os.cpu_count() or 1)


def groups(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield the items in lists of at most `size`."""
    stream = iter(items)
    while group := list(itertools.islice(stream, size)):
        yield group


def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], pool: ThreadPoolExecutor, ahead: int | None = None
) -> Iterator[_Result]:
    """Yield the results in order, with a bounded number of them under way, so that memory stays small.

    Args:
        work: what is done with each item, in a thread.
        items: as they come.
        pool: the threads.
        ahead: how many results may wait to be taken, at most three for each thread.
    """
    most = _AHEAD_PER_THREAD * num_threads()
    most = most if ahead is None else min(ahead, most)
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()

"""Threads that read and decode, in order and in bounded memory."""

from __future__ import annotations

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


def groups(
    items: Iterable[_Item], size: int, weight: Callable[[_Item], int] | None = None, most: int = 0
) -> Iterator[list[_Item]]:
    """Yield the items in lists of at most `size`.

    Args:
        items: as they come.
        size: how many may be in a list.
        weight: of an item, such as its bytes; where it is given, a list ends with the item that brings it to `most`.
        most: of the weights of a list.
    """
    group: list[_Item] = []
    held = 0
    for item in items:
        group.append(item)
        held += weight(item) if weight is not None else 0
        if len(group) == size or (weight is not None and held >= most):
            yield group
            group, held = [], 0
    if group:
        yield group


def in_order(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    pool: ThreadPoolExecutor,
    ahead: int | None = None,
    weight: Callable[[_Item], int] | None = None,
    most: int = 0,
) -> Iterator[_Result]:
    """Yield the results in order, with a bounded number of them under way, so that memory stays small.

    Args:
        work: what is done with each item, in a thread.
        items: as they come.
        pool: the threads.
        ahead: how many results may wait to be taken, at most three for each thread.
        weight: of an item, such as its bytes; where it is given, those under way have `most` at once, or are one alone.
        most: of the weights of the items under way.
    """
    number = _AHEAD_PER_THREAD * num_threads()
    number = number if ahead is None else min(ahead, number)
    waiting: deque[tuple[Future[_Result], int]] = deque()
    held = 0
    try:
        for item in items:
            added = weight(item) if weight is not None else 0
            while weight is not None and waiting and held + added > most:
                first, gone = waiting.popleft()
                held -= gone
                yield first.result()
            waiting.append((pool.submit(work, item), added))
            held += added
            if len(waiting) > number:
                first, gone = waiting.popleft()
                held -= gone
                yield first.result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        for future, _ in waiting:
            future.cancel()

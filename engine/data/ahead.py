"""Look-ahead: the next training batches are prepared while one is used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_Made = TypeVar("_Made")
Place = tuple[int, int]
"""Epoch and step."""

DEPTH = 4
"""Batches under way at most; they bound the memory."""

_THREADS = 2


class LookAhead(Generic[_Made]):
    """Makes what belongs to a place, and begins with the places that follow; the results are those of `make`."""

    def __init__(self, make: Callable[[Place], _Made], following: Callable[[Place], Place]) -> None:
        self._make = make
        self._following = following
        self._under_way: dict[Place, Future[_Made]] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="batch")

    def take(self, place: Place) -> _Made:
        """Return what belongs to a place, in any order of places; the natural order is fastest."""
        wanted = [place]
        while len(wanted) < DEPTH + 1:
            wanted.append(self._following(wanted[-1]))
        for known in list(self._under_way):
            if known not in wanted:
                self._under_way.pop(known).cancel()
        for needed in wanted:
            if needed not in self._under_way:
                self._under_way[needed] = self._pool.submit(self._make, needed)
        return self._under_way.pop(place).result()

    def close(self) -> None:
        """Stop; batches that nobody takes are not made any more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

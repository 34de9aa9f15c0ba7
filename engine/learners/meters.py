"""Sums up what a learner sees between two reports, and remembers when its last calls began and ended."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.data import Batch

# A few hundred steps of any method.
_REMEMBERED_CALLS = 2048
# So many values are added up without a report; until then they stay on their device.
_MOST_WAITING = 8192

Value = float | Tensor
"""A number, or a tensor of one value on any device, which is not waited for before a report."""


@dataclass(frozen=True)
class _Seen:
    """A batch, or what was measured in a step besides.

    Attributes:
        names: of losses, or of what was observed.
        values: as many, and behind them the counts of a batch: labelled images, and hits where there are some.
        images: of the batch; None for what was observed.
        need_labels: the losses whose mean is over the labelled images.
    """

    names: tuple[str, ...]
    values: tuple[Value, ...]
    images: int | None = None
    need_labels: Collection[str] = ()


class Meters:
    """Running sums of losses, hits, images and busy time since the last report.

    The sums that follow from the weights (losses, hits, images) are part of a checkpoint, so that a resumed run
    reports the same numbers as an uninterrupted one; times are not.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._observed: dict[str, list[float]] = {}
        self._seen: list[_Seen] = []
        self._waiting = 0
        self._images = 0
        self._scored = 0
        self._hits = 0.0
        self._busy = 0.0
        self._since = time.perf_counter()
        self._paused_at: float | None = None

    def add(
        self,
        losses: Mapping[str, Value],
        images: int,
        hits: Value | None,
        labelled: Value | None = None,
        need_labels: Collection[str] = (),
    ) -> None:
        """Add one batch.

        Args:
            losses: means by term, ``total`` among them.
            images: number of images.
            hits: how many of the labelled images the learner got right, of mixed ones the shares that it got right;
                None if it does not classify.
            labelled: how many images have a label; all unless given.
            need_labels: the terms whose mean is over the labelled images.
        """
        counts = (images if labelled is None else labelled, *(() if hits is None else (hits,)))
        self._keep(_Seen(tuple(losses), (*losses.values(), *counts), images, need_labels))

    def observe(self, values: Mapping[str, Value]) -> None:
        """Add what was measured in some steps only; means over these steps are reported under the same names."""
        if values:
            self._keep(_Seen(tuple(values), tuple(values.values())))

    def _keep(self, seen: _Seen) -> None:
        self._seen.append(seen)
        self._waiting += len(seen.values)
        if self._waiting >= _MOST_WAITING:
            self._add_up()

    def _add_up(self) -> None:
        """Fetch what waits on devices, all at once, and add it to the sums in the order in which it was seen."""
        found = iter(_numbers([value for seen in self._seen for value in seen.values]))
        for seen in self._seen:
            own = [next(found) for _ in seen.values]
            values = dict(zip(seen.names, own, strict=False))
            if seen.images is None:
                for name, value in values.items():
                    total, steps = self._observed.get(name, (0.0, 0.0))
                    self._observed[name] = [total + value, steps + 1]
                continue
            number, *hits = own[len(seen.names) :]
            labelled = int(number)
            for name, value in values.items():
                count = labelled if name in seen.need_labels else seen.images
                self._sums[name] = self._sums.get(name, 0.0) + value * count
                self._counts[name] = self._counts.get(name, 0) + count
            self._images += seen.images
            if hits:
                self._hits += hits[0]
                self._scored += labelled
        self._seen, self._waiting = [], 0

    def work(self, seconds: float) -> None:
        """Add time spent inside phases; not while the clock is stopped."""
        if self._paused_at is None:
            self._busy += seconds

    def report(self) -> dict[str, float]:
        """Return means since the last report, and start anew.

        Keys: ``loss/TERM``, ``accuracy`` (0 to 1, where the learner has logits), ``images_per_second``,
        ``waiting_share`` (share of the time spent outside phases, 0 to 1), and the names that were observed.
        """
        self._add_up()
        if not self._images:
            return {}
        now = self._paused_at or time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        counts = self._counts
        values = {f"loss/{name}": total / counts[name] for name, total in self._sums.items() if counts[name]}
        if self._scored:
            values["accuracy"] = self._hits / self._scored
        values["images_per_second"] = self._images / elapsed
        values["waiting_share"] = max(0.0, 1.0 - self._busy / elapsed)
        values |= {name: total / count for name, (total, count) in self._observed.items()}
        self._sums, self._counts, self._images, self._scored, self._hits = {}, {}, 0, 0, 0.0
        self._observed = {}
        self._busy, self._since = 0.0, now
        return values

    def pause(self) -> None:
        """Stop the clock, for an evaluation."""
        if self._paused_at is None:
            self._paused_at = time.perf_counter()

    def resume(self) -> None:
        """Let the clock go on."""
        if self._paused_at is not None:
            self._since += time.perf_counter() - self._paused_at
            self._paused_at = None

    def state(self) -> dict[str, Any]:
        """Return the sums as JSON values."""
        self._add_up()
        return {
            "sums": dict(self._sums),
            "counts": dict(self._counts),
            "images": self._images,
            "scored": self._scored,
            "hits": self._hits,
            "observed": {name: list(sums) for name, sums in self._observed.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up the sums of a checkpoint."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        self._images, self._scored, self._hits = state["images"], state["scored"], state["hits"]
        self._observed = {name: list(sums) for name, sums in state["observed"].items()}


def _numbers(values: Sequence[Value]) -> list[float]:
    """Return values as Python's numbers, with one transfer for all that are on a device."""
    tensors = [value.double() for value in values if isinstance(value, Tensor)]
    fetched = iter(torch.stack(tensors).tolist() if tensors else ())
    return [next(fetched) if isinstance(value, Tensor) else float(value) for value in values]


class Timeline:
    """When the last calls of a learner began and ended; older ones are forgotten."""

    def __init__(self) -> None:
        self._calls: deque[tuple[str, int, int, float, float]] = deque(maxlen=_REMEMBERED_CALLS)
        self._place = (0, 0)

    def add(self, phase: str, batch: Batch | None, started: float, ended: float) -> None:
        """Remember one call.

        Args:
            phase: name of the phase.
            batch: that the call took; a call that takes none belongs to the batch before.
            started: when it began, by `time.perf_counter`.
            ended: when it ended, by the same clock.
        """
        if batch is not None:
            self._place = (batch.epoch, batch.step)
        self._calls.append((phase, *self._place, started, ended))

    def report(self) -> dict[str, Any]:
        """Return the id of this ``process``, its ``host``, and the ``calls``, oldest first.

        Of each call phase, epoch, step, start and end in seconds since 1970: all processes of a machine share both
        clocks, so that what they report lines up.
        """
        offset = time.time() - time.perf_counter()
        calls = [
            (phase, epoch, step, started + offset, ended + offset) for phase, epoch, step, started, ended in self._calls
        ]
        return {"process": os.getpid(), "host": os.uname().nodename, "calls": calls}

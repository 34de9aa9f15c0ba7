"""Sums up what a learner sees between two reports, and remembers when its last calls began and ended."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from engine.data import Batch

# A few hundred steps of any method.
_REMEMBERED_CALLS = 2048


class Meters:
    """Running sums of losses, hits, images and busy time since the last report.

    The sums that follow from the weights (losses, hits, images) are part of a checkpoint, so that a resumed run
    reports the same numbers as an uninterrupted one; times are not.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._observed: dict[str, list[float]] = {}
        self._images = 0
        self._scored = 0
        self._hits = 0
        self._busy = 0.0
        self._since = time.perf_counter()
        self._paused_at: float | None = None

    def add(
        self,
        losses: Mapping[str, float],
        images: int,
        hits: int | None,
        labelled: int | None = None,
        need_labels: Collection[str] = (),
    ) -> None:
        """Add one batch.

        Args:
            losses: means by term, ``total`` among them.
            images: number of images.
            hits: how many of the labelled images the learner got right; None if it does not classify.
            labelled: how many images have a label; all unless given.
            need_labels: the terms whose mean is over the labelled images.
        """
        labelled = images if labelled is None else labelled
        for name, value in losses.items():
            count = labelled if name in need_labels else images
            self._sums[name] = self._sums.get(name, 0.0) + value * count
            self._counts[name] = self._counts.get(name, 0) + count
        self._images += images
        if hits is not None:
            self._hits += hits
            self._scored += labelled

    def observe(self, values: Mapping[str, float]) -> None:
        """Add what was measured in some steps only; means over these steps are reported under the same names."""
        for name, value in values.items():
            total, count = self._observed.get(name, (0.0, 0.0))
            self._observed[name] = [total + value, count + 1]

    def work(self, seconds: float) -> None:
        """Add time spent inside phases; not while the clock is stopped."""
        if self._paused_at is None:
            self._busy += seconds

    def report(self) -> dict[str, float]:
        """Return means since the last report, and start anew.

        Keys: ``loss/TERM``, ``accuracy`` (0 to 1, where the learner has logits), ``images_per_second``,
        ``waiting_share`` (share of the time spent outside phases, 0 to 1), and the names that were observed.
        """
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
        self._sums, self._counts, self._images, self._scored, self._hits = {}, {}, 0, 0, 0
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

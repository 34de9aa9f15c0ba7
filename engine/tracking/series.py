"""Series: the lines that the records of one run make, by metric, split and learner, over epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.tracking.figures import INK, colours, tints
from engine.tracking.records import (
    ENSEMBLE,
    LOSS_PREFIX,
    LOSS_TOTAL,
    MEMORY_BYTES,
    TRAIN,
    Record,
    learners_by_network,
)

if TYPE_CHECKING:
    from engine.tasks import Metric

_MOST_POINTS = 120  # More would draw the noise of single batches instead of the course of the training.


@dataclass(frozen=True)
class Series:
    """One metric of one learner: epochs that were finished when it was measured, and its values."""

    learner: str | None
    split: str
    epochs: list[float]
    values: list[float]

    def last(self) -> tuple[float, float] | None:
        """The last finite value and its epoch."""
        finite = [(epoch, value) for epoch, value in zip(self.epochs, self.values, strict=True) if math.isfinite(value)]
        return finite[-1] if finite else None

    def thinned(self) -> tuple[list[float], list[float]]:
        """Epochs and values for a line: means over equal stretches of the run if there are many points."""
        if len(self.epochs) <= _MOST_POINTS:
            return self.epochs, [value if math.isfinite(value) else math.nan for value in self.values]
        first, length = self.epochs[0], (self.epochs[-1] - self.epochs[0]) or 1.0
        stretches: dict[int, list[tuple[float, float]]] = {}
        for epoch, value in zip(self.epochs, self.values, strict=True):
            stretch = min(_MOST_POINTS - 1, int(_MOST_POINTS * (epoch - first) / length))
            stretches.setdefault(stretch, []).append((epoch, value))
        epochs, values = [], []
        for points in stretches.values():
            finite = [value for _, value in points if math.isfinite(value)]
            epochs.append(sum(epoch for epoch, _ in points) / len(points))
            values.append(sum(finite) / len(finite) if finite else math.nan)
        return epochs, values


class RunSeries:
    """The records of a run, sorted into series.

    Attributes:
        headline: the score by which the networks are judged.
        networks: the learners of each network, as `learners_by_network` gives them.
        colours: of each learner, each network, the ensemble, and None, which is the whole team. The learners of a peer
            that is cut are tints of its colour, and its last learner has that colour itself.
        left: networks that have left their cohort, with the last epoch that all their learners trained in.
        is_cohort: whether networks were evaluated one by one.
    """

    def __init__(self, records: Sequence[Record], headline: Metric) -> None:
        self.headline = headline
        self._steps_per_epoch = steps_per_epoch(records)
        self._grouped: dict[tuple[str, str], dict[str | None, list[Record]]] = {}
        for record in records:
            self._grouped.setdefault((record.name, record.split), {}).setdefault(record.learner, []).append(record)
        self.networks = learners_by_network(record.learner for record in records if record.learner is not None)
        self.colours: dict[str | None, str] = {}
        for network, colour in colours(list(self.networks)).items():
            learners = self.networks[network]
            self.colours |= {**dict(zip(learners, tints(colour, len(learners)), strict=True)), network: colour}
        self.colours |= {ENSEMBLE: INK, None: INK}
        self.left = self._left(records)
        self.is_cohort = any(
            learner is not None
            for (name, split), found in self._grouped.items()
            if name == headline.name and split != TRAIN
            for learner in found
        )

    def _left(self, records: Sequence[Record]) -> dict[str, float]:
        """Learners report together, so who does not report any more trains no more."""
        last: dict[str | None, int] = {}
        for record in records:
            if record.split == TRAIN:
                last[record.learner] = max(record.step, last.get(record.learner, 0))
        newest = max(last.values(), default=0)
        steps = {name: min(last.get(learner, 0) for learner in parts) for name, parts in self.networks.items()}
        return {name: step / self._steps_per_epoch for name, step in steps.items() if step < newest}

    def names(self, split: str) -> list[str]:
        """What was measured on a split, in order of appearance."""
        return [name for name, where in self._grouped if where == split]

    def measured(self, name: str, split: str, learner: str | None) -> bool:
        """Whether there is a record of this kind."""
        return learner in self._grouped.get((name, split), {})

    def series(self, name: str, split: str = TRAIN) -> list[Series]:
        """By learner, in the order of the legend, the team last.

        What a network does on images after it has left its cohort is left out: it is trained no more.
        """
        grouped = self._grouped.get((name, split), {})
        found = []
        for learner in self.colours:
            records = sorted(grouped.get(learner, []), key=lambda record: record.step)
            until = self.left.get(learner, math.inf) if learner is not None and split != TRAIN else math.inf
            kept = [record for record in records if record.step / self._steps_per_epoch <= until]
            if kept:
                epochs = [record.step / self._steps_per_epoch for record in kept]
                found.append(Series(learner, split, epochs, [record.value for record in kept]))
        return found

    def losses(self) -> list[str]:
        """Names of the losses seen in training, the total first."""
        found = [name for name in self.names(TRAIN) if name.startswith(LOSS_PREFIX)]
        found.sort(key=lambda name: name != LOSS_TOTAL)
        # With one term of weight 1 the total is that term: one panel is enough.
        if len(found) == 2 and found[0] == LOSS_TOTAL and self.series(found[0]) == self.series(found[1]):
            return found[1:]
        return found

    def memory_peaks(self) -> dict[str | None, float]:
        """The most bytes that each learner reported."""
        peaks = {
            series.learner: [value for value in series.values if math.isfinite(value)]
            for series in self.series(MEMORY_BYTES)
        }
        return {learner: max(values) for learner, values in peaks.items() if values}


def steps_per_epoch(records: Sequence[Record]) -> float:
    """Steps of an epoch, found from the last record of each, whether epochs are counted from 0 or from 1."""
    last: dict[int, int] = {}
    for record in records:
        last[record.epoch] = max(record.step, last.get(record.epoch, 0))
    already = 1 if 0 in last else 0
    # An epoch that was cut short gives too few, never too many.
    return max([step / (epoch + already) for epoch, step in last.items() if epoch + already > 0 < step], default=1.0)

"""Results of single cases: what was measured of each, and what follows from it by arithmetic."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.benchmarking.cases import Case, Family
from engine.benchmarking.machine_load import Load
from engine.benchmarking.timeline import Calls

OWN: tuple[Family, ...] = ("end_to_end", "process", "ray")
"""Families that this engine itself runs."""


@dataclass(frozen=True)
class Spread:
    """A median over rounds, and the range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass
class CaseResult:
    """One case, as it was measured.

    Attributes:
        case: what was measured.
        seconds: of a step, by round.
        busy: seconds of a step by learner, by round; of this engine on CPUs only: calls on a GPU end before their work.
        waiting: share of the time that each learner or worker waited, by round; empty where it is not known.
        memory: bytes by purpose, for each learner or worker.
        together: groups of learners on one device that hold what they keep at the same time; others take turns.
        device_bytes: peak of a GPU's memory, of the worker that needs most; None on a CPU.
        resident_bytes: peak of resident memory above that of the warmed-up process between steps, of the process that
            needs most; None where it was not measured.
        first_loss: of the first step in nats, by learner or worker that sees it.
        weights: digests of the initial parameters, by name.
        loads: what others used of the processors, by round.
        calls: of the last round; of this engine on CPUs only.
    """

    case: Case
    seconds: list[float] = field(default_factory=list)
    busy: list[dict[str, float]] = field(default_factory=list)
    waiting: list[list[float]] = field(default_factory=list)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    together: list[list[str]] = field(default_factory=list)
    device_bytes: int | None = None
    resident_bytes: int | None = None
    first_loss: dict[str, float] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    loads: list[Load] = field(default_factory=list)
    calls: Calls = field(default_factory=dict)

    @property
    def step(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)

    @property
    def waiting_shares(self) -> list[float]:
        """Median waiting share of each learner or worker."""
        return [statistics.median(shares) for shares in zip(*self.waiting, strict=True)]

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Median busy seconds of a step, by learner."""
        names = self.busy[0] if self.busy else {}
        return {name: statistics.median(each[name] for each in self.busy) for name in names}

    @property
    def saved_activations(self) -> int | None:
        """Bytes that autograd keeps at most on one device; None where they were not counted."""
        kept = {name: parts.get("saved_activations", 0) for name, parts in self.memory.items()}
        groups = [[name] for name in kept] + self.together
        return max((sum(kept[name] for name in group) for group in groups), default=None)

    @property
    def own_waiting(self) -> float:
        """Median share of a core that this measurement's own processes used while it was not their turn."""
        return statistics.median(load.waiting for load in self.loads)

    @property
    def others(self) -> float | None:
        """Median share of a core that other processes used."""
        known = [load.others for load in self.loads if load.others is not None]
        return statistics.median(known) if known else None


def faster(row: CaseResult, other: CaseResult) -> Spread:
    """Return how many times as fast a case is as another one, round by round."""
    return Spread.of([theirs / own for own, theirs in zip(row.seconds, other.seconds, strict=True)])


def efficiency(row: CaseResult, alone: CaseResult | None, units: int) -> float | None:
    """Return the share of the devices' time that did the work itself, 0 to 1.

    That is the time of the same work with nothing beside it, the sum over learners or stages, over the time of a step
    times the devices. What is missing is waiting, sending, bubbles, and caches and memory that are shared.

    Args:
        row: a case.
        alone: the same work in one process, learner after learner; None where that was not measured.
        units: workers that the machine keeps busy at once.
    """
    if alone is None or not alone.busy:
        return None
    workers = min(row.case.workers, units)
    works = [sum(each.values()) for each in alone.busy]
    return statistics.median(w / (workers * own) for w, own in zip(works, row.seconds, strict=True))


def variants_of(row: CaseResult, rows: Sequence[CaseResult]) -> list[CaseResult]:
    """Return the rows of the same family with as many workers and threads, of which the best is shown."""
    return [each for each in rows if _kind(each.case) == _kind(row.case)]


def _kind(case: Case) -> tuple[Family, int, int]:
    return case.family, case.workers, case.threads


def best_of(rows: Sequence[CaseResult]) -> list[CaseResult]:
    """Return the rows to show: of the variants of one family with equal workers and threads only the fastest.

    Of checkpointing, which is done for the sake of memory, also the one that keeps least.
    """
    shown: list[CaseResult] = []
    for row in rows:
        group = variants_of(row, rows)
        best = [min(group, key=lambda each: each.step)]
        if row.case.family == "checkpoint":
            best.append(min(group, key=lambda each: (each.saved_activations or 0, each.step)))
        if row.case.variant is None or any(row is each for each in best):
            shown.append(row)
    return shown


def to_json(row: CaseResult) -> dict[str, Any]:
    """Return a row as JSON values."""
    case = dataclasses.asdict(row.case)
    if row.case.family in OWN:
        # Whole recipes and plans, and nothing to choose.
        del case["settings"], case["chosen"]
    return {
        **case,
        "milliseconds": [1e3 * each for each in row.seconds],
        "busy_milliseconds": {name: 1e3 * each for name, each in row.stage_seconds.items()},
        "waiting_share": row.waiting_shares,
        "memory": row.memory,
        "saved_activations": row.saved_activations,
        "device_bytes": row.device_bytes,
        "resident_bytes": row.resident_bytes,
        "first_loss": row.first_loss,
        "others_cores": [load.others for load in row.loads],
        "own_waiting_cores": [load.waiting for load in row.loads],
    }


def find(rows: Sequence[CaseResult], **wanted: Any) -> CaseResult | None:
    """Return the first row whose case has these attributes; None if there is none."""
    return next((row for row in rows if _has(row.case, wanted)), None)


def _has(case: Case, wanted: Mapping[str, Any]) -> bool:
    return all(getattr(case, name) == value for name, value in wanted.items())

"""The result of a whole measurement, and its JSON values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.benchmarking.case_results import CaseResult, efficiency, faster, find, to_json
from engine.benchmarking.cases import Machine
from engine.benchmarking.resident_memory import PINNED
from engine.benchmarking.settings_search import Search
from engine.benchmarking.simulation import Simulated
from engine.recipes import Recipe, recipe_to_dict

BUSY_BESIDE = 0.05
"""Share of one core that others may use before a figure is doubtful."""


@dataclass(frozen=True)
class Measurement:
    """All cases of a measurement.

    Attributes:
        recipe: what was trained.
        images: in words, what the cases were measured on.
        batch_size: images of a step.
        machine: what it was measured on.
        steps: timed in each round.
        rows: in the order of the table.
        reference: end to end on one device with the threads of one worker.
        simulated: what a device for each segment would bring.
        left_out: reasons, by what was not measured.
        searches: what was tried to find the best settings of the baselines.
        blocks: names of the network's blocks; empty where there are no baselines.
        block_seconds: by number of micro-batches, seconds of each block on one of them; 1 is the whole batch.
        blocks_others: share of a core that other processes used while these were timed; None where it is not known.
    """

    recipe: Recipe
    images: str
    batch_size: int
    machine: Machine
    steps: int
    rows: Sequence[CaseResult]
    reference: CaseResult
    simulated: Sequence[Simulated]
    left_out: dict[str, str]
    searches: Sequence[Search] = ()
    blocks: Sequence[str] = ()
    block_seconds: Mapping[int, Sequence[float]] = field(default_factory=dict)
    blocks_others: float | None = None

    @property
    def rounds(self) -> int:
        """How often each case was timed."""
        return len(self.reference.seconds)

    def alone(self, row: CaseResult) -> CaseResult | None:
        """Return the same work in one process: of baselines end to end, of a cut network the learners in turn."""
        if row.case.family == "ray" and row.case.num_segments != 1:
            return find(self.rows, family="process", num_segments=row.case.num_segments)
        return row if row.case.family == "process" else self.reference

    def efficiency(self, row: CaseResult) -> float | None:
        """Return the share of the devices' time that did the work itself; see `case_results.efficiency`."""
        if row.case.threads != self.reference.case.threads:
            # The same work of one process that has other threads.
            return self.reference.step / (row.step * row.case.threads / self.reference.case.threads)
        return efficiency(row, self.alone(row), self.machine.at_once(row.case.threads))

    def shares_cores(self, row: CaseResult) -> bool:
        """Return whether a case has more workers than this machine keeps busy at once."""
        return row.case.workers > self.machine.at_once(row.case.threads)

    def doubtful(self) -> list[CaseResult]:
        """Return the cases beside which others used a processor in most of the rounds."""
        return [row for row in self.rows if (row.others or 0.0) > BUSY_BESIDE]

    def spoilt_rounds(self) -> list[tuple[str, int, float]]:
        """Return the rounds in which others used a processor beside the other cases: case, round from 1, share."""
        return [
            (row.case.name, number, load.others)
            for row in self.rows
            if (row.others or 0.0) <= BUSY_BESIDE
            for number, load in enumerate(row.loads, start=1)
            if load.others is not None and load.others > BUSY_BESIDE
        ]

    def doubtful_runs(self) -> list[tuple[str, float]]:
        """Return the runs before the rounds beside which others used a processor: what was run, and their share."""
        runs = [
            (f"the search of {search.name}", share)
            for search in self.searches
            for attempt in search.attempts
            for share in attempt.others
        ]
        runs.append(("the timing of the blocks", self.blocks_others))
        return [(what, share) for what, share in runs if share is not None and share > BUSY_BESIDE]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "recipe": recipe_to_dict(self.recipe),
            "images": self.images,
            "batch_size": self.batch_size,
            "machine": dataclasses.asdict(self.machine),
            "steps": self.steps,
            "rounds": self.rounds,
            "baseline": self.reference.case.name,
            "allocator_of_resident_memory": PINNED,
            "ways": [
                {
                    **to_json(row),
                    "images_per_second": self.batch_size / row.step,
                    "times_end_to_end": dataclasses.asdict(faster(row, self.reference)),
                    "efficiency": self.efficiency(row),
                    "shares_cores": self.shares_cores(row),
                    "same_initial_weights": row.weights == self.reference.weights,
                }
                for row in self.rows
            ],
            "simulated": [
                dataclasses.asdict(each) | {"times_pipelines": each.against_pipelines} for each in self.simulated
            ],
            "searches": [each.to_json() for each in self.searches],
            "blocks": list(self.blocks),
            "block_milliseconds": {
                parts: [1e3 * each for each in seconds] for parts, seconds in self.block_seconds.items()
            },
            "block_others_cores": self.blocks_others,
            "left_out": self.left_out,
        }

"""What came out of a measurement, as JSON values and as files?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.atomic import replace_file, write_error
from engine.planning.measure_rows import Row, efficiency, faster, find, to_json
from engine.planning.measure_simulation import Simulated
from engine.planning.measure_ways import Machine
from engine.planning.resident_memory import PINNED
from engine.planning.timeline import plot_timeline, write_trace
from engine.recipes import Recipe, recipe_to_dict
from engine.tracking import spared

BUSY_BESIDE = 0.05
"""Share of one core that others may use before a figure is doubtful."""


@dataclass(frozen=True)
class Measurement:
    """All ways of a measurement.

    Attributes:
        recipe: what was trained.
        images: in words, what the ways were measured on.
        batch_size: images of a step.
        machine: what it was measured on.
        steps: timed in each round.
        rows: in the order of the table.
        baseline: end to end on one device with the threads of one worker.
        simulated: what a device for each segment would bring.
        left_out: reasons, by what was not measured.
    """

    recipe: Recipe
    images: str
    batch_size: int
    machine: Machine
    steps: int
    rows: Sequence[Row]
    baseline: Row
    simulated: Sequence[Simulated]
    left_out: dict[str, str]

    @property
    def rounds(self) -> int:
        """How often each way was timed."""
        return len(self.baseline.seconds)

    def alone(self, row: Row) -> Row | None:
        """Return the same work in one process: of peers end-to-end training, of a cut network the learners in turn."""
        if row.way.family == "ray" and row.way.num_segments != 1:
            return find(self.rows, family="process", num_segments=row.way.num_segments)
        return row if row.way.family == "process" else self.baseline

    def efficiency(self, row: Row) -> float | None:
        """Return the share of the devices' time that did the work itself; see `measure_rows.efficiency`."""
        if row.way.family == "end_to_end" and row is not self.baseline:
            return self.baseline.step / (row.step * row.way.threads / self.baseline.way.threads)
        return efficiency(row, self.alone(row), self.machine.at_once(row.way.threads))

    def shares_cores(self, row: Row) -> bool:
        """Return whether a way has more workers than this machine keeps busy at once."""
        return row.way.workers > self.machine.at_once(row.way.threads)

    def doubtful(self) -> list[Row]:
        """Return the ways beside which others used a processor."""
        return [row for row in self.rows if (row.others or 0.0) > BUSY_BESIDE]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "recipe": recipe_to_dict(self.recipe),
            "images": self.images,
            "batch_size": self.batch_size,
            "machine": dataclasses.asdict(self.machine),
            "steps": self.steps,
            "rounds": self.rounds,
            "baseline": self.baseline.way.name,
            "allocator_of_resident_memory": PINNED,
            "ways": [
                {
                    **to_json(row),
                    "images_per_second": self.batch_size / row.step,
                    "times_end_to_end": dataclasses.asdict(faster(row, self.baseline)),
                    "efficiency": self.efficiency(row),
                    "shares_cores": self.shares_cores(row),
                    "same_initial_weights": row.weights == self.baseline.weights,
                }
                for row in self.rows
            ],
            "simulated": [
                dataclasses.asdict(each) | {"times_pipelines": each.against_pipelines} for each in self.simulated
            ],
            "left_out": self.left_out,
        }

    def write(self, folder: Path, warn: Callable[[str], None]) -> list[str]:
        """Write table, numbers, picture and timelines into a folder; returns the names of the files.

        Args:
            folder: made if it is not there.
            warn: told which picture or timeline could not be made, and why.

        Raises:
            RunError: it cannot be written.
        """
        from engine.planning.measure_picture import plot_measurement
        from engine.planning.measure_tables import markdown_table

        timelines = {row.way.name: row.calls for row in self.rows if row.calls and row.way.family in ("process", "ray")}
        title = f"{self.recipe.name}: {self.recipe.backbone.name}, batch {self.batch_size}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / "measure.json", (json.dumps(self.to_json(), indent=2) + "\n").encode())
            replace_file(folder / "measure.md", markdown_table(self).encode())
        except OSError as error:
            raise write_error(folder, error) from error
        made = ["measure.md", "measure.json"]
        with spared("measure.png", warn):
            plot_measurement(self, folder / "measure.png", title)
            made.append("measure.png")
        if timelines:
            with spared("timeline.json", warn):
                write_trace(timelines, folder / "timeline.json")
                made.append("timeline.json")
            with spared("timeline.png", warn):
                plot_timeline(timelines, folder / "timeline.png", f"{title}: busy and waiting")
                made.append("timeline.png")
        return made

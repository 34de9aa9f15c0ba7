"""The files of a measurement: table, numbers, picture and timelines, in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from engine.atomic import replace_file, write_error
from engine.benchmarking.picture import plot_measurement
from engine.benchmarking.report import markdown_table
from engine.benchmarking.result import Measurement
from engine.benchmarking.timeline import plot_timeline, write_trace
from engine.tracking import spared


def write_measurement(found: Measurement, folder: Path, warn: Callable[[str], None]) -> list[str]:
    """Write table, numbers, picture and timelines into a folder; returns the names of the files.

    Args:
        found: what was measured.
        folder: made if it is not there.
        warn: told which picture or timeline could not be made, and why.

    Raises:
        RunError: it cannot be written.
    """
    of_engine = [row for row in found.rows if row.calls and row.case.family in ("process", "ray")]
    timelines = {row.case.name: row.calls for row in of_engine}
    title = f"{found.recipe.name}: {found.recipe.backbone.name}, batch {found.batch_size}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "measure.json", (json.dumps(found.to_json(), indent=2) + "\n").encode())
        replace_file(folder / "measure.md", markdown_table(found).encode())
    except OSError as error:
        raise write_error(folder, error) from error
    made = ["measure.md", "measure.json"]
    with spared("measure.png", warn):
        plot_measurement(found, folder / "measure.png", title)
        made.append("measure.png")
    if timelines:
        with spared("timeline.json", warn):
            write_trace(timelines, folder / "timeline.json")
            made.append("timeline.json")
        with spared("timeline.png", warn):
            plot_timeline(timelines, folder / "timeline.png", f"{title}: busy and waiting")
            made.append("timeline.png")
    return made

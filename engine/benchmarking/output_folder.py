"""The folder of a measurement: table, numbers, picture and timelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from engine.atomic import UNLOCKED_SECONDS, remove_unfinished, replace_file
from engine.benchmarking.picture import plot_measurement
from engine.benchmarking.report import markdown_table
from engine.benchmarking.result import Measurement
from engine.benchmarking.timeline import plot_timeline, write_trace
from engine.errors import RunError
from engine.tracking import spared
from engine.training.folder import names_in

_NUMBERS, _TABLE, _PICTURE = "measure.json", "measure.md", "measure.png"
_TRACE, _TIMELINE = "timeline.json", "timeline.png"


def check_measurement_folder(folder: Path) -> None:
    """Refuse a folder of something else than a measurement, whose files would be among those, or in their place.

    Args:
        folder: an absolute path; it need not exist. What an earlier measurement wrote may be replaced.

    Raises:
        RunError: it is no folder, may not be read, or holds other files.
    """
    names = sorted(name for name in names_in(folder) if not name.startswith("."))
    others = [name for name in names if name not in (_NUMBERS, _TABLE, _PICTURE, _TRACE, _TIMELINE)]
    # The numbers are what a measurement writes first.
    if others or (names and _NUMBERS not in names):
        raise RunError(
            f"--out {folder}: holds other files than those of an earlier measurement ({(others or names)[0]}); give a "
            "folder that is empty or does not exist, or leave --out out"
        )


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
    remove_unfinished(folder, UNLOCKED_SECONDS)
    replace_file(folder / _NUMBERS, (json.dumps(found.to_json(), indent=2) + "\n").encode())
    replace_file(folder / _TABLE, markdown_table(found).encode())
    made = [_TABLE, _NUMBERS]
    with spared(_PICTURE, warn):
        plot_measurement(found, folder / _PICTURE, title)
        made.append(_PICTURE)
    if timelines:
        with spared(_TRACE, warn):
            write_trace(timelines, folder / _TRACE)
            made.append(_TRACE)
        with spared(_TIMELINE, warn):
            plot_timeline(timelines, folder / _TIMELINE, f"{title}: busy and waiting")
            made.append(_TIMELINE)
    return made

"""Puts the page together and writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from engine.analysis.names import ANALYSIS_FOLDER, TOGETHER, distinct_ends, folder_together
from engine.analysis.report.documents import document, findings
from engine.analysis.report.elements import heading, notice, page
from engine.analysis.report.places import Place, folders_in, place_of
from engine.analysis.report.runs import ReportedRun, overview, read_run, run_section
from engine.atomic import UNLOCKED_SECONDS, remove_unfinished, replace_file
from engine.errors import InputError
from engine.paths import check_writable

REPORT = "report"
"""The word behind ``--of``."""
REPORT_FILE = "report.html"


def write_report(
    places: Sequence[str | Path], to: str | Path | None = None, tell: Callable[[str], None] = lambda _: None
) -> Path:
    """Write one HTML page of runs, comparisons and searches, and return its path.

    The page needs no other file and no network, and runs nothing: whatever a folder holds is shown as text. It says
    the same whenever it is made of the same folders.

    Args:
        places: folders of runs, comparisons or searches; a checkpoint stands for its run.
        to: folder for the page of several places; in ``analysis/together`` of the first unless given. Of one place it
            lies in its ``analysis``.
        tell: told which run is looked at.

    Raises:
        RunError: a place is no such folder, or cannot be read.
        NotWritten: the page cannot be written.
    """
    found = list({place.path: place for place in map(place_of, places)}.values())
    own = found[0].path / ANALYSIS_FOLDER
    beside = folder_together(own, len(places), to)
    several = len(found) > 1 or to is not None
    folder = beside if several else own
    check_writable(folder, "--to" if to is not None else "RUN")
    runs, failures = _read(found)
    names = distinct_ends([place.path for place in found])
    content = "".join(_of_folder(place, name) for place, name in zip(found, names, strict=True) if place.word != "run")
    content += notice(failures)
    anchors = [f"run-{number}" for number in range(1, len(runs) + 1)]
    if len(runs) != 1:
        content += heading(2, "Runs") + overview(runs, anchors)
    together = findings(folder, 3) if several else ""
    content += heading(2, "Analysed together") + together if together else ""
    for number, (run, anchor) in enumerate(zip(runs, anchors, strict=True), start=1):
        tell(f"{REPORT}: {run.label}: {number} of {len(runs)}")
        content += heading(2, run.label, anchor) + run_section(run) + _analysed(run, folder)
    target = folder / REPORT_FILE
    remove_unfinished(folder, UNLOCKED_SECONDS)
    replace_file(target, page(f"Report: {', '.join(names)}", content).encode())
    return target


def _read(places: Sequence[Place]) -> tuple[list[ReportedRun], list[str]]:
    """Return all runs, and why others among those of a comparison or search are not shown."""
    paths = list(dict.fromkeys(path for place in places for path in place.runs))
    given = {place.path for place in places}
    runs, failures = [], [f"{place.path}: {name}: no training has begun" for place in places for name in place.empty]
    for path, label in zip(paths, distinct_ends(paths), strict=True):
        try:
            runs.append(read_run(path, label))
        except InputError as error:
            if path in given:
                raise
            failures.append(str(error))
    return runs, failures


def _of_folder(place: Place, name: str) -> str:
    """Return what is said of a comparison or search as a whole."""
    assert place.document is not None and place.picture is not None, "a folder of several runs has both"
    title, content = document(place.document, place.picture)
    words = f"{place.word.capitalize()} {name}"
    analysed = findings(place.path / ANALYSIS_FOLDER, 3)
    return heading(2, words if title == place.path.name else f"{words}: {title}") + content + analysed


def _analysed(run: ReportedRun, shown: Path) -> str:
    """Return what was analysed of a run: at its newest checkpoint, at others, and with other runs, unless shown."""
    folder = run.path / ANALYSIS_FOLDER
    parts = {"": findings(folder, 4)}
    for name in folders_in(folder):
        if name == TOGETHER and folder / name == shown:
            continue
        words = "Together with other runs" if name == TOGETHER else f"Checkpoint {name}"
        parts[words] = findings(folder / name, 5)
    found = [heading(4, words) + content if words else content for words, content in parts.items() if content]
    return heading(3, "Analyses") + "".join(found) if found else ""

"""`local-learning analyse`: what the papers look at in trained networks, as numbers, tables and pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.cli.outcome import Outcome, aligned
from engine.cli.words import PROGRAM, whole_numbers
from engine.errors import InputError, PlanError

if TYPE_CHECKING:
    from engine.analysis import Executor, Finding

_MOST_ROWS = 40
# Beyond that of any data set.
_LAST_POSITION = 2**31 - 1

EPILOG = f"""examples:
  {PROGRAM} analyse runs/infopro_digits-01234567 --of posterior
  {PROGRAM} analyse runs/A runs/B --of posterior,topmass --split train --images 500
  {PROGRAM} analyse runs/A --of cam --positions 3,17,25
  {PROGRAM} analyse runs/A/checkpoints/step-000100 --of posterior --on ray
  {PROGRAM} analyse runs/compare-01234567 --of report

Each run gets numbers.parquet, numbers.json, table.md and picture.png in RUN/analysis/NAME, one of its checkpoints in
RUN/analysis/STEP/NAME. Several runs are drawn together, too, in RUN/analysis/together/NAME of the first run, or in
--to DIR/NAME. `{PROGRAM} list analyses` shows the names. `report` puts all that lies in the folders on one page,
report.html, beside them; it takes comparisons and searches, too. Equal seeds give equal numbers, here and on Ray. What
was measured is kept, so the same command goes on after an interruption."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``analyse``."""
    words = "folder of a run, or one of its checkpoints; for report a comparison or search, too"
    parser.add_argument("runs", metavar="RUN", nargs="+", help=words)
    parser.add_argument("--of", metavar="NAME,NAME", required=True, help="what to look at")
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), default="test", help="whose images, not augmented (test)"
    )
    parser.add_argument("--images", metavar="N", type=int, default=1000, help="how many are drawn of them (1000)")
    parser.add_argument(
        "--positions", metavar="P,P", help="images by their positions in the split, from 0, in the place of drawn ones"
    )
    parser.add_argument(
        "--probe-epochs",
        metavar="N",
        type=int,
        help="of information's probes; a quarter of the training's unless given",
    )
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of all that is drawn (0)")
    parser.add_argument("--data-root", metavar="DIR", help="where the images lie now; as in the recipe unless given")
    parser.add_argument("--to", metavar="DIR", help="folder for what several runs give together")
    parser.add_argument(
        "--on", choices=("process", "ray"), help="all in this process (default), or each part as a task on Ray"
    )
    parser.add_argument("--address", metavar="A", help="Ray cluster to join, such as auto or HOST:6379")


def run(options: argparse.Namespace) -> Outcome:
    """Analyse the runs, and return the tables."""
    names = list(dict.fromkeys(name.strip() for name in options.of.split(",")))
    if options.images < 1:
        raise InputError(f"--images {options.images}: expected 1 or more")
    if options.probe_epochs is not None and options.probe_epochs < 1:
        raise InputError(f"--probe-epochs {options.probe_epochs}: expected 1 or more")
    if options.address and options.on == "process":
        raise PlanError(
            f"--address {options.address} means a Ray cluster, but --on process uses no Ray: leave one of the two out"
        )
    from engine.analysis import REPORT, Settings, analyse, write_report
    from engine.tracking import open_console

    positions = positions_of(options.positions)
    settings = Settings(options.split, options.images, options.seed, options.data_root, positions, options.probe_epochs)
    on: Executor = "ray" if options.address or options.on == "ray" else "process"
    findings: list[Finding] = []
    page = None
    others = [name for name in names if name != REPORT]
    with open_console(sys.stderr, quiet=False) as console:
        if others:
            findings = analyse(
                options.runs, others, settings, on=on, address=options.address, to=options.to, tell=console.message
            )
        if REPORT in names:
            page = write_report(options.runs, options.to, console.message)
    lines = [*_lines(findings), *([f"{REPORT}: {page}"] if page is not None else [])]
    values = {"findings": [finding.to_json() for finding in findings], "report": None if page is None else str(page)}
    return Outcome(lines, values)


def positions_of(text: str | None) -> tuple[int, ...] | None:
    """Return the positions in a word such as ``3,17``; None for no word.

    Raises:
        InputError: it is no list of numbers.
    """
    if text is None:
        return None
    expected = f"positions of images in the split, at most {_LAST_POSITION:,}, such as --positions 3,17"
    return whole_numbers(text, "--positions", 0, _LAST_POSITION, expected)


def _lines(findings: Sequence[Finding]) -> list[str]:
    """Return for each analysis the table with most runs in it, which holds the rows of the others, and all folders."""
    lines: list[str] = []
    for name in dict.fromkeys(finding.analysis for finding in findings):
        found = [finding for finding in findings if finding.analysis == name]
        lines += [*_table(found[-1]), *(f"  files: {each.folder}" for each in found), ""]
    return lines[:-1]


def _table(finding: Finding) -> list[str]:
    from engine.analysis import in_words

    header = [name.replace("_", " ") for name in finding.rows[0]]
    shown = finding.rows[:_MOST_ROWS]
    more = len(finding.rows) - len(shown)
    return [
        f"{finding.analysis}: {finding.caption}",
        *aligned([header, *([in_words(value) for value in row.values()] for row in shown)]),
        *([f"  and {more:,} more rows in table.md"] if more else []),
    ]

"""Results of an analysis in a folder: its numbers as Parquet and JSON, its table, and its picture."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from engine.analysis.analysis import Analysis, Measured, Row
from engine.analysis.drawing import caption_below
from engine.atomic import UNLOCKED_SECONDS, remove_unfinished, replace_file, replacing, write_error
from engine.errors import RunError
from engine.reading import read_json
from engine.tracking.figures import write_figure

RESULT_VERSION = 1
"""Of numbers.json."""

NUMBERS_JSON, NUMBERS_PARQUET, TABLE, PICTURE = "numbers.json", "numbers.parquet", "table.md", "picture.png"
# In Markdown these would end a cell, or begin emphasis, code or a tag.
_SPECIAL = {ord(character): f"\\{character}" for character in "\\|*`<"}
_OWNER = {"run": "folder of the run", "network": "which of its networks"}


@dataclass(frozen=True)
class Finding:
    """What one analysis found out of one run, or of several together.

    Attributes:
        analysis: its name.
        folder: where its files lie.
        caption: checkpoints, split, number of images and seed.
        rows: the table.
    """

    analysis: str
    folder: Path
    caption: str
    rows: Sequence[Row]

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {"analysis": self.analysis, "folder": str(self.folder), "caption": self.caption, "rows": self.rows}


def write_finding(analysis: Analysis, found: Sequence[Measured], folder: Path, about: Mapping[str, Any]) -> Finding:
    """Write numbers.parquet, numbers.json, table.md and picture.png, each whole or not at all, the picture first.

    Args:
        analysis: which made them.
        found: what was measured, of one run or more.
        folder: made if it does not exist.
        about: JSON values: on what it was measured; ``caption`` is put below table and picture.

    Raises:
        NotWritten: a file cannot be written.
    """
    rows, caption = analysis.rows(found), str(about["caption"])
    columns = {name: meaning for name, meaning in {**_OWNER, **analysis.columns}.items() if name in rows[0]}
    document = {
        "version": RESULT_VERSION,
        "analysis": analysis.name,
        "title": analysis.title,
        **about,
        "columns": columns,
        "rows": [{name: _strict(value) for name, value in row.items()} for row in rows],
    }
    remove_unfinished(folder, UNLOCKED_SECONDS)
    try:
        figure = analysis.draw(found, analysis.title)
        caption_below(figure, f"{caption}. {analysis.reading}".rstrip(". "))
        write_figure(figure, folder / PICTURE)
        table = pyarrow.Table.from_pylist(list(rows)).replace_schema_metadata({"about": json.dumps(dict(about))})
        with replacing(folder / NUMBERS_PARQUET) as aside:
            pyarrow.parquet.write_table(table, aside)
    except OSError as error:
        raise write_error(folder, error) from error
    replace_file(folder / TABLE, _markdown(analysis, rows, columns, caption).encode())
    replace_file(folder / NUMBERS_JSON, (json.dumps(document, indent=2) + "\n").encode())
    return Finding(analysis.name, folder, caption, rows)


def earlier_caption(folder: Path) -> str | None:
    """Return the caption of the finding that lies in a folder; None where there is none that can be read."""
    with contextlib.suppress(RunError, LookupError, TypeError):
        return str(read_json(folder / NUMBERS_JSON, RunError)["caption"])
    return None


def in_words(value: str | int | float) -> str:
    """Return a cell as people read it: numbers with four digits, a dash where there is no number."""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"


def _markdown(analysis: Analysis, rows: Sequence[Row], columns: Mapping[str, str], caption: str) -> str:
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *([in_words(value) for value in row.values()] for row in rows)]
    table = "\n".join(f"| {' | '.join(cell.translate(_SPECIAL) for cell in line)} |" for line in lines)
    meanings = "\n".join(f"- `{name}`: {meaning}" for name, meaning in columns.items())
    picture = f"Picture: {analysis.reading}.\n\n" if analysis.reading else ""
    return f"# {analysis.title}\n\n{table}\n\n{caption}.\n\n{picture}{meanings}\n"


def _strict(value: str | int | float) -> str | int | float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""An analysis, a comparison or a search on the page: its Markdown and its picture."""

from __future__ import annotations

import os
from pathlib import Path

from engine.analysis.registry import ANALYSES
from engine.analysis.report.elements import folded, heading, notice, picture
from engine.analysis.report.markdown import Block, blocks_of
from engine.analysis.report.places import folders_in
from engine.analysis.results import PICTURE, TABLE
from engine.errors import RunError
from engine.reading import naming, read_bytes

_MOST_ROWS = 30
_LARGEST_TEXT, _LARGEST_PICTURE = 4 * 2**20, 64 * 2**20


def findings(folder: Path, level: int) -> str:
    """Return what was found by all analyses whose folders are in one, in the order of `ANALYSES`; else nothing.

    Args:
        folder: such as ``RUN/analysis``.
        level: of their headings.
    """
    names = [name for name in folders_in(folder) if os.path.lexists(folder / name / TABLE)]
    known = list(ANALYSES)
    names.sort(key=lambda name: (known.index(name) if name in known else len(known), name))
    return "".join(_finding(folder / name, level) for name in names)


def _finding(folder: Path, level: int) -> str:
    try:
        title, blocks = _read(folder / TABLE)
    except RunError as error:
        return heading(level, folder.name) + notice([str(error)])
    caption = " ".join(block.plain() for block in blocks if block.kind == "paragraph")
    drawn = _picture(folder / PICTURE, title, caption)
    shown = heading(level, title) + drawn
    for block in blocks:
        content = block.html(title, _MOST_ROWS, str(folder / TABLE))
        if block.kind == "list":
            shown += folded("What the columns mean", content)
        elif block.kind != "paragraph" or not drawn:
            shown += content
    return shown


def document(path: Path, pictured: Path) -> tuple[str, str]:
    """Return the title of a comparison or search, and what it says: its table, its picture, and how it is read.

    Args:
        path: of the Markdown; where there is none yet, that is said.
        pictured: of the picture, which need not exist.
    """
    if not os.path.lexists(path):
        return path.parent.name, notice([f"{path.name} is not there yet: it is written once all runs have ended"])
    try:
        title, blocks = _read(path)
    except RunError as error:
        return path.parent.name, notice([str(error)])
    # What was not like for like comes before the table, the picture behind it.
    tables = [place for place, block in enumerate(blocks, start=1) if block.kind == "table"]
    stop = tables[0] if tables else len(blocks)
    parts = [block.html(title, len(block.lines), str(path)) for block in blocks]
    return title, "".join([*parts[:stop], _picture(pictured, title, ""), *parts[stop:]])


def _read(path: Path) -> tuple[str, list[Block]]:
    """Return the title of a Markdown file, and its other blocks."""
    content = read_bytes(path, RunError, _LARGEST_TEXT, follow_links=False)
    with naming(path, RunError):
        blocks = blocks_of(content.decode())
    title = next((block.plain() for block in blocks if block.kind == "heading"), path.parent.name)
    return title, [block for block in blocks if block.kind != "heading"]


def _picture(path: Path, title: str, caption: str) -> str:
    if not os.path.lexists(path):
        return ""
    try:
        content = read_bytes(path, RunError, _LARGEST_PICTURE, follow_links=False)
        with naming(path, RunError):
            return picture(content, f"{title}. {caption}".strip(), caption)
    except RunError as error:
        return notice([str(error)])

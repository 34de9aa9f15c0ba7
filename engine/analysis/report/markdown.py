"""Reads the Markdown that this engine writes, of tables and comparisons, for an HTML page.

That is a heading, paragraphs, lists and tables, with ``**bold**``, code between backticks, and a backslash before what
would else mean something. Whatever a file holds, what comes out is text in elements of our own: no tag, link or picture
of the file's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.analysis.report.elements import as_text, bullets, table

# Escapes, ends of cells, and what lies between: every letter is looked at once, whatever a file holds.
_IN_ROW = re.compile(r"\\.|\||\\|[^|\\]+")
_INLINE = re.compile(r"\\(?P<escaped>[^\w\s])|\*\*(?P<bold>.+?)\*\*|`(?P<code>[^`]+)`")
_RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+")


@dataclass(frozen=True)
class Block:
    """What stands between two empty lines.

    Attributes:
        kind: what it is; a heading holds one line.
        lines: of text, or of a table's rows, without what makes them a heading, list or table; escapes and all.
    """

    kind: Literal["heading", "paragraph", "list", "table"]
    lines: Sequence[str]

    def plain(self) -> str:
        """Return its text, without escapes and marks."""
        return " ".join(_INLINE.sub(lambda found: next(filter(None, found.groups()), ""), line) for line in self.lines)

    def html(self, label: str, most_rows: int, whole: str) -> str:
        """Return it as HTML.

        Args:
            label: what a table is called by those who do not see it.
            most_rows: that are shown of a table.
            whole: where the others are.
        """
        if self.kind == "table":
            header, *rows = [[_inline(cell) for cell in _cells(line)] for line in self.lines]
            more = len(rows) - most_rows
            below = f"<p>And {more:,} more rows in {as_text(whole)}.</p>\n" if more > 0 else ""
            return table(header, rows[:most_rows], label) + below
        if self.kind == "list":
            return bullets(map(_inline, self.lines))
        return f"<p>{_inline(' '.join(self.lines))}</p>\n"


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a Markdown text, in order."""
    found: list[Block] = []
    for lines in ([line.strip() for line in each.splitlines()] for each in re.split(r"\n[ \t]*\n", text.strip())):
        if not any(lines):
            continue
        if lines[0].startswith("# "):
            found.append(Block("heading", [lines[0].removeprefix("# ")]))
        elif len(lines) > 1 and _cells(lines[0]) and _RULE.fullmatch(lines[1]):
            found.append(Block("table", [lines[0], *lines[2:]]))
        elif all(line.startswith("- ") for line in lines):
            found.append(Block("list", [line.removeprefix("- ") for line in lines]))
        else:
            found.append(Block("paragraph", lines))
    return found


def _cells(line: str) -> list[str]:
    """Return the cells of a table's row, which stand between bars; none of another line."""
    if not line.startswith("|"):
        return []
    cells = [""]
    for part in _IN_ROW.findall(line[1:]):
        if part == "|":
            cells.append("")
        else:
            cells[-1] += part
    return [cell.strip() for cell in cells[:-1]]


def _inline(text: str) -> str:
    """Return a line as HTML: escapes, bold and code."""
    parts, end = list[str](), 0
    for found in _INLINE.finditer(text):
        parts.append(as_text(text[end : found.start()]))
        end = found.end()
        if found["escaped"] is not None:
            parts.append(as_text(found["escaped"]))
        elif found["bold"] is not None:
            parts.append(f"<strong>{as_text(found['bold'])}</strong>")
        else:
            parts.append(f"<code>{as_text(found['code'])}</code>")
    return "".join([*parts, as_text(text[end:])])

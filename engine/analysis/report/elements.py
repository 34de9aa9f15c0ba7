"""The elements of a report as HTML: text that was escaped, tables, lists, pictures, and the whole page."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence

from PIL import Image

from engine.analysis.report.style import STYLE

# Characters that show nothing, or turn the direction of what stands around them.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_NUMBER = re.compile(r"(-|nan|inf|[-+]?\d[-+\d,.e ±×%\[\]]*((B|[KMGTP]iB|nats|points|images/s|s|min|h|d)\b.*)?)?")
_LONG_CELL = 60  # Letters that no screen has room for beside others.
_PNG_PIXELS_PER_INCH, _PAGE_PIXELS_PER_INCH = 150, 96
# Nothing is fetched and nothing runs, whatever a folder says.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def as_text(value: object) -> str:
    """Return text that means nothing else in HTML, also between quotes; characters that are not seen are marked."""
    printable = str(value).encode("utf-8", "backslashreplace").decode()
    return html.escape(_UNSEEN.sub("\ufffd", printable))


def heading(level: int, words: str, anchor: str | None = None) -> str:
    """Return a heading of plain text; ``anchor`` is the name by which links find it."""
    named = f' id="{as_text(anchor)}"' if anchor is not None else ""
    return f"<h{level}{named}>{as_text(words)}</h{level}>\n"


def bullets(lines: Iterable[str]) -> str:
    """Return a list of lines that are HTML already."""
    return f"<ul>\n{''.join(f'<li>{line}</li>' + chr(10) for line in lines)}</ul>\n"


def notice(lines: Iterable[str]) -> str:
    """Return lines of plain text that a reader is not to miss; nothing where there are none."""
    found = [as_text(line) for line in lines]
    return f'<div class="notice" role="note">\n{bullets(found)}</div>\n' if found else ""


def folded(words: str, content: str) -> str:
    """Return what is shown once a reader asks for it."""
    return f"<details>\n<summary>{as_text(words)}</summary>\n{content}</details>\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """Return a table that scrolls by itself where it is wider than the page.

    Args:
        header: cells, HTML already.
        rows: of cells, HTML already; the first of each says what the row is of. Missing ones are left empty.
        label: what the table is called by those who do not see it.
    """
    filled = [[*row, *[""] * (len(header) - len(row))][: len(header)] for row in rows]
    kinds = [_kind([row[place] for row in filled]) for place in range(len(header))]
    above = "".join(f'<th scope="col"{kind}>{cell}</th>' for cell, kind in zip(header, kinds, strict=True))
    lines = [f"<thead><tr>{above}</tr></thead>", "<tbody>"]
    for first, *others in filled:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(others, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row"{kinds[0]}>{first}</th>{cells}</tr>')
    body = "\n".join([*lines, "</tbody>"])
    name = as_text(label)
    return f'<div class="wide" role="region" tabindex="0" aria-label="{name}">\n<table>\n{body}\n</table>\n</div>\n'


def _kind(column: Sequence[str]) -> str:
    """Return what is said in HTML of the cells of a column: that they are numbers, or long."""
    if column and all(_NUMBER.fullmatch(html.unescape(cell)) for cell in column):
        return ' class="number"'
    return ' class="long"' if max(map(len, column), default=0) > _LONG_CELL else ""


def pairs(rows: Iterable[tuple[str, object]], label: str) -> str:
    """Return a table of names and values, both plain text."""
    return table(["what", "value"], [[as_text(name), as_text(value)] for name, value in rows], label)


def picture(content: bytes, words: str, caption: str = "") -> str:
    """Return a PNG picture as part of the page, as large as it was drawn.

    Args:
        content: of the file.
        words: what it shows, for those who do not see it.
        caption: below it; plain text.

    Raises:
        ValueError: it is no whole PNG picture.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            width, height = (round(side * _PAGE_PIXELS_PER_INCH / _PNG_PIXELS_PER_INCH) for side in opened.size)
            opened.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError("it is no whole PNG picture") from error
    data = base64.b64encode(content).decode()
    shown = f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{as_text(words)}">'
    below = f"<figcaption>{as_text(caption)}</figcaption>\n" if caption else ""
    frame = f'<div class="wide" role="region" tabindex="0" aria-label="{as_text(words)}">{shown}</div>'
    return f"<figure>\n{frame}\n{below}</figure>\n"


def page(title: str, content: str) -> str:
    """Return a whole HTML document, which needs no other file and runs nothing."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{as_text(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<h1>{as_text(title)}</h1>
{content}</main>
</body>
</html>
"""

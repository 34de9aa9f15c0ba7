"""Is what the engine writes as Markdown shown as it was meant, and everything else as text?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.report.elements import as_text
from engine.analysis.report.markdown import Block, blocks_of
from engine.analysis.results import _SPECIAL
from tests.analysis.html_page import Page


def _html(text: str) -> str:
    return "".join(block.html("a table", 100, "table.md") for block in blocks_of(text) if block.kind != "heading")


def test_blocks_are_told_apart() -> None:
    text = "# Title \\*\n\n**Bold:**\n\n- `a`: one\n- two\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n\nlast\nline.\n"
    blocks = blocks_of(text)
    assert [block.kind for block in blocks] == ["heading", "paragraph", "list", "table", "paragraph"]
    assert [block.plain() for block in blocks][:3] == ["Title *", "Bold:", "a: one two"]
    page = Page(_html(text))
    assert page.table(0) == [["a", "b"], ["x", "1"]]
    assert page.texts("li") == ["a: one", "two"] and page.texts("code") == ["a"]
    assert page.texts("p") == ["Bold:", "last line."] and page.texts("strong") == ["Bold:"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])), min_size=1))
def test_a_cell_comes_back_as_it_was_escaped(cells: list[str]) -> None:
    cells = [cell.strip() for cell in cells]
    line = f"| {' | '.join(cell.translate(_SPECIAL) for cell in cells)} |"
    page = Page(_html("\n".join([f"|{'a|' * len(cells)}", f"|{'---|' * len(cells)}", line])))
    assert page.table(0)[1] == [Page(as_text(cell)).text.strip() for cell in cells]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "![x](https://example.org/x.png) [y](javascript:alert(1)) <https://example.org>",
        "- <img src=x onerror=alert(1)>\n- **<b>**\n- `<i>`",
        "| <b>a</b> | &lt; |\n|---|---|\n| \" onload='x' | \\<br> | too | many |\n| |",
        "|a|\n|---|\nno row\n| |",
        "&#x3c;script>",
        "**" * 1000 + "`" * 999,
    ],
)
def test_nothing_that_is_written_there_becomes_a_tag(text: str) -> None:
    page = Page(_html(text))
    assert page.names <= {"p", "ul", "li", "strong", "code", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert all(name in {"class", "role", "tabindex", "aria-label", "scope"} for _, name, _ in page.attributes)


def test_rows_that_are_left_out_are_counted() -> None:
    block = Block("table", ["| a |", *["| 1 |"] * 1234])
    page = Page(block.html("numbers", 30, "x/table.md"))
    assert len(page.table(0)) == 31 and page.texts("p") == ["And 1,204 more rows in x/table.md."]


@pytest.mark.parametrize("text", ["", "\n\n", "#", "|", "|---|", "| a |\n|---|", "-", "\\", "|\\"])
def test_what_is_cut_off_is_no_error(text: str) -> None:
    Page(_html(text))

"""A page as a reader's program sees it: its tags, its text, its tables, and whether every tag is closed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

_CLOSED_BY_THEMSELVES = {"meta", "img", "br"}


class Page(HTMLParser):
    """An HTML page; one whose tags do not match raises AssertionError.

    Attributes:
        text: all of it.
        names: of its tags.
        attributes: tag, name and value.
        headings: level and words.
        tables: rows of cells.
    """

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self._open = "", list[tuple[str, int]]()
        self.names, self.attributes = set[str](), list[tuple[str, str, str]]()
        self._texts, self.tables = list[tuple[str, str]](), list[list[list[str]]]()
        self.feed(content)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        if tag not in _CLOSED_BY_THEMSELVES:
            self._open.append((tag, len(self.text)))

    def handle_endtag(self, tag: str) -> None:
        opened, start = self._open.pop()
        assert opened == tag, f"{opened} is closed by {tag}"
        words = self.text[start:]
        self._texts.append((tag, words))
        if tag in ("td", "th"):
            self.tables[-1][-1].append(words)

    def handle_data(self, data: str) -> None:
        self.text += data

    def texts(self, tag: str) -> list[str]:
        """Return what stands in each element of a kind."""
        return [words for name, words in self._texts if name == tag]

    def table(self, place: int) -> list[list[str]]:
        """Return the cells of a table, row by row."""
        return self.tables[place]

    def values(self, tag: str, attribute: str) -> list[str]:
        """Return what an attribute says in each element of a kind that has it."""
        return [value for name, known, value in self.attributes if (name, known) == (tag, attribute)]

    @property
    def headings(self) -> list[tuple[int, str]]:
        """Level and words of each heading, in order."""
        return [(int(name[1]), words) for name, words in self._texts if re.fullmatch("h[1-6]", name)]

    def check(self) -> None:
        """Check what a page needs that is read without eyes, without a network and by people who trust it."""
        assert self.headings[0][0] == 1 and [level for level, _ in self.headings].count(1) == 1
        levels = [level for level, _ in self.headings]
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert self.texts("title") == [self.headings[0][1]]
        assert not self.names & {"script", "link", "iframe", "object", "embed", "form", "base", "svg"}
        assert len(self.values("img", "alt")) == len(self.values("img", "src")) and all(self.values("img", "alt"))
        assert all(source.startswith("data:image/png;base64,") for source in self.values("img", "src"))
        anchors = [value for _, name, value in self.attributes if name == "id"]
        assert len(set(anchors)) == len(anchors)
        assert {link.removeprefix("#") for link in self.values("a", "href")} <= set(anchors)
        assert not any(name.startswith("on") for _, name, _ in self.attributes)

"""What do the tests of the pages share: the pages, their fenced blocks, links and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BUILT = PROJECT / "docs" / "_build"

_FENCE = re.compile(r"^\s*```(.*)$")
_RUN = re.compile(r"^<!-- run(?:: (slow|file \S+))? -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it begins on, and how it is run (None if it is not)."""

    language: str
    text: str
    line: int
    run: str | None

    @property
    def logical_lines(self) -> list[str]:
        """The lines, with those that end in a backslash joined to the next."""
        return self.text.replace("\\\n", " ").splitlines()


@dataclass(frozen=True)
class Page:
    """A page of the documentation."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(PROJECT))

    @cached_property
    def lines(self) -> list[str]:
        """All lines."""
        return self.path.read_text(encoding="utf-8").splitlines()

    @cached_property
    def blocks(self) -> list[Block]:
        """The fenced blocks, in order."""
        return [part for part in self._parts() if isinstance(part, Block)]

    @cached_property
    def prose(self) -> str:
        """The lines outside fenced blocks."""
        return "\n".join(part for part in self._parts() if isinstance(part, str))

    def _parts(self) -> Iterator[Block | str]:
        opened: tuple[str, int, str | None] | None = None
        inside: list[str] = []
        above = ""
        for number, line in enumerate(self.lines, start=1):
            fence = _FENCE.match(line)
            if fence and opened is None:
                marked = _RUN.match(above)
                opened, inside = (fence[1].strip(), number, (marked[1] or "quick") if marked else None), []
            elif fence and opened is not None:
                yield Block(opened[0], "\n".join(inside) + "\n", opened[1], opened[2])
                opened = None
            elif opened is not None:
                inside.append(line)
            else:
                yield line
            above = line.strip()
        assert opened is None, f"{self}: the block that begins on line {opened and opened[1]} never ends"

    @property
    def code_spans(self) -> list[str]:
        """What stands between backticks, outside fenced blocks."""
        return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures, outside fenced blocks and backticks."""
        return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "`code`", self.prose))

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors that a code host, and the site, give to the headings."""
        found: set[str] = set()
        for heading in re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            count = sum(known == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", known) is not None for known in found)
            found.add(f"{slug}-{count}" if count else slug)
        return found


def all_pages() -> list[Page]:
    """Return every page that a reader may come to."""
    below = [path for path in sorted((PROJECT / "docs").rglob("*.md")) if BUILT not in path.parents]
    above = [
        PROJECT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "experiments/README.md")
    ]
    return [Page(path) for path in (*above, *below)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test of examples the pages that have some."""
    for name, run in (("quick_page", "quick"), ("slow_page", "slow")):
        if name in metafunc.fixturenames:
            chosen = [page for page in all_pages() if run in {block.run for block in page.blocks}]
            metafunc.parametrize(name, chosen, ids=str)


@pytest.fixture(scope="session")
def pages() -> dict[Path, Page]:
    """Give a test all pages by path."""
    return {page.path: page for page in all_pages()}

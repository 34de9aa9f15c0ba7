"""Does every link lead somewhere, is every page reachable, and are the pages as short as they should be?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
LONGEST_AT_THE_TOP = 900
LONGEST_PAGE = 800


def _target(page: Any, link: str) -> tuple[Path, str]:
    place, _, anchor = link.partition("#")
    return ((page.path.parent / place).resolve() if place else page.path), anchor


def _dead(page: Any, pages: dict[Path, Any]) -> list[str]:
    dead = []
    for link in page.links:
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, anchor = _target(page, link)
        if not path.exists():
            dead.append(f"{link}: no such file")
        elif anchor and (path not in pages or anchor not in pages[path].anchors):
            dead.append(f"{link}: no such heading")
    return dead


def test_every_link_leads_somewhere(pages: dict[Path, Any]) -> None:
    assert {str(page): dead for page in pages.values() if (dead := _dead(page, pages))} == {}


def test_a_dead_link_would_be_seen(pages: dict[Path, Any], tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# One\n\n[a](#one) [b](#two) [c](gone.md) ![d](gone.png) `[e](gone.md)`\n")
    page = type(pages[README])(path)
    assert _dead(page, {path: page}) == ["#two: no such heading", "gone.md: no such file", "gone.png: no such file"]


def test_every_page_can_be_reached_from_the_readme(pages: dict[Path, Any]) -> None:
    found, waiting = {README}, [README]
    while waiting:
        page = pages[waiting.pop()]
        new = {path for path, _ in (_target(page, link) for link in page.links)} & pages.keys() - found
        found |= new
        waiting += new
    assert sorted(str(pages[path]) for path in pages.keys() - found) == []


def test_every_page_is_in_the_site(pages: dict[Path, Any]) -> None:
    listed = {PROJECT / "docs" / "index.md"}
    for page in pages.values():
        for block in page.blocks:
            if block.language == "{toctree}":
                names = [line for line in block.text.split() if not line.startswith(":")]
                listed |= {(page.path.parent / f"{name}.md").resolve() for name in names}
    assert sorted(str(page) for path, page in pages.items() if path not in listed) == []


def test_every_room_is_in_the_reference() -> None:
    shown = re.findall(
        r"automodule:: (\S+)", "".join(path.read_text() for path in (PROJECT / "docs" / "api").glob("*.md"))
    )
    rooms = [path.parent for path in (PROJECT / "engine").rglob("__init__.py") if "__all__" in path.read_text()]
    wanted = {".".join(room.relative_to(PROJECT).parts) for room in rooms} - {"engine.recipes.methods"}
    assert wanted <= set(shown)


def test_every_experiment_is_in_the_index_of_commands(pages: dict[Path, Any]) -> None:
    index = pages[PROJECT / "experiments" / "README.md"]
    shown = {_target(index, link)[0] for link in index.links}
    results = {path for path in pages if path.parent.name == "results" and path.name != "index.md"}
    assert len(results) > 15
    assert results <= shown


def test_pages_are_short(pages: dict[Path, Any]) -> None:
    too_long = {}
    for path, page in pages.items():
        limit = LONGEST_PAGE if "docs" in path.relative_to(PROJECT).parts else LONGEST_AT_THE_TOP
        # Tables of numbers and histories are as long as what they tell.
        words = 0 if path.parent.name == "results" or path.name == "CHANGELOG.md" else len(page.prose.split())
        too_long |= {str(page): words} if words > limit else {}
    assert too_long == {}


def test_files_that_are_named_exist(pages: dict[Path, Any]) -> None:
    missing = []
    for page in pages.values():
        for span in page.code_spans:
            path = re.fullmatch(r"(?:engine|tests|experiments|docs)/[\w./-]*", span)
            # Capitals stand for a name that the reader chooses.
            chosen = re.search(r"[A-Z]{2}", span.replace("README", ""))
            if path and not chosen and not span.startswith("docs/_build") and not (PROJECT / span).exists():
                missing.append(f"{page}: {span}")
    assert missing == []

"""Does a real browser show the page: every picture, no word in the console, nothing wider than a phone?

Needs Chromium (`apt-get install chromium`), without which this is left out.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import engine
from engine.analysis import Settings, analyse, write_report
from engine.recipes import Plan
from tests.analysis.conftest import tiny
from tests.analysis.html_page import Page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")]

DESKTOP, PHONE = 1280, 375  # Pixels across.
# What is asked of the browser, in a copy of the page that lets it run, in a frame: no window is as narrow as a phone.
_ASKS = """<script>
addEventListener("load", () => {
  const pictures = [...document.images].map(each => each.complete ? each.naturalWidth : 0);
  const root = document.documentElement, body = getComputedStyle(document.body);
  const colours = {ink: body.color, paper: body.backgroundColor};
  const answer = {pictures, wide: root.scrollWidth, room: root.clientWidth, ...colours};
  parent.postMessage(JSON.stringify(answer), "*");
});
</script></head>"""
_FRAME = """<!DOCTYPE html><html><head><script>
addEventListener("message", event => document.documentElement.setAttribute("data-answer", event.data));
</script></head><body><iframe src="copy.html" style="width: WIDEpx; height: 800px"></iframe></body></html>"""


def _browse(page: Path, folder: Path, *options: str) -> tuple[str, list[str]]:
    """Open a page, and return the document as the browser has it, and what it said in its console."""
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--hide-scrollbars"]
    command += [f"--window-size={DESKTOP + 50},900", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def _asked(page: Path, folder: Path, width: int, *options: str) -> dict[str, Any]:
    content = page.read_text()
    assert "<script" not in content
    (folder / "copy.html").write_text(
        content.replace("default-src 'none'", "script-src 'unsafe-inline'").replace("</head>", _ASKS)
    )
    frame = folder / "frame.html"
    frame.write_text(_FRAME.replace("WIDE", str(width)))
    document, said = _browse(frame, folder, "--dump-dom", "--virtual-time-budget=10000", *options)
    assert said == []
    answer: dict[str, Any] = json.loads(next(value for value in Page(document).values("html", "data-answer")))
    return answer


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run that was analysed, and that of a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    run = engine.train(tiny("dml"), Plan(executor="process"), folder / ("a long name of a run " * 5).strip()).run_dir
    analyse([run], ["posterior", "topmass", "similarity", "cam"], Settings(images=20))
    recipes = {"end_to_end": tiny("end_to_end"), "infopro": tiny("infopro")}
    compared = engine.compare(recipes, seeds=(0,), run_dir=folder / "compared").run_dir
    return {"run": write_report([run]), "comparison": write_report([compared])}


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_a_browser_shows_the_page(pages: dict[str, Path], name: str, tmp_path: Path) -> None:
    page = pages[name]
    screen = tmp_path / "screen.png"
    _, said = _browse(page, tmp_path, f"--screenshot={screen}")
    assert said == []
    with Image.open(screen) as shown:
        assert len(shown.convert("L").getcolors()) > 20
    for width in (DESKTOP, PHONE):
        answer = _asked(page, tmp_path, width)
        assert len(answer["pictures"]) == {"run": 5, "comparison": 3}[name] and min(answer["pictures"]) > 300
        assert answer["wide"] <= answer["room"] == width, f"the page is wider than {width}"


def test_it_is_dark_where_a_reader_wants_it_so(pages: dict[str, Path], tmp_path: Path) -> None:
    def lightness(colour: str) -> float:
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    day = _asked(pages["run"], tmp_path, DESKTOP, "--blink-settings=preferredColorScheme=1")
    night = _asked(pages["run"], tmp_path, DESKTOP, "--blink-settings=preferredColorScheme=0")
    assert lightness(day["ink"]) + 150 < lightness(day["paper"])
    assert lightness(night["paper"]) + 150 < lightness(night["ink"])

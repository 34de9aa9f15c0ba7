"""The table of several methods is aligned; their picture grows with them, and missing results do not stop it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.comparison import ComparisonRow, comparison_table, plot_comparison, side_by_side
from engine.tasks import ACCURACY

GIB = 2**30
WHOLE = ComparisonRow("end to end", (0.93, 0.94, 0.935), {"network": 3 * GIB}, 2000.0)
CUT = ComparisonRow("InfoPro, K = 4", (0.92,), {f"segment{k}": GIB - k for k in range(4)}, 3000.0)
EMPTY = ComparisonRow("not run", (), {}, math.nan)


def size_and_colours(path: Path) -> tuple[tuple[int, int], int]:
    with Image.open(path) as image:
        return image.size, len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "rows", [[], [WHOLE], [EMPTY], [CUT, EMPTY], [ComparisonRow("$x$", (math.nan,), {"a": 0}, 0.0)]]
)
def test_any_rows_are_drawn(tmp_path: Path, rows: list[ComparisonRow]) -> None:
    plot_comparison(rows, tmp_path / "comparison.png", "title", ACCURACY)
    (width, height), shades = size_and_colours(tmp_path / "comparison.png")
    assert width == 1800 and height >= 240 and shades > 10
    assert [found.name for found in tmp_path.iterdir()] == ["comparison.png"]


@pytest.mark.parametrize(("speed", "panels"), [(2000.0, 3), (math.nan, 2)])
def test_a_speed_that_nobody_measured_has_no_panel(
    tmp_path: Path, speed: float, panels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(side_by_side, "write_figure", lambda figure, path: drawn.append(figure))
    rows = [WHOLE, CUT, EMPTY]
    plot_comparison([replace(row, images_per_second=speed) for row in rows], tmp_path / "x.png", "title", ACCURACY)
    assert len(drawn[0].axes) == panels


def test_more_methods_and_more_learners_need_more_room(tmp_path: Path) -> None:
    heights = []
    many = ComparisonRow("InfoPro, K = 16", (0.9,), {f"segment{k}": GIB for k in range(16)}, 1.0)
    for rows in ([WHOLE], [WHOLE, CUT], [WHOLE, many]):
        plot_comparison(rows, tmp_path / "comparison.png", "title", ACCURACY)
        heights.append(size_and_colours(tmp_path / "comparison.png")[0][1])
    assert heights[0] < heights[1] < heights[2]


def test_the_comparison_is_aligned() -> None:
    table = comparison_table(
        [
            ComparisonRow("end to end", (0.93, 0.94), {"network": 3 * 2**30}, 2000.0),
            ComparisonRow("InfoPro with a long name", (0.92,), {"segment0": 5, "segment1": 2**20}, 31234.0),
            ComparisonRow("", (), {}, math.nan),
        ],
        ACCURACY,
    )
    header, rule, *rows = table.splitlines()
    assert rows[0].split("  ")[0] == "end to end"
    assert rows[0].split() == ["end", "to", "end", "1", "93.50", "±", "0.71", "%", "2", "3.00", "GiB", "2,000"]
    assert rows[1].split() == ["InfoPro", "with", "a", "long", "name", "2", "92.00", "%", "1", "1.00", "MiB", "31,234"]
    assert rows[2].split() == ["-", "-", "0", "-", "-"]
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    gaps = [index for index, mark in enumerate(rule) if mark == " "]
    assert all(line[index] == " " for line in (header, *rows) for index in gaps)


def test_a_comparison_of_nothing_is_its_header() -> None:
    assert len(comparison_table([], ACCURACY).splitlines()) == 2

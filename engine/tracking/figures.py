"""The look of every figure: size, type, colours, and its way to the disk."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
FAINT = "#9a9a9a"
ALARM = "#b00020"
STRONG = "#0072b2"
PALE = "#a9cfe6"
TEXT_SIZE = 9.0

_DOTS_PER_INCH = 150
# Okabe and Ito's colours, told apart with every common kind of colour blindness; black stands for the team.
_SEPARATE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5195")


def colours(names: Sequence[str]) -> dict[str, str]:
    """One colour for each name: clearly separate ones if there are few, else shades in order, dark to light."""
    if len(names) <= len(_SEPARATE):
        return dict(zip(names, _SEPARATE, strict=False))
    import_matplotlib()
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    shades = colormaps["viridis"]
    # The brightest end is too pale for a thin line on white.
    return {name: to_hex(shades(0.93 * index / (len(names) - 1))) for index, name in enumerate(names)}


def tints(colour: str, count: int) -> list[str]:
    """So many tints of one colour, the palest first, the colour itself last."""
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    # No paler than half way to white: a thin line must still be seen.
    whites = [0.5 * (count - 1 - index) / max(1, count - 1) for index in range(count)]
    mixed = [[round(part + white * (255 - part)) for part in parts] for white in whites]
    return ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in mixed]


def import_matplotlib() -> None:
    """Import matplotlib for drawing into files, whatever the user's display, MPLBACKEND or home folder.

    Call before any other import of it: on its first import it refuses a backend that is not there, and complains of a
    settings folder that cannot be written.
    """
    if "matplotlib" in sys.modules:
        return
    chosen = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        import matplotlib.font_manager  # noqa: F401  Its cache of fonts is made, and told of, on import.
    finally:
        log.setLevel(level)
        if chosen is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = chosen


def open_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of the given size in inches, outside of pyplot's global state."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    # Not mathematics: a dollar sign in a user's title is a dollar sign.
    figure.suptitle(title, fontsize=TEXT_SIZE + 4, color=INK, fontweight="bold", parse_math=False)
    return figure


def dress(axes: Axes, title: str, across: str = "", up: str = "") -> None:
    """Give axes their labels, a light grid and no box."""
    axes.set_title(title, fontsize=TEXT_SIZE + 1.5, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(across, fontsize=TEXT_SIZE, color=INK)
    axes.set_ylabel(up, fontsize=TEXT_SIZE, color=INK)
    axes.tick_params(labelsize=TEXT_SIZE - 0.5, colors=INK, length=3, width=0.6)
    axes.grid(True, color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
        axes.spines[side].set_linewidth(0.6)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)


def byte_scale(largest: float) -> tuple[float, str]:
    """The binary unit that suits the largest of some byte counts, and how many bytes it has."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB")):
        if largest >= 1024.0**power:
            return 1024.0**power, unit
    return 1024.0, "KiB"

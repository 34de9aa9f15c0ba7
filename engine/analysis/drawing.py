"""The look of analyses' pictures: curves told apart without colour, and a caption that says what they show."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.tracking.figures import INK, TEXT_SIZE, colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LETTERS_PER_INCH = 16
_LINE, _USUAL_LINES = 0.14, 2  # Of a caption: the height in inches, and how many a figure has room for.


@dataclass(frozen=True)
class Style:
    """How one curve is drawn: colour, dashes and marker, of which the last two tell it apart in black and white."""

    colour: str
    dashes: Any
    marker: str

    def line(self) -> dict[str, Any]:
        """Return matplotlib's words for a curve with points."""
        return {
            "color": self.colour,
            "linestyle": self.dashes,
            "marker": self.marker,
            "markersize": 5,
            "linewidth": 1.4,
        }

    def step(self) -> dict[str, Any]:
        """Return matplotlib's words for a curve without points."""
        return {"color": self.colour, "linestyle": self.dashes, "linewidth": 1.4}


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """Return a style for each label."""
    shades = colours(labels)
    return {
        label: Style(shades[label], _DASHES[place % len(_DASHES)], _MARKERS[place % len(_MARKERS)])
        for place, label in enumerate(labels)
    }


def legend(axes: Axes, **words: Any) -> None:
    """Explain the curves inside the axes, where there is room; a legend wider than they are would squeeze them."""
    handles, labels = axes.get_legend_handles_labels()
    wide = int(axes.bbox.width / axes.figure.dpi * _LETTERS_PER_INCH)
    labels = [textwrap.fill(label, wide) for label in labels]
    axes.legend(handles, labels, frameon=False, fontsize=TEXT_SIZE - 1, labelcolor=INK, handlelength=3, **words)


def legend_beside(figure: Figure, axes: Axes) -> None:
    """Explain the curves of one of several axes beside them all, where many curves leave no room inside."""
    handles, labels = axes.get_legend_handles_labels()
    words: dict[str, Any] = {"frameon": False, "fontsize": TEXT_SIZE - 1, "labelcolor": INK, "handlelength": 3}
    figure.legend(handles, labels, loc="outside center right", **words)


def log_scale_up(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers at 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def caption_below(figure: Figure, caption: str) -> None:
    """Put a caption below a figure, in as many lines as it takes; beyond two, the figure grows."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(f"{caption}.", int(width * _LETTERS_PER_INCH))
    # The names of many runs would else take their room from what they caption.
    figure.set_size_inches(width, height + _LINE * max(0, len(lines) - _USUAL_LINES))
    figure.supxlabel("\n".join(lines), fontsize=TEXT_SIZE - 1.5, color=INK, parse_math=False)

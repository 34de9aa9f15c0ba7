"""The picture of a measurement: images per second, and memory per device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.benchmarking.case_results import CaseResult, Spread, best_of
from engine.benchmarking.report import shown_name
from engine.benchmarking.result import Measurement
from engine.tracking.figures import (
    FAINT,
    INK,
    PALE,
    STRONG,
    TEXT_SIZE,
    byte_scale,
    dress,
    open_figure,
    write_figure,
)
from engine.tracking.tables import format_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW_INCHES = 0.36
_OTHERS = "#d9a066"
_REFERENCE = "#8a8a8a"
_HOLLOW: dict[str, Any] = {"color": INK, "markerfacecolor": "none", "markersize": 7, "markeredgewidth": 0.9}
_COLOURS = {"end_to_end": _REFERENCE, "process": PALE, "ray": STRONG}
_MEANINGS = {
    _REFERENCE: "end to end",
    PALE: "this engine, one process",
    STRONG: "this engine, a process for each learner",
    _OTHERS: "others",
}


def plot_measurement(found: Measurement, path: Path, title: str) -> None:
    """Draw the cases one below the other into a PNG file.

    Left: images per second, with the range over rounds. Right: saved activations of the device that keeps most, and as
    hollow points resident memory, or on a GPU the device's memory.
    """
    rows = best_of(found.rows)
    figure = open_figure(12.5, 1.7 + _ROW_INCHES * len(rows), title)
    speed, memory = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1.0))
    places = range(len(rows))
    shades = [_COLOURS.get(row.case.family, _OTHERS) for row in rows]
    _draw_speed(speed, found, rows, shades)
    _draw_memory(memory, found, rows, shades)
    for axes in (speed, memory):
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
    names = [shown_name(found, row) + (" *" if found.shares_cores(row) else "") for row in rows]
    speed.set_yticks(places, names, fontsize=TEXT_SIZE, color=INK, parse_math=False)
    speed.set_ylim(len(rows) - 0.4, -0.6)
    handles: list[Any] = [speed.barh([0], [0], color=shade, label=meaning) for shade, meaning in _MEANINGS.items()]
    (kept,) = memory.plot([], [], "o", color=_REFERENCE, markersize=7, label="saved activations (and share)")
    (held,) = memory.plot([], [], "o", **_HOLLOW, label="device memory" if found.machine.gpus else "resident memory")
    handles += [kept, held]
    shared = "  * more workers than cores" if any(map(found.shares_cores, rows)) else ""
    figure.legend(
        handles=handles,
        loc="outside lower right",
        ncols=len(handles),
        frameon=False,
        fontsize=TEXT_SIZE - 0.5,
        title=f"{found.machine.describe()}; median and range of {found.rounds} rounds{shared}",
        title_fontsize=TEXT_SIZE - 0.5,
    )
    write_figure(figure, path)


def _draw_speed(axes: Axes, found: Measurement, rows: Sequence[CaseResult], shades: Sequence[str]) -> None:
    dress(axes, "speed: more is better", "images per second")
    steps = [Spread.of(row.seconds) for row in rows]
    spreads = [Spread(*(found.batch_size / each for each in (step.median, step.high, step.low))) for step in steps]
    places = list(range(len(rows)))
    middles = [spread.median for spread in spreads]
    axes.barh(places, middles, color=list(shades), height=0.68)
    reaches = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
    axes.errorbar(middles, places, xerr=reaches, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2)
    axes.axvline(found.batch_size / found.reference.step, color=FAINT, linewidth=1.0, linestyle="--")
    for place, spread in zip(places, spreads, strict=True):
        axes.annotate(
            format_rate(spread.median),
            (spread.high, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=TEXT_SIZE - 0.5,
            color=INK,
        )
    axes.margins(x=0.14)
    axes.set_xlim(left=0)


def _draw_memory(axes: Axes, found: Measurement, rows: Sequence[CaseResult], shades: Sequence[str]) -> None:
    held = [row.device_bytes if found.machine.gpus else row.resident_bytes for row in rows]
    saved = [row.saved_activations for row in rows]
    scale, unit = byte_scale(max([each for each in (*held, *saved) if each is not None], default=1024))
    dress(axes, "memory of the device that needs most: less is better", unit)
    whole = found.reference.saved_activations
    for place, (kept, most, shade) in enumerate(zip(saved, held, shades, strict=True)):
        if kept is not None:
            axes.plot([0, kept / scale], [place, place], color=shade, linewidth=1.6)
            axes.plot([kept / scale], [place], "o", color=shade, markersize=7)
            axes.annotate(
                f"{kept / scale:.3g} {unit}" + (f" ({kept / whole:.2f})" if whole else ""),
                (max(kept, most or 0) / scale, place),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize=TEXT_SIZE - 0.5,
                color=INK,
            )
        if most is not None:
            axes.plot([most / scale], [place], "o", **_HOLLOW)
    if whole:
        axes.axvline(whole / scale, color=FAINT, linewidth=1.0, linestyle="--")
    axes.margins(x=0.2)
    axes.set_xlim(left=0)

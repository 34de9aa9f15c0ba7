"""A table and a picture of methods side by side, for experiments that train them by themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.tasks import Metric
from engine.tracking.figures import FAINT, INK, PALE, STRONG, TEXT_SIZE, byte_scale, dress, open_figure, write_figure
from engine.tracking.scores import axis_label, drawn_factor, format_scores, words_of
from engine.tracking.tables import format_bytes, format_rate, mean_and_deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MISSING = "-"
_HEIGHT_OF_LEARNER = 0.17  # Of a row whose height is 1 for up to a few learners.


@dataclass(frozen=True)
class ComparisonRow:
    """What is compared of one method.

    Attributes:
        label: what readers know the method by.
        scores: final headline score on the test images, one per seed; shares in [0, 1].
        memory_bytes: peak memory by learner.
        images_per_second: training speed of the whole team; not a number where it was not measured.
    """

    label: str
    scores: tuple[float, ...]
    memory_bytes: dict[str, int]
    images_per_second: float


def comparison_table(rows: Sequence[ComparisonRow], headline: Metric) -> str:
    """Aligned plain text, one line per method: learners, score over the seeds, largest learner's memory, speed."""
    header = ("method", "learners", words_of(headline), "seeds", "largest peak memory of a learner", "images/s")
    cells = [header, *(_cells(row, headline) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def plot_comparison(rows: Sequence[ComparisonRow], path: Path, title: str, headline: Metric) -> None:
    """Draw methods one below the other into a PNG file: score with every seed, peak memory by learner, speed.

    Nothing is drawn of the speed where it was measured of none.
    """
    heights = [max(1.0, _HEIGHT_OF_LEARNER * len(row.memory_bytes) + 0.3) for row in rows]
    figure = open_figure(12.0, 1.6 + 0.62 * sum(heights), title)
    if not rows:
        figure.text(0.5, 0.4, "nothing to compare yet", ha="center", fontsize=TEXT_SIZE + 4, color=FAINT)
        write_figure(figure, path)
        return
    middles = [sum(heights[:index]) + height / 2 for index, height in enumerate(heights)]
    is_timed = any(math.isfinite(row.images_per_second) for row in rows)
    widths = (1.25, 1.25, 0.8) if is_timed else (1.25, 1.25)
    panels = figure.subplots(1, len(widths), sharey=True, width_ratios=widths)
    score, memory = panels[:2]
    dress(score, f"test {words_of(headline)}: mean, standard deviation, every seed", axis_label(headline, "test"))
    for axes in panels:
        for edge in range(1, len(rows)):
            axes.axhline(sum(heights[:edge]), color="#d0d0d0", linewidth=0.6)
    for row, middle in zip(rows, middles, strict=True):
        _draw_score(score, row, headline, middle)
    _draw_memory(memory, rows, middles, heights)
    if is_timed:
        _draw_speeds(panels[2], rows, middles)
    for axes in panels:
        axes.grid(False, axis="y")
    score.margins(x=0.3)
    score.set_yticks(middles, [row.label for row in rows], fontsize=TEXT_SIZE + 0.5, parse_math=False)
    score.set_ylim(sum(heights), 0)
    write_figure(figure, path)


def _draw_score(axes: Axes, row: ComparisonRow, headline: Metric, middle: float) -> None:
    drawn = [drawn_factor(headline) * value for value in row.scores if math.isfinite(value)]
    if not drawn:
        _draw_nothing(axes, middle)
        return
    mean, deviation = mean_and_deviation(drawn)
    axes.errorbar(mean, middle - 0.1, xerr=deviation, fmt="|", color=INK, markersize=12, capsize=4, linewidth=1.4)
    below = [middle + 0.17] * len(drawn)
    axes.plot(drawn, below, "o", color=STRONG, alpha=0.55, markeredgewidth=0, markersize=5.5)
    _write_beside(axes, max([*drawn, mean + (deviation or 0.0)]), middle, format_scores(headline, row.scores))


def _draw_speeds(axes: Axes, rows: Sequence[ComparisonRow], middles: Sequence[float]) -> None:
    dress(axes, "training speed", "images/s")
    for row, middle in zip(rows, middles, strict=True):
        if not math.isfinite(row.images_per_second):
            _draw_nothing(axes, middle)
            continue
        axes.barh(middle, row.images_per_second, height=0.4, color=STRONG)
        _write_beside(axes, row.images_per_second, middle, format_rate(row.images_per_second))
    axes.set_xlim(0, 1.3 * max([row.images_per_second for row in rows if row.images_per_second > 0], default=1.0))


def _draw_memory(axes: Axes, rows: Sequence[ComparisonRow], middles: Sequence[float], heights: Sequence[float]) -> None:
    largest = max((value for row in rows for value in row.memory_bytes.values()), default=0)
    scale, unit = byte_scale(largest)
    dress(axes, "peak memory of each learner, the largest marked", f"peak memory ({unit})")
    for row, middle, height in zip(rows, middles, heights, strict=True):
        count = len(row.memory_bytes)
        if count == 0:
            _draw_nothing(axes, middle)
            continue
        room = min(0.45, 0.8 * height / count)
        peak = max(row.memory_bytes, key=lambda name: row.memory_bytes[name])
        for index, (name, value) in enumerate(row.memory_bytes.items()):
            place = middle + room * (index - (count - 1) / 2)
            axes.barh(place, value / scale, height=0.84 * room, color=STRONG if name == peak else PALE)
            if name == peak:
                words = format_bytes(value) if count == 1 else f"{format_bytes(value)} ({name})"
                _write_beside(axes, value / scale, place, words)
    axes.set_xlim(0, 1.45 * largest / scale or 1.0)


def _write_beside(axes: Axes, across: float, up: float, words: str) -> None:
    axes.annotate(
        words,
        (across, up),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=TEXT_SIZE,
        color=INK,
        parse_math=False,
    )


def _draw_nothing(axes: Axes, middle: float) -> None:
    axes.text(
        0.02, middle, "no result", transform=axes.get_yaxis_transform(), va="center", fontsize=TEXT_SIZE, color=FAINT
    )


def _cells(row: ComparisonRow, headline: Metric) -> tuple[str, ...]:
    return (
        row.label,
        str(len(row.memory_bytes)) if row.memory_bytes else _MISSING,
        format_scores(headline, row.scores),
        str(len(row.scores)),
        format_bytes(max(row.memory_bytes.values(), default=math.nan)),
        format_rate(row.images_per_second),
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Words to the left, numbers to the right."""
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]

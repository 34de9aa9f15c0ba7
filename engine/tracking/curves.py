"""What the picture of one run looks like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.tracking.figures import (
    ALARM,
    FAINT,
    INK,
    TEXT_SIZE,
    byte_scale,
    colours,
    dress,
    open_figure,
    write_figure,
)
from engine.tracking.records import (
    ACCURACY,
    IMAGES_PER_SECOND,
    LEARNING_RATE,
    LOSS_PREFIX,
    LOSS_TOTAL,
    MEMORY_BYTES,
    TRAIN,
    WAITING_SHARE,
    Record,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_MOST_POINTS = 120  # More would draw the noise of single batches instead of the course of the training.
_FEW_POINTS = 25
_LOGARITHMIC_FROM = 30.0  # Ratio of the largest to the smallest loss.
_FEWEST_BARS = 4
_MOST_FINAL_NUMBERS = 4
_MOST_PANELS_IN_A_ROW = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4, 9: 3}  # Leaves the fewest gaps.
_RATES = (
    (LEARNING_RATE, "learning rate", "learning rate", 1.0),
    (IMAGES_PER_SECOND, "speed", "images/s", 1.0),
    (WAITING_SHARE, "time spent waiting for messages", "share of time (%)", 100.0),
)


@dataclass(frozen=True)
class _Style:
    thickness: float
    pattern: Literal["-", "--"]
    team_colour: str


_EVALUATION_STYLES = {"validation": _Style(1.6, "--", "#777777"), "test": _Style(2.2, "-", INK)}


def plot_curves(records: Sequence[Record], path: Path, title: str) -> None:
    """Draw the course of one run into a PNG file: accuracy, each loss term, rates, and memory, by learner."""
    run = _Run(records)
    drawings = run.drawings()
    across = _MOST_PANELS_IN_A_ROW.get(len(drawings), 4)
    down = math.ceil(len(drawings) / across)
    figure = open_figure(3.9 * across + 1.5, 2.75 * max(1, down) + 0.6, title)
    if not drawings:
        figure.text(0.5, 0.45, "no records yet", ha="center", fontsize=TEXT_SIZE + 4, color=FAINT)
    for position, draw in enumerate(drawings, start=1):
        draw(figure.add_subplot(down, across, position))
    if keys := run.keys():
        figure.legend(handles=keys, loc="outside right upper", frameon=False, fontsize=TEXT_SIZE, labelcolor=INK)
    write_figure(figure, path)


@dataclass(frozen=True)
class _Series:
    """One metric of one learner: epochs that were finished when it was measured, and its values."""

    learner: str | None
    split: str
    epochs: list[float]
    values: list[float]

    def last(self) -> tuple[float, float] | None:
        """The last finite value and its epoch."""
        finite = [(epoch, value) for epoch, value in zip(self.epochs, self.values, strict=True) if math.isfinite(value)]
        return finite[-1] if finite else None

    def thinned(self) -> tuple[list[float], list[float]]:
        """Epochs and values for a line: means over equal stretches of the run if there are many points."""
        if len(self.epochs) <= _MOST_POINTS:
            return self.epochs, [value if math.isfinite(value) else math.nan for value in self.values]
        first, length = self.epochs[0], (self.epochs[-1] - self.epochs[0]) or 1.0
        stretches: dict[int, list[tuple[float, float]]] = {}
        for epoch, value in zip(self.epochs, self.values, strict=True):
            stretch = min(_MOST_POINTS - 1, int(_MOST_POINTS * (epoch - first) / length))
            stretches.setdefault(stretch, []).append((epoch, value))
        epochs, values = [], []
        for points in stretches.values():
            finite = [value for _, value in points if math.isfinite(value)]
            epochs.append(sum(epoch for epoch, _ in points) / len(points))
            values.append(sum(finite) / len(finite) if finite else math.nan)
        return epochs, values


class _Run:
    """The records of a run, sorted into series, and the panels that they fill."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._steps_per_epoch = _steps_per_epoch(records)
        self._grouped: dict[tuple[str, str], dict[str | None, list[Record]]] = {}
        for record in records:
            self._grouped.setdefault((record.name, record.split), {}).setdefault(record.learner, []).append(record)
        self.colours = colours(list(dict.fromkeys(record.learner for record in records if record.learner is not None)))
        self._width = 1.2 if len(self.colours) <= 8 else 0.9

    def drawings(self) -> list[Callable[[Axes], None]]:
        """One function for each panel that has something to show."""
        found: list[Callable[[Axes], None]] = []
        if any(name == ACCURACY for name, _ in self._grouped):
            found.append(self._draw_accuracy)
        found += [partial(self._draw_loss, name=name) for name in self._losses()]
        for name, title, unit, factor in _RATES:
            if (name, TRAIN) in self._grouped:
                found.append(partial(self._draw_rate, name=name, title=title, unit=unit, factor=factor))
        if self._memory_peaks():
            found.append(self._draw_memory)
        return found

    def keys(self) -> list[Line2D]:
        """What the legend explains: the colour of each learner, then the line of each split."""
        from matplotlib.lines import Line2D

        keys = [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in self.colours.items()]
        if any(None in group for group in self._grouped.values()):
            keys.append(Line2D([], [], color=INK, linewidth=3, label="whole team"))
        if (ACCURACY, TRAIN) in self._grouped:
            keys.append(Line2D([], [], color=FAINT, linewidth=0.9, label=TRAIN))
        for split, style in _EVALUATION_STYLES.items():
            if (ACCURACY, split) in self._grouped:
                keys.append(
                    Line2D([], [], color=FAINT, linewidth=style.thickness, linestyle=style.pattern, label=split)
                )
        return keys

    def _losses(self) -> list[str]:
        found = [name for name, split in self._grouped if split == TRAIN and name.startswith(LOSS_PREFIX)]
        found.sort(key=lambda name: name != LOSS_TOTAL)
        # With one term of weight 1 the total is that term: one panel is enough.
        if len(found) == 2 and found[0] == LOSS_TOTAL and self._series(found[0]) == self._series(found[1]):
            return found[1:]
        return found

    def _series(self, name: str, split: str = TRAIN) -> list[_Series]:
        """By learner, in the order of the legend, the team last and so on top."""
        grouped = self._grouped.get((name, split), {})
        return [
            _Series(learner, split, [r.step / self._steps_per_epoch for r in found], [r.value for r in found])
            for learner in [*self.colours, None]
            if (found := sorted(grouped.get(learner, []), key=lambda record: record.step))
        ]

    def _memory_peaks(self) -> dict[str | None, float]:
        peaks = {
            series.learner: [v for v in series.values if math.isfinite(v)] for series in self._series(MEMORY_BYTES)
        }
        return {learner: max(values) for learner, values in peaks.items() if values}

    def _colour(self, learner: str | None) -> str:
        return INK if learner is None else self.colours[learner]

    def _draw_accuracy(self, axes: Axes) -> None:
        dress(axes, "accuracy", "epoch", "accuracy (%)")
        for series in self._series(ACCURACY):
            epochs, values = series.thinned()
            _line(axes, epochs, values, self._colour(series.learner), 100.0, linewidth=0.75 * self._width, alpha=0.8)
        final = self._series(ACCURACY)
        for split, style in _EVALUATION_STYLES.items():
            measured = self._series(ACCURACY, split)
            team = any(series.learner is None for series in measured)
            for series in measured:
                # Where the team has its own accuracy, those of its learners step back.
                thickness = 1.2 if team and series.learner is not None else style.thickness
                colour = style.team_colour if series.learner is None else self._colour(series.learner)
                _line(axes, series.epochs, series.values, colour, 100.0, linewidth=thickness, linestyle=style.pattern)
            final = [series for series in measured if series.last()] or final
        _annotate_final(axes, final)

    def _draw_loss(self, axes: Axes, name: str) -> None:
        term = name[len(LOSS_PREFIX) :].replace("_", " ")
        dress(axes, "total loss" if name == LOSS_TOTAL else f"loss: {term}", "epoch", "training loss")
        drawn, broken = [], []
        for series in self._series(name):
            epochs, values = series.thinned()
            _line(axes, epochs, values, self._colour(series.learner), linewidth=self._width, alpha=0.9)
            drawn += [value for value in values if math.isfinite(value)]
            broken += [epoch for epoch, v in zip(series.epochs, series.values, strict=True) if not math.isfinite(v)][:1]
        if not drawn:
            axes.set_yticks([])
        elif min(drawn) > 0 and max(drawn) / min(drawn) > _LOGARITHMIC_FROM:
            axes.set_yscale("log")
        if broken:
            axes.axvline(min(broken), color=ALARM, linewidth=1.2, linestyle=":")
            axes.annotate(
                "not finite",
                (min(broken), 0.97),
                xycoords=axes.get_xaxis_transform(),
                xytext=(-3, 0),
                textcoords="offset points",
                ha="right",
                va="top",
                color=ALARM,
                fontsize=TEXT_SIZE,
            )

    def _draw_rate(self, axes: Axes, name: str, title: str, unit: str, factor: float) -> None:
        dress(axes, title, "epoch", unit)
        all_series = self._series(name)
        same = len(all_series) > 1 and all(
            (series.epochs, series.values) == (all_series[0].epochs, all_series[0].values) for series in all_series
        )
        for series in all_series[:1] if same else all_series:
            epochs, values = series.thinned()
            colour = INK if same else self._colour(series.learner)
            _line(axes, epochs, values, colour, factor, linewidth=self._width)
        if same:
            axes.set_title(f"{title} (the same for all)", fontsize=TEXT_SIZE + 1.5, color=INK, loc="left")
        axes.set_ylim(bottom=0)

    def _draw_memory(self, axes: Axes) -> None:
        peaks = self._memory_peaks()
        scale, unit = byte_scale(max(peaks.values()))
        dress(axes, "peak memory", f"peak memory ({unit})")
        places, sizes = range(len(peaks)), [peak / scale for peak in peaks.values()]
        bars = axes.barh(places, sizes, color=[self._colour(learner) for learner in peaks], height=0.75)
        axes.bar_label(bars, [f"{size:.2f}" for size in sizes], padding=3, fontsize=TEXT_SIZE - 1)
        axes.set_yticks(places, [learner or "whole team" for learner in peaks], fontsize=TEXT_SIZE - 0.5)
        # Room for a few more, so that a single learner's bar is still a bar.
        axes.set_ylim(max(len(peaks), _FEWEST_BARS) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.margins(x=0.15)


def _steps_per_epoch(records: Sequence[Record]) -> float:
    """Steps of an epoch, found from the last record of each, whether epochs are counted from 0 or from 1."""
    last: dict[int, int] = {}
    for record in records:
        last[record.epoch] = max(record.step, last.get(record.epoch, 0))
    already = 1 if 0 in last else 0
    # An epoch that was cut short gives too few, never too many.
    return max([step / (epoch + already) for epoch, step in last.items() if epoch + already > 0 < step], default=1.0)


def _line(
    axes: Axes,
    epochs: list[float],
    values: list[float],
    colour: str,
    factor: float = 1.0,
    *,
    linewidth: float,
    linestyle: Literal["-", "--"] = "-",
    alpha: float = 1.0,
) -> None:
    axes.plot(
        epochs,
        [factor * value if math.isfinite(value) else math.nan for value in values],
        color=colour,
        linewidth=linewidth,
        linestyle=linestyle,
        alpha=alpha,
        marker="o" if len(epochs) <= _FEW_POINTS else "",
        markersize=2.5,
    )


def _annotate_final(axes: Axes, final: Sequence[_Series]) -> None:
    """Write the team's final accuracy, or those of its learners, next to the end of the best line."""
    ends = {series.learner: end for series in final if (end := series.last()) is not None}
    if not ends:
        return
    best_first = sorted(ends, key=lambda learner: -ends[learner][1])
    if None in ends:
        lines, marked = [f"{100 * ends[None][1]:.2f} %"], ends[None]
    else:
        lines, marked = [f"{learner} {100 * ends[learner][1]:.2f} %" for learner in best_first], ends[best_first[0]]
    if len(lines) > _MOST_FINAL_NUMBERS:
        lines = [*lines[: _MOST_FINAL_NUMBERS - 1], f"and {len(lines) - _MOST_FINAL_NUMBERS + 1} more"]
    axes.annotate(
        "\n".join([final[0].split, *lines]),
        (marked[0], 100 * marked[1]),
        xytext=(5, 6),
        textcoords="offset points",
        va="top",
        fontsize=TEXT_SIZE,
        fontweight="bold",
        color=INK,
        annotation_clip=False,
        parse_math=False,
    )

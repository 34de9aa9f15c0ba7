"""The picture of a comparison: scores, paired gains, and what training takes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.comparison.result import COSTS, ComparedRecipe, best_on_validation, paired_gains, relative_costs
from engine.comparison.tables import format_gain, format_ratio, pairs_told
from engine.tasks import Metric
from engine.tracking.figures import FAINT, INK, STRONG, TEXT_SIZE, colours, dress, open_figure, write_figure
from engine.tracking.intervals import mean_and_half_width
from engine.tracking.scores import axis_label, drawn_factor, format_scores, words_of
from engine.tracking.tables import mean_and_deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL_WIDTH = 26  # Characters in a line of a label.
_PANEL_INCHES = 4.5
_ALONE_INCHES = 7.5  # Room for a title above one panel.
_ROW_INCHES = 0.95
_LINE_INCHES = 0.17
_BEHIND_WORDS = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
_MARKS = dict(zip(COSTS, ("s", "o", "D", "^"), strict=True))


def plot_compared(
    rows: Sequence[ComparedRecipe], seeds: Sequence[int], headline: Metric, path: Path, title: str
) -> None:
    """Draw recipes one below the other into a PNG file, the baseline first.

    Left: test score with every seed, mean and standard deviation. Middle: gain over the baseline on the same seed,
    with its mean and 95 % interval. Right: parameters, compute, time and memory as multiples of the baseline's, as far
    as they are known. Of one recipe alone there are the scores only.
    """
    best = best_on_validation(rows, seeds, headline)
    labels = [_wrapped(row.label) + ("\n(best on validation)" if row.label == best else "") for row in rows]
    heights = [max(_ROW_INCHES, _LINE_INCHES * (label.count("\n") + 2)) for label in labels]
    count = 3 if len(rows) > 1 else 1
    figure = open_figure(max(_ALONE_INCHES, count * _PANEL_INCHES), 1.9 + sum(heights), title)
    edges = [sum(heights[:index]) for index in range(len(rows) + 1)]
    middles = [(above + below) / 2 for above, below in itertools.pairwise(edges)]
    score, *beside = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    dress(score, f"{words_of(headline)}: mean, standard deviation, every seed", axis_label(headline, "test"))
    if beside:
        gain, cost = beside
        unit = "points over" if headline.is_share else "better than"
        dress(gain, "gain: mean, 95 % interval, every seed", f"{unit} the baseline on the same seed")
        dress(cost, "training, relative to the baseline", "times the baseline")
    for axes in (score, *beside):
        axes.grid(False, axis="y")
        for edge in edges[1:-1]:
            axes.axhline(edge, color="#d0d0d0", linewidth=0.6)
        # Room for words as wide as a third of the panel around the outermost mean.
        axes.margins(x=0.24)
        axes.tick_params(axis="y", length=0)
    for row, middle in zip(rows, middles, strict=True):
        _draw_score(score, row, headline, middle)
    if beside:
        _draw_gains(gain, rows, seeds, headline, middles)
        _draw_training(cost, rows, middles)
    score.set_yticks(middles, labels, fontsize=TEXT_SIZE, parse_math=False)
    for label, row in zip(score.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.label == best else "normal")
    score.set_ylim(edges[-1], 0)
    write_figure(figure, path)


def _draw_score(axes: Axes, row: ComparedRecipe, headline: Metric, middle: float) -> None:
    scores = [value for value in row.test_scores.values() if math.isfinite(value)]
    if not scores:
        _say(axes, middle, "failed" if row.failures else "no result")
        return
    drawn = [drawn_factor(headline) * score for score in scores]
    mean, deviation = mean_and_deviation(drawn)
    words = format_scores(headline, scores) + (f", {len(row.failures)} failed" if row.failures else "")
    _draw_spread(axes, mean, deviation, drawn, middle, words)


def _draw_gains(
    axes: Axes, rows: Sequence[ComparedRecipe], seeds: Sequence[int], headline: Metric, middles: Sequence[float]
) -> None:
    axes.axvline(0, color=FAINT, linewidth=1.0)
    for row, middle in zip(rows, middles, strict=True):
        _draw_gain(axes, row, rows[0], seeds, headline, middle)


def _draw_gain(
    axes: Axes,
    row: ComparedRecipe,
    baseline: ComparedRecipe,
    seeds: Sequence[int],
    headline: Metric,
    middle: float,
) -> None:
    gains = [value for value in paired_gains(row, baseline, headline).values() if math.isfinite(value)]
    if row is baseline:
        _say(axes, middle, "baseline")
    elif not gains:
        _say(axes, middle, "no seed that both have finished")
    else:
        drawn = [drawn_factor(headline) * gain for gain in gains]
        mean, half_width = mean_and_half_width(drawn)
        words = f"{format_gain(headline, gains)}{pairs_told(gains, seeds)}"
        _draw_spread(axes, mean, half_width, drawn, middle, words)


def _draw_spread(
    axes: Axes, mean: float, reach: float | None, values: Sequence[float], middle: float, words: str
) -> None:
    axes.errorbar(mean, middle - 0.02, xerr=reach, fmt="|", color=INK, markersize=13, capsize=4, linewidth=1.5)
    below = [middle + 0.17] * len(values)
    axes.plot(values, below, "o", color=STRONG, alpha=0.55, markeredgewidth=0, markersize=6)
    axes.annotate(
        words,
        (mean, middle - 0.02),
        xytext=(0, 10),
        textcoords="offset points",
        ha="center",
        fontsize=TEXT_SIZE,
        color=INK,
        parse_math=False,
        bbox=_BEHIND_WORDS,
    )


def _draw_training(axes: Axes, rows: Sequence[ComparedRecipe], middles: Sequence[float]) -> None:
    relative = [relative_costs(row, rows[0]) for row in rows]
    known = [name for name in COSTS if any(costs[name] is not None for costs in relative)]
    axes.axvline(1, color=FAINT, linewidth=1.0)
    for row, costs, middle in zip(rows, relative, middles, strict=True):
        _draw_costs(axes, {name: costs[name] for name in known}, middle, has_words=row is not rows[0])
    # Differences that nobody would see in a table fill no panel.
    least, most = axes.get_xlim()
    axes.set_xlim(min(least, 0.8), max(most, 1.2))
    _explain(axes, known)


def _draw_costs(axes: Axes, costs: Mapping[str, float | None], middle: float, has_words: bool) -> None:
    shades = colours(COSTS)
    for index, (name, ratio) in enumerate(costs.items()):
        place = middle + 0.2 * (index - (len(costs) - 1) / 2)
        if ratio is None:
            continue
        axes.plot([1, ratio], [place, place], color=shades[name], linewidth=1.6)
        axes.plot([ratio], [place], _MARKS[name], color=shades[name], markersize=6)
        if has_words:
            axes.annotate(
                format_ratio(ratio),
                (ratio, place),
                xytext=(7 if ratio >= 1 else -7, 0),
                textcoords="offset points",
                ha="left" if ratio >= 1 else "right",
                va="center",
                fontsize=TEXT_SIZE - 1,
                color=INK,
            )


def _explain(axes: Axes, known: Sequence[str]) -> None:
    """Name the marks below the panel, where nothing is drawn."""
    shades = colours(COSTS)
    handles = [axes.plot([], [], _MARKS[name], color=shades[name], markersize=6, label=name)[0] for name in known]
    axes.figure.legend(
        handles=handles, loc="outside lower right", ncols=max(1, len(known)), frameon=False, fontsize=TEXT_SIZE - 0.5
    )


def _say(axes: Axes, middle: float, words: str) -> None:
    axes.text(
        0.5,
        middle,
        words,
        transform=axes.get_yaxis_transform(),
        ha="center",
        va="center",
        fontsize=TEXT_SIZE,
        color=FAINT,
        bbox=_BEHIND_WORDS,
    )


def _wrapped(label: str) -> str:
    """Return a label in lines of at most so many characters, broken after punctuation where there is some."""
    parts = re.findall(r"[^:,]*[:,]|[^:,]+", label)
    for pieces in (r"[^=_./\s-]*[=_./\s-]|[^=_./\s-]+", f".{{1,{_LABEL_WIDTH}}}"):
        parts = [each for part in parts for each in ([part] if len(part) <= _LABEL_WIDTH else re.findall(pieces, part))]
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > _LABEL_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)

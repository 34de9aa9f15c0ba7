"""The panels in the picture of one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from engine.tracking.figures import ALARM, INK, TEXT_SIZE, byte_scale, dress
from engine.tracking.records import (
    ACCURACY_GAP,
    DISAGREEMENT,
    ENSEMBLE,
    IMAGES_PER_SECOND,
    KL_BETWEEN_PEERS,
    LEARNING_RATE,
    LOSS_PREFIX,
    LOSS_TOTAL,
    WAITING_SHARE,
)
from engine.tracking.scores import axis_label, best_first, drawn_factor, format_score, words_of
from engine.tracking.series import RunSeries, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from engine.tasks import Metric

_FEW_POINTS = 25
_LOGARITHMIC_FROM = 30.0  # Ratio of the largest to the smallest loss, or of one learner's rate to another's.
_FEWEST_BARS = 4
_MOST_LABELLED_BARS = 16
_MOST_FINAL_NUMBERS = 4
_FEW_COLOURS = 8
_BETWEEN_PEERS = (
    (KL_BETWEEN_PEERS, "KL between peers", "mean KL of all pairs (nats)", 1.0),
    (ACCURACY_GAP, "accuracy gap between peers", "best - worst (points)", 100.0),
    (DISAGREEMENT, "disagreement between peers", "share of images (%)", 100.0),
)
_RATES = (
    (LEARNING_RATE, "learning rate", "learning rate", 1.0),
    (IMAGES_PER_SECOND, "speed", "images/s", 1.0),
    (WAITING_SHARE, "time spent waiting for messages", "share of time (%)", 100.0),
)


@dataclass(frozen=True)
class Style:
    """How the lines of an evaluation split look; networks beside their ensemble are thinner."""

    thickness: float
    pattern: Literal["-", "--"]
    team_colour: str


EVALUATION_STYLES = {"validation": Style(1.6, "--", "#777777"), "test": Style(2.2, "-", INK)}


def panels(run: RunSeries) -> list[Callable[[Axes], None]]:
    """One drawing function for each panel that has something to show."""
    found: list[Callable[[Axes], None]] = []
    headline = run.headline
    splits = [split for split in EVALUATION_STYLES if run.series(headline.name, split)]
    if run.is_cohort:
        title = f"{' and '.join(splits)} {words_of(headline)}"
        unit, factor = axis_label(headline), drawn_factor(headline)
        found.append(partial(_draw_evaluation, run=run, name=headline.name, title=title, unit=unit, factor=factor))
        if run.series(headline.name):
            found.append(partial(_draw_training_score, run=run))
    elif splits or run.series(headline.name):
        found.append(partial(_draw_score, run=run))
    for name, title, unit, factor in _BETWEEN_PEERS:
        if any(run.series(name, split) for split in EVALUATION_STYLES):
            found.append(partial(_draw_evaluation, run=run, name=name, title=title, unit=unit, factor=factor))
    found += [partial(_draw_loss, run=run, name=name) for name in run.losses()]
    for name, title, unit, factor in _RATES:
        if run.series(name):
            found.append(partial(_draw_rate, run=run, name=name, title=title, unit=unit, factor=factor))
    if run.memory_peaks():
        found.append(partial(_draw_memory, run=run))
    return found


def _draw_score(axes: Axes, run: RunSeries) -> None:
    name, factor = run.headline.name, drawn_factor(run.headline)
    dress(axes, words_of(run.headline), "epoch", axis_label(run.headline))
    _training_lines(axes, run, name, factor, scale=0.75)
    _evaluation_lines(axes, run, name, factor)
    final = run.series(name)
    for split in EVALUATION_STYLES:
        final = [series for series in run.series(name, split) if series.last()] or final
    _annotate_final(axes, run.headline, final)


def _draw_training_score(axes: Axes, run: RunSeries) -> None:
    dress(axes, f"training {words_of(run.headline)}", "epoch", axis_label(run.headline))
    _training_lines(axes, run, run.headline.name, drawn_factor(run.headline))


def _draw_evaluation(axes: Axes, run: RunSeries, name: str, title: str, unit: str, factor: float) -> None:
    dress(axes, title, "epoch", unit)
    _evaluation_lines(axes, run, name, factor)
    if name != run.headline.name:
        axes.set_ylim(bottom=0)


def _draw_loss(axes: Axes, run: RunSeries, name: str) -> None:
    term = name[len(LOSS_PREFIX) :].replace("_", " ")
    dress(axes, "total loss" if name == LOSS_TOTAL else f"loss: {term}", "epoch", "training loss")
    drawn = _training_lines(axes, run, name)
    if not drawn:
        axes.set_yticks([])
    elif min(drawn) > 0 and max(drawn) / min(drawn) > _LOGARITHMIC_FROM:
        axes.set_yscale("log")
    broken = [
        epoch
        for series in run.series(name)
        for epoch, value in zip(series.epochs, series.values, strict=True)
        if not math.isfinite(value)
    ]
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


def _draw_rate(axes: Axes, run: RunSeries, name: str, title: str, unit: str, factor: float) -> None:
    dress(axes, title, "epoch", unit)
    all_series = run.series(name)
    if len(all_series) > 1 and all(
        (series.epochs, series.values) == (all_series[0].epochs, all_series[0].values) for series in all_series
    ):
        _line(axes, *all_series[0].thinned(), INK, factor, linewidth=_width(run))
        axes.set_title(f"{title} (the same for all)", fontsize=TEXT_SIZE + 1.5, color=INK, loc="left")
    else:
        _training_lines(axes, run, name, factor)
    largest = [max(filter(math.isfinite, series.values), default=0.0) for series in all_series]
    if name == LEARNING_RATE and min(largest) > 0 and max(largest) / min(largest) > _LOGARITHMIC_FROM:
        # Peers with optimizers of their own: on a common scale the smaller rate would lie on the axis.
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _draw_memory(axes: Axes, run: RunSeries) -> None:
    peaks = run.memory_peaks()
    scale, unit = byte_scale(max(peaks.values()))
    dress(axes, "peak memory", f"peak memory ({unit})")
    places, sizes = range(len(peaks)), [peak / scale for peak in peaks.values()]
    bars = axes.barh(places, sizes, color=[run.colours[learner] for learner in peaks], height=0.75)
    # Words of all bars would lie on one another where there are many.
    every = math.ceil(len(peaks) / _MOST_LABELLED_BARS)
    sizes_in_words = [f"{size:.2f}" if place % every == 0 else "" for place, size in enumerate(sizes)]
    axes.bar_label(bars, sizes_in_words, padding=3, fontsize=TEXT_SIZE - 1)
    names = [learner or "whole team" for learner in peaks]
    axes.set_yticks(places[::every], names[::every], fontsize=TEXT_SIZE - 0.5)
    # Room for a few more, so that a single learner's bar is still a bar.
    axes.set_ylim(max(len(peaks), _FEWEST_BARS) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.margins(x=0.15)


def _training_lines(axes: Axes, run: RunSeries, name: str, factor: float = 1.0, scale: float = 1.0) -> list[float]:
    """Draw one line for each learner; returns the finite values in them."""
    drawn = []
    for series in run.series(name):
        epochs, values = series.thinned()
        _line(axes, epochs, values, run.colours[series.learner], factor, linewidth=scale * _width(run), alpha=0.9)
        drawn += [value for value in values if math.isfinite(value)]
    return drawn


def _evaluation_lines(axes: Axes, run: RunSeries, name: str, factor: float) -> None:
    """Draw one line for each network and split; those of networks are thin on that of their ensemble.

    So one that is alone in its cohort, and predicts what the ensemble does, is seen, too.
    """
    for split, style in EVALUATION_STYLES.items():
        measured = run.series(name, split)
        together = any(series.learner in (ENSEMBLE, None) for series in measured)
        for series in sorted(measured, key=lambda series: series.learner not in (ENSEMBLE, None)):
            is_team = series.learner in (ENSEMBLE, None)
            thickness = style.thickness if is_team or not together else 0.65 * style.thickness
            colour = style.team_colour if is_team else run.colours[series.learner]
            _line(axes, series.epochs, series.values, colour, factor, linewidth=thickness, linestyle=style.pattern)


def _width(run: RunSeries) -> float:
    return 1.2 if len(run.colours) <= _FEW_COLOURS else 0.9


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


def _annotate_final(axes: Axes, headline: Metric, final: Sequence[Series]) -> None:
    """Write the team's final score, or those of its learners, next to the end of the best line."""
    ends = {series.learner: end for series in final if (end := series.last()) is not None}
    if not ends:
        return
    in_order = best_first(headline, {learner: value for learner, (_, value) in ends.items()})
    words = {learner: format_score(headline, value) for learner, (_, value) in ends.items()}
    if None in ends:
        lines, marked = [words[None]], ends[None]
    else:
        lines, marked = [f"{learner} {words[learner]}" for learner in in_order], ends[in_order[0]]
    if len(lines) > _MOST_FINAL_NUMBERS:
        lines = [*lines[: _MOST_FINAL_NUMBERS - 1], f"and {len(lines) - _MOST_FINAL_NUMBERS + 1} more"]
    axes.annotate(
        "\n".join([final[0].split, *lines]),
        (marked[0], drawn_factor(headline) * marked[1]),
        xytext=(5, 6),
        textcoords="offset points",
        va="top",
        fontsize=TEXT_SIZE,
        fontweight="bold",
        color=INK,
        annotation_clip=False,
        parse_math=False,
    )

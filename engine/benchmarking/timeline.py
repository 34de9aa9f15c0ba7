"""Timelines: when each learner was busy, and when it waited."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.atomic import replace_file
from engine.tracking.figures import FAINT, INK, TEXT_SIZE, colours, dress, open_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LANE_INCHES = 0.34
_PANEL_INCHES = 0.95
_SHOWN_STEPS = 6


class Call(NamedTuple):
    """One call of a learner."""

    phase: str
    step: int
    """Over the whole run, from 0."""
    start: float
    """Seconds since 1970."""
    end: float
    """Seconds since 1970."""


Calls = dict[str, list[Call]]
"""The calls of each learner, in order."""


def calls_of(answers: Mapping[str, Mapping[str, Any]], steps_per_epoch: int) -> Calls:
    """Return the calls that learners told of.

    Args:
        answers: what each learner answered to the question ``timeline``.
        steps_per_epoch: optimizer steps in an epoch.
    """
    return {
        learner: [
            Call(phase, epoch * steps_per_epoch + step, start, end)
            for phase, epoch, step, start, end in answer["calls"]
        ]
        for learner, answer in answers.items()
    }


def ends_of_steps(calls: Calls) -> dict[int, float]:
    """Return when the last call of each step ended, of all learners."""
    ends: dict[int, float] = {}
    for own in calls.values():
        for call in own:
            ends[call.step] = max(ends.get(call.step, call.end), call.end)
    return ends


def busy_seconds(calls: Sequence[Call]) -> float:
    """Return the time inside of calls."""
    return sum(call.end - call.start for call in calls)


def write_trace(cases: Mapping[str, Calls], path: Path) -> None:
    """Write a Chrome trace, which Perfetto and chrome://tracing show: a process for each case, a line for each learner.

    Every case begins at 0, so that they can be compared; times are in microseconds.
    """
    events: list[dict[str, Any]] = []
    for process, (case, calls) in enumerate(cases.items(), start=1):
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": case}})
        origin = _first(calls)
        for line, (learner, own) in enumerate(calls.items(), start=1):
            place = {"pid": process, "tid": line}
            events.append({"ph": "M", "name": "thread_name", **place, "args": {"name": learner}})
            events += [
                {
                    "ph": "X",
                    "name": call.phase,
                    **place,
                    "ts": round(1e6 * (call.start - origin), 1),
                    "dur": round(1e6 * (call.end - call.start), 1),
                    "args": {"step": call.step},
                }
                for call in own
            ]
    replace_file(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode())


def plot_timeline(cases: Mapping[str, Calls], path: Path, title: str) -> None:
    """Draw a panel for each case and a lane for each learner into a PNG file: coloured is busy, white is waiting."""
    shown = {case: {name: own for name, own in calls.items() if own} for case, calls in cases.items()}
    heights = [_PANEL_INCHES + _LANE_INCHES * len(calls) for calls in shown.values()]
    figure = open_figure(12.0, 0.8 + sum(heights), title)
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    phases = list(dict.fromkeys(call.phase for calls in shown.values() for own in calls.values() for call in own))
    shades = colours(phases)
    for axes, (case, calls) in zip(panels, shown.items(), strict=True):
        _draw(axes, case, calls, shades)
    handles = [panels[0].barh([0], [0], color=shades[phase], label=phase) for phase in phases]
    figure.legend(
        handles=handles, loc="outside lower right", ncols=len(phases), frameon=False, fontsize=TEXT_SIZE - 0.5
    )
    write_figure(figure, path)


def _draw(axes: Axes, case: str, calls: Calls, shades: Mapping[str, str]) -> None:
    steps = sorted({call.step for own in calls.values() for call in own})[-_SHOWN_STEPS:]
    kept = {learner: [call for call in own if call.step in steps] for learner, own in calls.items()}
    dress(axes, case, "milliseconds; the numbers are steps")
    axes.grid(False, axis="y")
    origin = _first(kept)
    for lane, own in enumerate(kept.values()):
        starts = [1e3 * (call.start - origin) for call in own]
        widths = [1e3 * (call.end - call.start) for call in own]
        axes.barh(
            [lane] * len(own),
            widths,
            left=starts,
            height=0.72,
            color=[shades[call.phase] for call in own],
            edgecolor="white",
            linewidth=0.4,
        )
        for step in steps:
            mine = [index for index, call in enumerate(own) if call.step == step]
            longest = max(mine, key=lambda index: widths[index], default=None)
            if longest is not None:
                middle = starts[longest] + widths[longest] / 2
                axes.text(middle, lane, str(step), ha="center", va="center", fontsize=TEXT_SIZE - 1.5, color="white")
    axes.set_yticks(range(len(kept)), list(kept), fontsize=TEXT_SIZE - 0.5, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_color(FAINT)
    axes.set_ylim(len(kept) - 0.5, -0.5)
    axes.margins(x=0.005)


def _first(calls: Calls) -> float:
    return min((call.start for own in calls.values() for call in own), default=0.0)

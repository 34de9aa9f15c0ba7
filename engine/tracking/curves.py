"""The picture of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.tracking.figures import FAINT, INK, TEXT_SIZE, import_matplotlib, open_figure, write_figure
from engine.tracking.panels import EVALUATION_STYLES, panels
from engine.tracking.records import ENSEMBLE, TRAIN, Record
from engine.tracking.scores import format_score
from engine.tracking.series import RunSeries

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

    from engine.tasks import Metric

# Leaves the fewest gaps.
_MOST_PANELS_IN_A_ROW = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4, 9: 3, 13: 5, 14: 5, 15: 5}
_LEGEND_ROW = 0.19  # Inches, as are those below.
_LEGEND_LETTER = 0.075
_LEGEND_MARGIN = 0.65


def plot_curves(records: Sequence[Record], path: Path, title: str, headline: Metric) -> None:
    """Draw the course of one run into a PNG file: headline score, each loss term, rates, and memory, by learner.

    Of a cohort it shows each network's score beside that of the ensemble, in ink, and how far the peers are from
    one another. A network that left its cohort is drawn as far as it was trained.
    """
    run = RunSeries(records, headline)
    drawings = panels(run)
    across = _MOST_PANELS_IN_A_ROW.get(len(drawings), 4)
    down = math.ceil(len(drawings) / across)
    height = 2.75 * max(1, down) + 0.6
    keys = _keys(run)
    columns = math.ceil(len(keys) * _LEGEND_ROW / (height - 0.3)) or 1
    longest = max((len(str(key.get_label())) for key in keys), default=0)
    figure = open_figure(3.9 * across + columns * (_LEGEND_MARGIN + _LEGEND_LETTER * longest), height, title)
    if not drawings:
        figure.text(0.5, 0.45, "no records yet", ha="center", fontsize=TEXT_SIZE + 4, color=FAINT)
    for position, draw in enumerate(drawings, start=1):
        draw(figure.add_subplot(down, across, position))
    if keys:
        figure.legend(
            handles=keys, loc="outside right upper", ncols=columns, frameon=False, fontsize=TEXT_SIZE, labelcolor=INK
        )
    write_figure(figure, path)


def _keys(run: RunSeries) -> list[Line2D]:
    """What the legend explains: the colour of each learner and network, then the line of each split."""
    import_matplotlib()
    from matplotlib.lines import Line2D

    keys, final = [], _final_scores(run)
    for network, learners in run.networks.items():
        # Of a peer that is cut the colour of the whole is explained, too.
        names = learners if learners == [network] or network not in final else [network, *learners]
        keys += [
            Line2D([], [], color=run.colours[name], linewidth=3, label=name + final.get(name, "")) for name in names
        ]
    if ENSEMBLE in final:
        keys.append(Line2D([], [], color=INK, linewidth=3, label=ENSEMBLE + final[ENSEMBLE]))
    if any(run.measured(name, split, None) for split in (TRAIN, *EVALUATION_STYLES) for name in run.names(split)):
        keys.append(Line2D([], [], color=INK, linewidth=3, label="whole team"))
    if run.series(run.headline.name) and not run.is_cohort:
        keys.append(Line2D([], [], color=FAINT, linewidth=0.9, label=TRAIN))
    for split, style in EVALUATION_STYLES.items():
        if run.series(run.headline.name, split):
            keys.append(Line2D([], [], color=FAINT, linewidth=style.thickness, linestyle=style.pattern, label=split))
    return keys


def _final_scores(run: RunSeries) -> dict[str, str]:
    """What the legend says of each network of a cohort, and of the ensemble: its last score, or that it left."""
    found: dict[str, str] = {}
    for split in EVALUATION_STYLES:
        for series in run.series(run.headline.name, split):
            if series.learner is not None:
                end = series.last()
                found[series.learner] = (
                    f" ({split} {format_score(run.headline, end[1])})" if end else f" ({split} not finite)"
                )
    return found | dict.fromkeys(run.left, " (left)")

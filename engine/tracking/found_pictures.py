"""A picture of some queries and the first that each finds, right ones and wrong ones framed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.tasks import Ranking
from engine.tracking.figures import ALARM, FAINT, STRONG, TEXT_SIZE, open_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 10
"""Pictures of each ranking."""

QUERIES = 6
"""Queries that are shown."""


def spread(queries: np.ndarray, count: int = QUERIES) -> np.ndarray:
    """Return some of the positions int64 [Q], evenly spread over all of them."""
    places = np.unique(np.linspace(0, len(queries) - 1, min(count, len(queries))).round().astype(int))
    some: np.ndarray = queries[places]
    return some


def draw_found(path: Path, title: str, rankings: Sequence[Ranking], images: Mapping[int, np.ndarray]) -> None:
    """Write a PNG with a row for each ranking: the query, then what it finds, the nearest first.

    Args:
        path: the file.
        title: above it.
        rankings: one or more.
        images: uint8 [C, H, W] by position, of all queries and of the first `SHOWN` that each finds.
    """
    height, width = next(iter(images.values())).shape[1:]
    across = 0.8 * (SHOWN + 1)
    figure = open_figure(across, 0.6 + len(rankings) * (0.2 + 0.8 * height / width), title)
    panels = figure.subplots(len(rankings), SHOWN + 1, squeeze=False)
    for row, ranking in zip(panels, rankings, strict=True):
        _show(row[0], images[ranking.query], FAINT, "query")
        for place, axes in enumerate(row[1:]):
            if place >= len(ranking.gallery):
                axes.set_axis_off()
                continue
            right = bool(ranking.right[place])
            words = f"{place + 1} {'right' if right else 'wrong'}"
            _show(axes, images[int(ranking.gallery[place])], STRONG if right else ALARM, words)
    write_figure(figure, path)


def _show(axes: Axes, image: np.ndarray, colour: str, words: str) -> None:
    shown = image.transpose(1, 2, 0)
    axes.imshow(shown if shown.shape[2] == 3 else shown[:, :, 0], cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(words, fontsize=TEXT_SIZE - 3, color=colour, pad=2)
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2.0)

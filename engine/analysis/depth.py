"""Curves over the depth of a network: what they hold, and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.analysis.analysis import Row
from engine.analysis.drawing import legend, styles
from engine.tracking.figures import TEXT_SIZE, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Curve:
    """What is drawn over the blocks of one network.

    Attributes:
        blocks: their names.
        depths: their places in the network, counted from 0.
        values: one for each.
        deviations: standard deviations of the values; empty where there are none.
    """

    blocks: Sequence[str]
    depths: Sequence[int]
    values: Sequence[float]
    deviations: Sequence[float] = ()

    @classmethod
    def of(cls, rows: Sequence[Row], value: str, deviation: str | None = None) -> Curve:
        """Return the curve of a column, and of the one with its deviation, from rows with ``block`` and ``depth``."""
        return cls(
            [str(row["block"]) for row in rows],
            [int(row["depth"]) for row in rows],
            [float(row[value]) for row in rows],
            [] if deviation is None else [float(row[deviation]) for row in rows],
        )


def draw_by_depth(axes: Axes, curves: Mapping[str, Curve], up: str, title: str = "") -> None:
    """Draw curves over depth; blocks have their names below where all networks have the same."""
    drawn = styles(list(curves))
    names: dict[int, set[str]] = {}
    for label, curve in curves.items():
        style = drawn[label]
        if np.isfinite(curve.deviations).any():
            axes.errorbar(
                curve.depths, curve.values, curve.deviations, label=label, capsize=2, elinewidth=0.8, **style.line()
            )
        else:
            axes.plot(curve.depths, curve.values, label=label, **style.line())
        for depth, block in zip(curve.depths, curve.blocks, strict=True):
            names.setdefault(depth, set()).add(block)
    dress(axes, title, "block, by depth", up)
    if all(len(each) == 1 for each in names.values()):
        ticks = sorted(names)
        axes.set_xticks(ticks, [next(iter(names[depth])) for depth in ticks], rotation=45, ha="right", parse_math=False)
        axes.tick_params(axis="x", labelsize=TEXT_SIZE - 2)
    legend(axes)

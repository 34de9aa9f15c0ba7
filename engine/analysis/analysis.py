"""The interface of an analysis: which parts of a network it measures, what follows from them, and how it is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from engine.analysis.opened import OpenedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arrays = dict[str, np.ndarray]
"""What is measured of one part, by name."""

Row = dict[str, str | int | float]
"""One line of a table, by the names of its columns."""


@dataclass(frozen=True)
class Measured:
    """What was measured of one part of a network.

    Attributes:
        run: the run's label, unique among the runs that are analysed together.
        network: its name in the run, such as ``network`` or ``peer1``.
        name: both, as a table says them.
        label: the same, as a picture has room for it; unique, too.
        part: of the network, such as the name of a block; empty where the network is measured as a whole.
        arrays: what `Analysis.measure` returned.
        class_names: of the run's classes.
    """

    run: str
    network: str
    name: str
    label: str
    part: str
    arrays: Arrays
    class_names: tuple[str, ...] = ()


class Analysis(ABC):
    """One way to look at trained networks; its file is named in `engine.analysis.registry`.

    What takes time is in `measure`, which is called once for each part, in this process or as a task on Ray, and whose
    arrays are kept on disk; a table and a picture follow from them.

    Attributes:
        name: the word behind ``--of``.
        title: above its picture.
        version: of what `measure` gives: raised where its arrays or numbers change, so that none kept before is taken.
        columns: what each column of the table means, with its unit, besides those that say whose row it is.
        reading: how the picture is read, where its axes do not say it; below the picture, behind the caption.
        looks_at_images: whether it looks at the images that were drawn, which the caption names then.
        trains_probes: whether `Settings.probe_epochs` decides what it finds.
        of_pixels: whether it has a meaning also where each pixel has a class; see `OpenedRun.predictions`.
        compares: whether it compares parts with one another, so that one alone has no table.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[int] = 1
    columns: ClassVar[Mapping[str, str]]
    reading: ClassVar[str] = ""
    looks_at_images: ClassVar[bool] = True
    trains_probes: ClassVar[bool] = False
    of_pixels: ClassVar[bool] = False
    compares: ClassVar[bool] = False

    def refusal(self, opened: OpenedRun) -> str | None:
        """Return why the analysis has no meaning for a run, and what to do; None where it has one.

        What has no default is that of an analysis of class probabilities.
        """
        task = opened.run.recipe.task
        if opened.run.facts.label_maps and self.of_pixels:
            return None
        if opened.task.num_classes is None:
            return f"task.kind={task.kind} gives no class probabilities for an image"
        if opened.task.scored != "output" and opened.settings.split != "train":
            return f"task.kind={task.kind} predicts classes of training images only; give --split train"
        return None

    def refusal_together(self, runs: Sequence[OpenedRun]) -> str | None:
        """Return why the analysis has no meaning for these runs together, and what to do; None where it has one."""
        return None

    def parts(self, opened: OpenedRun, network: str) -> tuple[str, ...]:
        """Return the parts of a network that are measured one by one, in order."""
        return ("",)

    @abstractmethod
    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return what is known of one part of a network; the same arrays, bit for bit, whenever it is called."""

    @abstractmethod
    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return the table: rows with the same columns."""

    def remark(self, found: Sequence[Measured]) -> str:
        """Return what the caption says besides of how this was measured; empty where there is nothing to be said."""
        return ""

    @abstractmethod
    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Return the picture of what was measured; it must be readable in black and white."""


def owner(measured: Measured) -> Row:
    """Return the columns that say whose row it is."""
    return {"run": measured.run, "network": measured.network}

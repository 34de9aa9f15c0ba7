"""Agreement of the heads of a network with branches on what to change in the features that they share."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import engine
from engine.tracking.figures import open_figure, write_figure
from experiments.studies.study import Results
from experiments.studies.tables import markdown

_COSINE = "branches/gradient_cosine/"
# The companions of DSN leave where the branches of the others do.
_PLACES = {"after_layer2_2": "near_top", "after_layer1_2": "deep"}
_ORDER = ("main", "near_top", "deep")

Cosines = Mapping[str, Mapping[int, float]]
"""By what was compared and by epoch."""


def parts(results: Results, figures: Path) -> dict[str, str]:
    """Return the table of cosines, and draw their curves."""
    found = {arm: cosines([result.run_dir for result in runs.values()]) for arm, runs in results.items()}
    measured = {arm: curves for arm, curves in found.items() if curves}
    plot_cosines(measured, figures / "gradient_agreement.png")
    return {"cosines": cosine_table(measured)}


def cosines(folders: Sequence[Path]) -> Cosines:
    """Return the gradients' cosines of some runs, means over all measurements of an epoch; none if none was made."""
    values: dict[str, dict[int, list[float]]] = {}
    for folder in folders:
        for record in engine.load(folder).metrics():
            if record.name.startswith(_COSINE):
                name = _named_by_place(record.name.removeprefix(_COSINE))
                values.setdefault(name, {}).setdefault(record.epoch, []).append(record.value)
    return {
        name: {epoch: statistics.fmean(found) for epoch, found in sorted(epochs.items())}
        for name, epochs in values.items()
    }


def _named_by_place(name: str) -> str:
    kind, _, pair = name.partition("/")
    heads = sorted((_PLACES.get(head, head) for head in pair.split("~")), key=_ORDER.index)
    return f"{kind}/{'~'.join(heads)}"


def cosine_table(found: Mapping[str, Cosines]) -> str:
    """Return the cosines of each arm as Markdown, means over all epochs."""
    names = list(dict.fromkeys(name for arm in reversed(list(found.values())) for name in arm))
    lines = [
        [name, *(f"{statistics.fmean(arm[name].values()):.3f}" if name in arm else "" for arm in found.values())]
        for name in names
    ]
    return markdown(["gradients", *found], lines)


def plot_cosines(found: Mapping[str, Cosines], path: Path) -> None:
    """Draw how far the gradients of the label losses agree over the epochs, a panel for each pair of heads."""
    pairs = sorted({name for arm in found.values() for name in arm if name.startswith("label/")})
    title = "cosine of the gradients of two heads' label losses in the features that they share"
    figure = open_figure(3.6 * len(pairs), 3.4, title)
    for axes, pair in zip(figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0], pairs, strict=True):
        for place, (arm, measured) in enumerate(found.items()):
            if pair in measured:
                axes.plot(*zip(*measured[pair].items(), strict=True), marker="o", color=f"C{place}", label=arm)
        axes.set_title(pair.removeprefix("label/").replace("~", " and "), loc="left", fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(True, color="#e6e6e6")
        axes.legend(fontsize=8, frameon=False)
    write_figure(figure, path)

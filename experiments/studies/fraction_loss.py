"""Fraction losses of mixed knowledge fraction's rules: what each split is worth (paper, figure 5)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import engine
from engine.recipes import Fraction
from engine.tracking.figures import open_figure, write_figure
from experiments.studies.study import Results
from experiments.studies.tables import markdown

MEASURED = "MKF, exact (OPT1)"
"""The arm whose runs have measured all rules on the knowledge that they have."""

Curves = Mapping[int, Mapping[str, float]]


def parts(results: Results, figures: Path) -> dict[str, str]:
    """Return the table of fraction losses, and draw their curves."""
    curves = fraction_curves([result.run_dir for result in results[MEASURED].values()])
    plot_fractions(curves, figures / "fractions.png")
    return {"fractions": fraction_table(curves)}


def fraction_curves(folders: Sequence[Path]) -> Curves:
    """Return the fraction losses of some runs by epoch and name, means over all measurements of the epoch."""
    values: dict[int, dict[str, list[float]]] = {}
    for folder in folders:
        for record in engine.load(folder).metrics():
            if record.name.startswith("fraction/"):
                name = record.name.removeprefix("fraction/")
                values.setdefault(record.epoch, {}).setdefault(name, []).append(record.value)
    return {
        epoch: {name: statistics.fmean(found) for name, found in names.items()}
        for epoch, names in sorted(values.items())
    }


def fraction_table(curves: Curves) -> str:
    """Return the fraction losses times 1000 as Markdown, means over the second half of the epochs."""
    late = [found for epoch, found in curves.items() if epoch > max(curves) // 2]
    lines = []
    for rule in ("random", *get_args(Fraction)):
        means = [
            f"{1000 * statistics.fmean(found[rule + part] for found in late):.2f}" if rule + part in late[0] else ""
            for part in ("", "/bases", "/model")
        ]
        lines.append([rule, *means])
    return markdown(["rule", "fraction loss", "bases alone", "mixing model alone"], lines)


def plot_fractions(curves: Curves, path: Path) -> None:
    """Draw every rule's fraction loss over the epochs, then the same with only one of its two causes left."""
    figure = open_figure(13, 3.9, "")
    titles = (("", "fraction loss"), ("/bases", "of wrong bases alone"), ("/model", "of the mixing model alone"))
    columns = figure.subplots(1, 3, sharey=True)
    for axes, (suffix, title) in zip(columns, titles, strict=True):
        for place, rule in enumerate(("random", *get_args(Fraction))):
            points = [(epoch, found[rule + suffix]) for epoch, found in curves.items() if rule + suffix in found]
            style = "--" if rule == "random" else "-"
            if points:
                axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, color=f"C{place}", label=rule)
        axes.set_yscale("log")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(True, color="#e6e6e6")
    figure.legend(handles=columns[0].get_lines(), loc="outside right center", fontsize=9, frameon=False)
    write_figure(figure, path)

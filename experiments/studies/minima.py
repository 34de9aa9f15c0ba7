"""Minima of peers that teach one another: less sure of the training images, and flatter, or not.

The paper's explanation of its gains (Zhang et al. 2018, 4.8 and figure 4): mutual learning keeps the posterior of the
training images wide, and ends where noise on the weights costs less.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import engine
from engine.analysis import Row, Settings, analyse
from engine.tracking.intervals import mean_and_half_width
from experiments.studies.study import Results
from experiments.studies.tables import markdown, verdict

ALONE, TOGETHER = "independent peers", "DML"
# Noise that costs something, but leaves more than guesses.
_NOISES = {"absolute": 0.05, "filter_normalised": 0.5}
_IMAGES = 90
EXPECTED = {
    "entropy of the posterior (nats)": True,
    f"loss with noise of {_NOISES['absolute']} on the weights (nats)": False,
    f"loss with noise of {_NOISES['filter_normalised']} of each filter's length (nats)": False,
    "largest eigenvalue of the Hessian": False,
}
"""What is measured on the training images, and whether the paper says that it is higher with mutual learning."""


def parts(results: Results, figures: Path) -> dict[str, str]:
    """Return the table of entropies and flatness of the arms with and without mutual learning; there is no picture."""
    measured = {arm: {seed: _of_run(result) for seed, result in results[arm].items()} for arm in (ALONE, TOGETHER)}
    seeds = len({seed for runs in results.values() for seed in runs})
    rates = {arm: _rate_of(results[arm]) for arm in measured}
    return {"minima": minima_table(measured, seeds, rates)}


def minima_table(
    measured: Mapping[str, Mapping[int, Mapping[str, float]]], wanted: int, rates: Mapping[str, float]
) -> str:
    """Return a line for each number: its mean by arm, the difference over the same seeds with its 95 % interval.

    Args:
        measured: by arm, seed and what was measured.
        wanted: how many seeds there should be; of fewer there is no verdict.
        rates: learning rates by arm. They flatten minima by themselves, so where arms differ in them the table says so.
    """
    seeds = [seed for seed in measured[ALONE] if seed in measured[TOGETHER]]
    lines = []
    for name, is_higher in EXPECTED.items():
        alone, together = ([measured[arm][seed][name] for seed in seeds] for arm in (ALONE, TOGETHER))
        differences = [ours - theirs for ours, theirs in zip(together, alone, strict=True)]
        expected = differences if is_higher else [-each for each in differences]
        means = [f"{statistics.fmean(each):.4g}" if each else "-" for each in (alone, together)]
        words = f"{'higher' if is_higher else 'lower'}: {verdict(expected, wanted)}"
        lines.append([name, *means, _interval(differences), str(len(seeds)), words])
    same = len(set(rates.values())) == 1
    arms = [arm if same else f"{arm}, rate {rates[arm]:g}" for arm in (ALONE, TOGETHER)]
    return markdown(["on the training images", *arms, "difference", "seeds", "the paper's sign"], lines)


def _rate_of(runs: Mapping[int, engine.Result]) -> float:
    return engine.load(next(iter(runs.values())).run_dir).recipe.optimizer.learning_rate


def _of_run(result: engine.Result) -> dict[str, float]:
    """Return what is measured of a run, means over its networks."""
    findings = analyse([result.run_dir], ["posterior", "flatness"], Settings("train", _IMAGES, 0))
    rows = {finding.analysis: finding.rows for finding in findings}
    entropy, curvature = _mean(rows["posterior"], "entropy"), _mean(rows["flatness"], "largest_eigenvalue")
    noisy = [
        _mean([row for row in rows["flatness"] if (row["noise"], row["deviation"]) == noise], "loss")
        for noise in _NOISES.items()
    ]
    return dict(zip(EXPECTED, (entropy, *noisy, curvature), strict=True))


def _mean(rows: Sequence[Row], column: str) -> float:
    return statistics.fmean(float(row[column]) for row in rows)


def _interval(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean, half_width = mean_and_half_width(values)
    if half_width is None:
        return f"{mean:+.3g}"
    return f"{mean:+.3g} [{mean - half_width:+.3g}, {mean + half_width:+.3g}]"

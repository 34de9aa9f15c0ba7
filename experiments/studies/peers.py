"""The gains of the two peers of a cohort, and what they are worth together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

import engine
from engine.tasks import ACCURACY
from engine.tracking import format_scores
from engine.tracking.figures import open_figure, write_figure
from experiments.studies.study import Results, scores_of
from experiments.studies.tables import markdown

FIGURE = "mutual_learning_small_budget.png"
_PEERS = ("peer0", "peer1")


def parts(results: Results, figures: Path) -> dict[str, str]:
    """Return the table of peers and ensembles, and draw each peer's gain over the same peer of the first arm."""
    baseline, *others = results
    gains = {arm: paired_gains(results[arm], results[baseline]) for arm in others}
    plot_gains({arm: found for arm, found in gains.items() if found}, baseline, figures / FIGURE)
    seeds = {seed for runs in results.values() for seed in runs}
    lines = []
    for arm, runs in results.items():
        peers = [score for peer in _PEERS for score in scores_of(runs, f"{peer}/test/accuracy")]
        gain = format_scores(ACCURACY, gains[arm]).removesuffix(" %") if arm in gains else ""
        pairs = len(gains.get(arm, ())) // len(_PEERS)
        if arm in gains and pairs < len(seeds):
            gain += f", {pairs} of {len(seeds)} seeds"
        ensemble = format_scores(ACCURACY, scores_of(runs, "ensemble/test/accuracy"))
        kl = statistics.fmean(scores_of(runs, "ensemble/test/kl_between_peers"))
        disagreement = statistics.fmean(scores_of(runs, "ensemble/test/disagreement"))
        lines.append([arm, format_scores(ACCURACY, peers), gain, ensemble, f"{kl:.3f}", f"{disagreement:.0%}"])
    return {"peers": markdown(["arm", "peers", "gain", "ensemble", "KL between peers", "disagreement"], lines)}


def paired_gains(runs: Mapping[int, engine.Result], baseline: Mapping[int, engine.Result]) -> list[float]:
    """Return each peer's gain over the same peer of the baseline with the same seed, for the seeds that both have."""
    both = [seed for seed in runs if seed in baseline]
    names = [f"{peer}/test/accuracy" for peer in _PEERS]
    return [runs[seed].metrics[name] - baseline[seed].metrics[name] for name in names for seed in both]


def plot_gains(gains: Mapping[str, list[float]], baseline: str, path: Path) -> None:
    """Draw the gain of each peer of each seed over the same peer of the baseline, and their mean."""
    figure = open_figure(6, 3.4, "dots: peers of all seeds; bar: their mean")
    axes = figure.add_subplot()
    for place, values in enumerate(gains.values()):
        axes.plot([100 * value for value in values], [place] * len(values), "o", color=f"C{place}", alpha=0.6)
        axes.plot([100 * statistics.fmean(values)], [place], "|", color="black", markersize=28, markeredgewidth=2)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(gains)), list(gains))
    axes.set_ylim(-0.6, len(gains) - 0.4)
    axes.set_xlabel(f"gain in test accuracy over {baseline} (points)")
    axes.grid(True, axis="x", color="#e6e6e6")
    write_figure(figure, path)

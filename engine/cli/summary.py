"""Summary of a training for people."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.outcome import aligned
from engine.tracking import ENSEMBLE, format_bytes, format_seconds
from engine.tracking.scores import score_in_words

if TYPE_CHECKING:
    from engine.tasks import Metric
    from engine.training import Fault, Result

_MOST_LEARNERS = 8
_BESIDE_HEADLINE = "top5_accuracy"
_BETWEEN_PEERS_IN_SUMMARY = ("accuracy_gap", "kl_between_peers")


def summary_lines(result: Result, headline: Metric) -> list[str]:
    """Return the result in a few aligned lines; of a cohort one for each network, with its headline score."""
    shown = _from_here(result.run_dir)
    folder = shlex.quote(str(shown))
    rows: list[tuple[str, str]] = [(result.status, f"{result.epochs:,} epochs, {result.steps:,} steps")]
    rows += _scores(result.metrics, headline)
    rows += _best(result, headline)
    rows += diverged_rows(result.diverged)
    if result.images_per_second is not None:
        rows.append(("images/s", f"{result.images_per_second:,.0f}"))
    rows += _memory(result.peak_memory_bytes)
    rows += [
        *(("recovered", _in_words(fault)) for fault in result.faults),
        ("time", format_seconds(result.seconds)),
        ("run folder", folder),
        ("curves", shlex.quote(str(shown / "curves.png"))),
        ("TensorBoard", f"tensorboard --logdir {folder}"),
        *(("warning", text) for text in result.warnings),
    ]
    return aligned(rows, indent="")


def _in_words(fault: Fault) -> str:
    lost = f"{fault.repeated_steps:,} steps repeated, {format_seconds(fault.seconds_lost)} lost"
    return f"{fault.cause} (after step {fault.step:,}; {lost})"


def _from_here(path: Path) -> Path:
    """Return a path below the current folder as it is written there, any other as it is."""
    with contextlib.suppress(OSError, ValueError):
        return path.relative_to(Path.cwd())
    return path


def scores_of(metrics: Mapping[str, float]) -> dict[str, dict[str | None, dict[str, float]]]:
    """Return the scores by split, network and name; the only network of a team is None, the ensemble comes last.

    Args:
        metrics: values by names such as ``test/accuracy`` and ``peer0/test/accuracy``.
    """
    found: dict[str, dict[str | None, dict[str, float]]] = {}
    for full_name, value in metrics.items():
        owner, split, name = f"/{full_name}".rsplit("/", 2)
        found.setdefault(split, {}).setdefault(owner.strip("/") or None, {})[name] = value
    return {
        split: dict(sorted(networks.items(), key=lambda item: item[0] == ENSEMBLE)) for split, networks in found.items()
    }


def label_of(name: str) -> str:
    """Return the name of a score that compares peers, in words."""
    return name.replace("_", " ").replace("kl ", "KL ")


def diverged_rows(diverged: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Return who has left the cohort, and why."""
    return [(f"{learner} left", reason) for learner, reason in diverged.items() if reason is not None]


def _scores(metrics: Mapping[str, float], headline: Metric) -> list[tuple[str, str]]:
    scores = scores_of(metrics)
    rows: dict[str, list[str]] = {}
    for split, networks in scores.items():
        for network, values in networks.items():
            if network is None:
                named = {f"{split} {name}": name for name in (headline.name, _BESIDE_HEADLINE) if name in values}
                rows |= {label: [score_in_words(headline, name, values[name])] for label, name in named.items()}
                continue
            if headline.name in values:
                words = f"{split} {score_in_words(headline, headline.name, values[headline.name]):>7}"
                rows.setdefault(f"{label_of(headline.name)} of {network}", []).append(words)
    for split, networks in scores.items():
        for name in _BETWEEN_PEERS_IN_SUMMARY:
            if name in (together := networks.get(ENSEMBLE, {})):
                rows.setdefault(label_of(name), []).append(f"{split} {score_in_words(headline, name, together[name])}")
    return [(label, ", ".join(words)) for label, words in rows.items()]


def _best(result: Result, headline: Metric) -> list[tuple[str, str]]:
    """Return the best score where it is not that of the last epoch: on validation images, where there are some."""
    split = "validation" if "validation" in result.best else next(iter(result.best), None)
    if split is None or result.best[split].is_last:
        return []
    best = result.best[split]
    score = score_in_words(headline, headline.name, best.score)
    if f"{split}/{headline.name}" not in result.metrics:
        score += ", the mean of the networks,"
    chosen = "validation images" if split == "validation" else f"the {split} images: not a fair estimate"
    return [(f"best on {split}", f"{score} after epoch {best.epoch:,} (chosen on {chosen})")]


def _memory(sizes: Mapping[str, int]) -> list[tuple[str, str]]:
    if len(sizes) <= _MOST_LEARNERS:
        return [(f"peak memory of {name}", format_bytes(size)) for name, size in sizes.items()]
    largest = max(sizes, key=lambda name: sizes[name])
    return [("peak memory", f"up to {format_bytes(sizes[largest])} ({largest}), over {len(sizes)} learners")]

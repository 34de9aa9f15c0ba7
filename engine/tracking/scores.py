"""Scores as people read them: shares in per cent, others as numbers, and which of several is the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from engine.tracking.records import ACCURACY_GAP, DISAGREEMENT, KL_BETWEEN_PEERS
from engine.tracking.tables import format_nats, format_points, format_share, mean_and_deviation

if TYPE_CHECKING:
    from engine.tasks import Metric

_Name = TypeVar("_Name")
_MISSING = "-"
# Beside the scores of single networks: what compares peers, and counts.
_FORMS: dict[str, Callable[[float], str]] = {
    DISAGREEMENT: format_share,
    ACCURACY_GAP: format_points,
    KL_BETWEEN_PEERS: format_nats,
    "images": "{:,.0f}".format,
    "queries": "{:,.0f}".format,
    "queries_without_match": "{:,.0f}".format,
}


def format_score(metric: Metric, value: float) -> str:
    """A score with its unit: a share as "91.20 %", any other as "0.4321"."""
    return format_share(value) if metric.is_share else f"{value:.4f}"


def score_in_words(headline: Metric, name: str, value: float) -> str:
    """A score by its name, with its unit, such as "91.20 %" or "1.25 points"; `headline` need not be one that ships."""
    from engine.tasks import SCORES, Metric

    if not math.isfinite(value):
        return str(value)
    if name in _FORMS:
        return _FORMS[name](value)
    known = {**SCORES, headline.name: headline}
    return format_score(known.get(name, Metric(name, is_share=False)), value)


def format_scores(metric: Metric, values: Sequence[float]) -> str:
    """Scores as mean ± sample standard deviation: "91.20 ± 0.15 %", or "0.4321 ± 0.0012"."""
    if not values:
        return _MISSING
    mean, deviation = mean_and_deviation(values)
    if math.isnan(mean):
        return "nan"
    if deviation is None:
        return format_score(metric, mean)
    return f"{format_score(metric, mean).removesuffix(' %')} ± {format_score(metric, deviation)}"


def drawn_factor(metric: Metric) -> float:
    """What a score is multiplied by where it is drawn: shares are drawn in per cent."""
    return 100.0 if metric.is_share else 1.0


def words_of(metric: Metric) -> str:
    """The name of a score in words: "top5 accuracy", "mean IoU"."""
    return " ".join("IoU" if word == "iou" else word for word in metric.name.split("_"))


def axis_label(metric: Metric, split: str = "") -> str:
    """What stands at an axis of scores: "test accuracy (%)", "error (lower is better)"."""
    remarks = ["%"] if metric.is_share else []
    if not metric.higher_is_better:
        remarks.append("lower is better")
    words = f"{split} {words_of(metric)}".strip()
    return f"{words} ({', '.join(remarks)})" if remarks else words


def best_first(metric: Metric, values: Mapping[_Name, float]) -> list[_Name]:
    """Names by their scores, the best first; of equal ones in their order."""
    return sorted(values, key=lambda name: -values[name] if metric.higher_is_better else values[name])

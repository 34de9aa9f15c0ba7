"""How numbers are written for people: bytes, durations, and the table that compares runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MISSING = "-"


@dataclass(frozen=True)
class ComparisonRow:
    """What is compared of one method.

    Attributes:
        label: what readers know the method by.
        accuracies: final test accuracy in [0, 1], one per seed.
        memory_bytes: peak memory by learner.
        images_per_second: training speed of the whole team.
    """

    label: str
    accuracies: tuple[float, ...]
    memory_bytes: dict[str, int]
    images_per_second: float


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation (n - 1 in the denominator), which one value does not have."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """Aligned plain text, one line per method: learners, accuracy over the seeds, largest learner's memory, speed."""
    header = ("method", "learners", "accuracy", "seeds", "largest peak memory of a learner", "images/s")
    cells = [header, *map(_cells, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def format_accuracy(accuracies: Sequence[float]) -> str:
    """Accuracies in [0, 1] as mean ± sample standard deviation in percent: "91.20 ± 0.15 %"."""
    if not accuracies:
        return _MISSING
    mean, deviation = mean_and_deviation(accuracies)
    if math.isnan(mean):
        return "nan"
    return format_share(mean) if deviation is None else f"{100 * mean:.2f} ± {format_share(deviation)}"


def format_share(share: float, decimals: int = 2) -> str:
    """A share in [0, 1] in percent: "91.20 %"."""
    return f"{100 * share:.{decimals}f} %"


def format_points(difference: float) -> str:
    """A difference of two shares in [0, 1] in percentage points: "1.25 points"."""
    return f"{100 * difference:.2f} points"


def format_nats(divergence: float) -> str:
    """A divergence in nats: "0.0312 nats"."""
    return f"{divergence:.4f} nats"


def format_bytes(count: float) -> str:
    """Bytes with three digits and a binary unit: "1.25 GiB"."""
    if not math.isfinite(count):
        return _MISSING
    size, unit = float(count), 0
    # 1023.6 KiB would be rounded to 1024 KiB, which is 1.00 MiB.
    while abs(size) >= 1023.5 and unit < len(_BYTE_UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{_digits(size, 0 if unit == 0 else 3)} {_BYTE_UNITS[unit]}"


def format_seconds(seconds: float) -> str:
    """A duration with its two largest units: "4.2 s", "3 min 20 s", "2 h 05 min", "3 d 04 h"."""
    if not math.isfinite(seconds) or seconds < 0:
        return _MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def format_rate(images_per_second: float) -> str:
    """Images per second with at least three digits: "1,234", "98.7"."""
    if not math.isfinite(images_per_second):
        return _MISSING
    return _digits(images_per_second, 3)


def _digits(value: float, digits: int) -> str:
    """At least so many digits, with commas between thousands."""
    before_point = 1 + max(0, math.floor(math.log10(abs(value)))) if value else 1
    return f"{value:,.{max(0, digits - before_point)}f}"


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    return (
        row.label,
        str(len(row.memory_bytes)) if row.memory_bytes else _MISSING,
        format_accuracy(row.accuracies),
        str(len(row.accuracies)),
        format_bytes(max(row.memory_bytes.values(), default=math.nan)),
        format_rate(row.images_per_second),
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Words to the left, numbers to the right."""
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]

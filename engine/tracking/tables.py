"""Numbers as text for people: shares, bytes, durations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MISSING = "-"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation (n - 1 in the denominator), which one value does not have."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


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

"""The table of a comparison as text, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from engine.comparison.result import COSTS, ComparedRecipe, best_on_validation, paired_gains, relative_costs
from engine.tasks import Metric
from engine.tracking.intervals import mean_and_half_width
from engine.tracking.scores import drawn_factor, format_scores, words_of
from engine.tracking.tables import mean_and_deviation

_MISSING = "-"
_BEST = "(best)"
# In Markdown these would end a cell, or begin emphasis, code or a tag.
_SPECIAL = {ord(character): f"\\{character}" for character in "\\|*`<"}


def compared_text(rows: Sequence[ComparedRecipe], seeds: Sequence[int], headline: Metric) -> str:
    """Aligned plain text, a line for each recipe; the first one is the baseline, if there are others."""
    cells = _cells(rows, seeds, headline)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def compared_markdown(
    title: str,
    rows: Sequence[ComparedRecipe],
    seeds: Sequence[int],
    headline: Metric,
    warnings: Sequence[str],
    notes: Sequence[str],
) -> str:
    """A Markdown page: the table, what is not of one budget, disturbed and failed runs, and how to read the table."""
    header, *cells = [[cell.translate(_SPECIAL) for cell in line] for line in _cells(rows, seeds, headline)]
    table = [header, ["---", *["---:"] * (len(header) - 1)], *cells]
    disturbed = [f"{row.label}, seed {seed}: {what}" for row in rows for seed, what in row.disturbances.items()]
    failures = [f"{row.label}, seed {seed}: {cause}" for row in rows for seed, cause in row.failures.items()]
    parts = [
        f"# {title.translate(_SPECIAL)}",
        *([_listed("**Not one budget:**", warnings)] if warnings else []),
        "\n".join(f"| {' | '.join(line)} |" for line in table),
        *([_listed("**Disturbed:**", disturbed)] if disturbed else []),
        *([_listed("**Failed:**", failures)] if failures else []),
        _listed("How to read it:", notes),
    ]
    return "\n\n".join(parts) + "\n"


def compared_csv(rows: Sequence[ComparedRecipe], seeds: Sequence[int], headline: Metric) -> str:
    """A line for each recipe with all digits: shares in [0, 1], bytes, images/s; nothing where nothing is known.

    Columns of scores have the headline's name: ``test_accuracy``, ``validation_accuracy_seed0``.
    """
    best, lines = best_on_validation(rows, seeds, headline), []
    tested, validated = f"test_{headline.name}", f"validation_{headline.name}"
    for row in rows:
        gains = list(paired_gains(row, rows[0], headline).values())
        gain, half_width = mean_and_half_width(gains)
        test, test_deviation = mean_and_deviation(list(row.test_scores.values()))
        validation, validation_deviation = mean_and_deviation(list(row.validation_scores.values()))
        values = {
            "recipe": row.label,
            "best_on_validation": int(row.label == best),
            "finished_seeds": len(row.test_scores),
            "failed_seeds": len(row.failures),
            tested: test,
            f"{tested}_deviation": test_deviation,
            "gain": None if row is rows[0] else gain,
            "gain_half_width_95": None if row is rows[0] else half_width,
            "gain_seeds": None if row is rows[0] else len(gains),
            validated: validation,
            f"{validated}_deviation": validation_deviation,
            "parameters": row.parameters,
            "flops_per_image": row.flops_per_image,
            "images_per_second": row.images_per_second,
            "peak_memory_bytes": row.peak_memory_bytes,
            **{f"relative_{name}": value for name, value in relative_costs(row, rows[0]).items()},
            **{f"{tested}_seed{seed}": row.test_scores.get(seed) for seed in seeds},
            **{f"{validated}_seed{seed}": row.validation_scores.get(seed) for seed in seeds},
        }
        lines.append({name: "" if value is None or value != value else value for name, value in values.items()})
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def format_gain(headline: Metric, values: Sequence[float]) -> str:
    """Gains as mean and 95 % interval: "+1.25 [+0.31, +2.19]"; of shares in percentage points."""
    mean, half_width = mean_and_half_width(values)
    if math.isnan(mean):
        return _MISSING
    factor, digits = drawn_factor(headline), 2 if headline.is_share else 4
    if half_width is None:
        return f"{factor * mean:+.{digits}f}"
    low, high = factor * (mean - half_width), factor * (mean + half_width)
    return f"{factor * mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def pairs_told(gains: Sequence[float], seeds: Sequence[int]) -> str:
    """Say over how many seeds a gain is, where these are not all: ", 2 of 3 seeds"; nothing where they are."""
    return f", {len(gains)} of {len(seeds)} seeds" if 0 < len(gains) < len(seeds) else ""


def format_ratio(ratio: float | None) -> str:
    """A multiple with two decimals: "1.25×"."""
    return _MISSING if ratio is None else f"{ratio:.2f}×"


def _cells(rows: Sequence[ComparedRecipe], seeds: Sequence[int], headline: Metric) -> list[list[str]]:
    best, score = best_on_validation(rows, seeds, headline), words_of(headline)
    gain = "gain (points)" if headline.is_share else "gain"
    cells = [["recipe", f"test {score}", gain, f"validation {score}", "seeds", *COSTS]]
    for row in rows:
        costs = relative_costs(row, rows[0])
        finished, gains = len(row.test_scores), list(paired_gains(row, rows[0], headline).values())
        cells.append(
            [
                f"{row.label} {_BEST}" if row.label == best else row.label,
                format_scores(headline, list(row.test_scores.values())),
                "baseline" if row is rows[0] else f"{format_gain(headline, gains)}{pairs_told(gains, seeds)}",
                format_scores(headline, list(row.validation_scores.values())),
                (f"{finished} of {len(seeds)}" if finished < len(seeds) else str(finished))
                + (f", {len(row.failures)} failed" if row.failures else ""),
                *(format_ratio(costs[name]) for name in COSTS),
            ]
        )
    # Relative to itself a recipe has nothing to tell.
    return cells if len(rows) > 1 else [[*line[:2], *line[3:5]] for line in cells]


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", *(f"- {line.translate(_SPECIAL)}" for line in lines)])

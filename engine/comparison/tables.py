"""The table of a comparison as text, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from engine.comparison.result import COSTS, ComparedRecipe, best_on_validation, paired_gains, relative_costs
from engine.tracking.intervals import mean_and_half_width
from engine.tracking.tables import format_accuracy, mean_and_deviation

_MISSING = "-"
_BEST = "(best)"
# In Markdown these would end a cell, or begin emphasis, code or a tag.
_SPECIAL = {ord(character): f"\\{character}" for character in "\\|*`<"}


def compared_text(rows: Sequence[ComparedRecipe], seeds: Sequence[int]) -> str:
    """Aligned plain text, a line for each recipe; the first one is the baseline."""
    cells = _cells(rows, seeds)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def compared_markdown(
    title: str, rows: Sequence[ComparedRecipe], seeds: Sequence[int], warnings: Sequence[str], notes: Sequence[str]
) -> str:
    """A Markdown page: the table, what does not compare like with like, failed runs, and how to read the table."""
    header, *cells = [[cell.translate(_SPECIAL) for cell in line] for line in _cells(rows, seeds)]
    table = [header, ["---", *["---:"] * (len(header) - 1)], *cells]
    failures = [f"{row.label}, seed {seed}: {cause}" for row in rows for seed, cause in row.failures.items()]
    parts = [
        f"# {title.translate(_SPECIAL)}",
        *([_listed("**Not one budget:**", warnings)] if warnings else []),
        "\n".join(f"| {' | '.join(line)} |" for line in table),
        *([_listed("**Failed:**", failures)] if failures else []),
        _listed("How to read it:", notes),
    ]
    return "\n\n".join(parts) + "\n"


def compared_csv(rows: Sequence[ComparedRecipe], seeds: Sequence[int]) -> str:
    """A line for each recipe with all digits: shares in [0, 1], bytes, images/s; nothing where nothing is known."""
    best, lines = best_on_validation(rows, seeds), []
    for row in rows:
        gain, half_width = mean_and_half_width(list(paired_gains(row, rows[0]).values()))
        test, test_deviation = mean_and_deviation(list(row.test_accuracies.values()))
        validation, validation_deviation = mean_and_deviation(list(row.validation_accuracies.values()))
        values = {
            "recipe": row.label,
            "best_on_validation": int(row.label == best),
            "finished_seeds": len(row.test_accuracies),
            "failed_seeds": len(row.failures),
            "test_accuracy": test,
            "test_accuracy_deviation": test_deviation,
            "gain": None if row is rows[0] else gain,
            "gain_half_width_95": None if row is rows[0] else half_width,
            "validation_accuracy": validation,
            "validation_accuracy_deviation": validation_deviation,
            "parameters": row.parameters,
            "flops_per_image": row.flops_per_image,
            "images_per_second": row.images_per_second,
            "peak_memory_bytes": row.peak_memory_bytes,
            **{f"relative_{name}": value for name, value in relative_costs(row, rows[0]).items()},
            **{f"test_accuracy_seed{seed}": row.test_accuracies.get(seed) for seed in seeds},
            **{f"validation_accuracy_seed{seed}": row.validation_accuracies.get(seed) for seed in seeds},
        }
        lines.append({name: "" if value is None or value != value else value for name, value in values.items()})
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def format_gain(values: Sequence[float]) -> str:
    """Differences of shares as mean and 95 % interval in percentage points: "+1.25 [+0.31, +2.19]"."""
    mean, half_width = mean_and_half_width(values)
    if math.isnan(mean):
        return _MISSING
    if half_width is None:
        return f"{100 * mean:+.2f}"
    return f"{100 * mean:+.2f} [{100 * (mean - half_width):+.2f}, {100 * (mean + half_width):+.2f}]"


def format_ratio(ratio: float | None) -> str:
    """A multiple with two decimals: "1.25×"."""
    return _MISSING if ratio is None else f"{ratio:.2f}×"


def _cells(rows: Sequence[ComparedRecipe], seeds: Sequence[int]) -> list[list[str]]:
    best = best_on_validation(rows, seeds)
    cells = [["recipe", "test accuracy", "gain (points)", "validation accuracy", "seeds", *COSTS]]
    for row in rows:
        costs = relative_costs(row, rows[0])
        finished = len(row.test_accuracies)
        cells.append(
            [
                f"{row.label} {_BEST}" if row.label == best else row.label,
                format_accuracy(list(row.test_accuracies.values())),
                "baseline" if row is rows[0] else format_gain(list(paired_gains(row, rows[0]).values())),
                format_accuracy(list(row.validation_accuracies.values())),
                (f"{finished} of {len(seeds)}" if finished < len(seeds) else str(finished))
                + (f", {len(row.failures)} failed" if row.failures else ""),
                *(format_ratio(costs[name]) for name in COSTS),
            ]
        )
    return cells


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", *(f"- {line.translate(_SPECIAL)}" for line in lines)])

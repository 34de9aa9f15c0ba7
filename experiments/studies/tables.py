"""The tables of a study as Markdown: what each arm scores, and which claims are seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.comparison import ComparedRecipe
from engine.comparison.result import paired_gains, relative_costs
from engine.comparison.tables import format_gain
from engine.tasks import ACCURACY
from engine.tracking import format_scores
from engine.tracking.intervals import mean_and_half_width
from experiments.studies.study import Claim

Row = Sequence[str]


def markdown(header: Row, rows: Sequence[Row]) -> str:
    """Return a table of words."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def arms_table(rows: Sequence[ComparedRecipe], rates: Mapping[str, float | None]) -> str:
    """Return a line for each arm, the baseline first.

    Scores are mean ± standard deviation over the seeds, gains the mean difference to the baseline with the same seed
    and its 95 % Student-t interval, costs multiples of the baseline's.

    Args:
        rows: by arm.
        rates: learning rates by arm; the column is left out where nothing was chosen.
    """
    chosen = any(rate is not None for rate in rates.values())
    header = ["arm", *(["learning rate"] if chosen else []), "test accuracy", "gain (points)", "seeds"]
    costs = ("parameters", "compute", "memory")
    lines = []
    for row in rows:
        gains = list(paired_gains(row, rows[0], ACCURACY).values())
        rate, relative = rates[row.label], relative_costs(row, rows[0])
        failed = f", {len(row.failures)} failed" if row.failures else ""
        lines.append(
            [
                row.label,
                *(["as shipped" if rate is None else f"{rate:g}"] if chosen else []),
                format_scores(ACCURACY, list(row.test_scores.values())),
                "" if row is rows[0] else format_gain(ACCURACY, gains),
                f"{len(row.test_scores)}{failed}",
                *("-" if (ratio := relative[name]) is None else f"{ratio:.2f}" for name in costs),
            ]
        )
    return markdown([*header, *costs], lines)


def verdict(gains: Sequence[float]) -> str:
    """Return whether a gain is seen: whether all of its 95 % interval is on one side of 0."""
    mean, half_width = mean_and_half_width(gains)
    if half_width is None:
        return "too few seeds"
    if abs(mean) <= half_width:
        return "not seen"
    return "**seen**" if mean > 0 else "**the other way round**"


def claims_table(claims: Sequence[Claim], rows: Sequence[ComparedRecipe]) -> str:
    """Return a line for each claim: the gain over the same seeds with its 95 % interval, and whether it is seen."""
    by_label = {row.label: row for row in rows}
    lines = []
    for claim in claims:
        gains = list(paired_gains(by_label[claim.arm], by_label[claim.over], ACCURACY).values())
        tested = f"{claim.arm} over {claim.over}"
        words = f"{claim.words} ({claim.source})"
        lines.append([words, tested, format_gain(ACCURACY, gains), str(len(gains)), verdict(gains)])
    return markdown(["claim", "tested as", "gain (points)", "seeds", "verdict"], lines)

"""The tables of a study as Markdown: what each arm scores, and which claims are seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.comparison import ComparedRecipe
from engine.comparison.result import paired_gains, relative_costs
from engine.comparison.tables import format_gain
from engine.tasks import ACCURACY
from engine.tracking import format_score, format_scores
from engine.tracking.intervals import mean_and_half_width
from experiments.studies.study import Claim
from experiments.studies.training import Choice

Row = Sequence[str]


def markdown(header: Row, rows: Sequence[Row]) -> str:
    """Return a table of words."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def paired(row: ComparedRecipe, baseline: ComparedRecipe) -> tuple[list[float], int]:
    """Return the gains over a baseline with the same seed, and of how many seeds they should be.

    The latter counts those with which either failed: who is left need not be like them.
    """
    wanted = {seed for each in (row, baseline) for seed in (*each.test_scores, *each.failures)}
    return list(paired_gains(row, baseline, ACCURACY).values()), len(wanted)


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
        gains, wanted = paired(row, rows[0])
        some = f", {len(gains)} of {wanted} seeds" if len(gains) < wanted else ""
        rate, relative = rates[row.label], relative_costs(row, rows[0])
        failed = f", {len(row.failures)} failed" if row.failures else ""
        lines.append(
            [
                row.label,
                *(["as shipped" if rate is None else f"{rate:g}"] if chosen else []),
                format_scores(ACCURACY, list(row.test_scores.values())),
                "" if row is rows[0] else f"{format_gain(ACCURACY, gains)}{some}",
                f"{len(row.test_scores)}{failed}",
                *("-" if (ratio := relative[name]) is None else f"{ratio:.2f}" for name in costs),
            ]
        )
    return markdown([*header, *costs], lines)


def verdict(gains: Sequence[float], seeds: int) -> str:
    """Return whether a gain is seen: whether all of its 95 % interval is on one side of 0.

    Args:
        gains: of the seeds with which both arms have finished.
        seeds: how many there should be; of fewer nothing is said.
    """
    if len(gains) < seeds:
        return f"none: {len(gains)} of {seeds} seeds"
    mean, half_width = mean_and_half_width(gains)
    if half_width is None:
        return "too few seeds"
    if abs(mean) <= half_width:
        return "not seen"
    return "**seen**" if mean > 0 else "**the other way round**"


def claims_table(claims: Sequence[Claim], rows: Sequence[ComparedRecipe]) -> str:
    """Return a line for each claim: the gain over the same seeds with its 95 % interval, and whether it is seen.

    Args:
        claims: of a study.
        rows: by arm; one of which every run failed is not among them.
    """
    by_label = {row.label: row for row in rows}
    lines = []
    for claim in claims:
        tested = f"{claim.arm} over {claim.over}"
        words = f"{claim.words} ({claim.source})"
        failed = [label for label in (claim.arm, claim.over) if label not in by_label]
        if failed:
            lines.append([words, tested, "-", "0", f"none: every run of {' and of '.join(failed)} failed"])
            continue
        gains, wanted = paired(by_label[claim.arm], by_label[claim.over])
        lines.append([words, tested, format_gain(ACCURACY, gains), str(len(gains)), verdict(gains, wanted)])
    return markdown(["claim", "tested as", "gain (points)", "seeds", "verdict"], lines)


def rates_table(choices: Mapping[str, Choice]) -> str:
    """Return a line for each arm whose learning rate was chosen: what each came to on held-out images, and which won.

    Empty where nothing was chosen.
    """
    chosen = {label: choice for label, choice in choices.items() if choice.held_out}
    rates = sorted({rate for choice in chosen.values() for rate in (*choice.held_out, *choice.failures)})
    lines = []
    for label, choice in chosen.items():
        scores = {rate: format_score(ACCURACY, mean) for rate, mean in choice.held_out.items()}
        cells = ("failed" if rate in choice.failures else scores.get(rate, "") for rate in rates)
        lines.append([label, *cells, choice.words])
    return markdown(["held-out accuracy by rate", *(f"{rate:g}" for rate in rates), "chosen"], lines) if lines else ""


def failures_list(failures: Mapping[str, Mapping[int, str]], choices: Mapping[str, Choice]) -> str:
    """Return a line for each run that failed, and why; empty if none did.

    Args:
        failures: reasons by arm and seed.
        choices: by arm, of which those of rates that were not eligible are told.
    """
    lines = [
        *(
            f"- {label}, learning rate {rate:g}, not eligible: {reason}"
            for label, choice in choices.items()
            for rate, reason in choice.failures.items()
        ),
        *(f"- {label}, seed {seed}: {reason}" for label, found in failures.items() for seed, reason in found.items()),
    ]
    return "\n".join(["Runs that failed:", "", *lines]) if lines else ""

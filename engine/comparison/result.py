"""The result of a comparison of recipes, and what follows from it by arithmetic."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.methods import Network, Team
from engine.tracking.tables import mean_and_deviation
from engine.training.reports import score_name
from engine.training.result import Result

COSTS = ("parameters", "compute", "time", "memory")


@dataclass(frozen=True)
class ComparedRecipe:
    """What is compared of one recipe.

    Attributes:
        label: what readers know the recipe by.
        test_accuracies: final test accuracy in [0, 1] by seed, of the runs that are finished.
        validation_accuracies: the same of the images held out of the training set.
        failures: why runs failed, by seed.
        parameters: trained values in training, those of heads, decoders and other auxiliary networks among them.
        flops_per_image: floating-point operations of a training step for each image; None if they are not known.
        images_per_second: median training rate over the runs; None if it is not known.
        peak_memory_bytes: of the learner that needs most; None if it is not known.
    """

    label: str
    test_accuracies: Mapping[int, float]
    validation_accuracies: Mapping[int, float]
    failures: Mapping[int, str]
    parameters: int
    flops_per_image: float | None
    images_per_second: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Comparison:
    """The outcome of a comparison; the first row is the baseline.

    Attributes:
        run_dir: the folder, which holds comparison.md, .csv and .png once every run has ended.
        status: ``finished``; ``failed`` where a run failed, which the same command tries again; ``interrupted`` where
            the same command goes on.
        seeds: with which every recipe was trained.
        rows: what was measured of each recipe.
        warnings: where recipes were not trained on one budget.
        runs_at_once: how many runs shared the machine, at most.
    """

    run_dir: Path
    status: Literal["finished", "failed", "interrupted"]
    seeds: tuple[int, ...]
    rows: tuple[ComparedRecipe, ...]
    warnings: tuple[str, ...]
    runs_at_once: int

    @property
    def best(self) -> str | None:
        """Label of the recipe with the highest mean validation accuracy; None if none has finished every seed."""
        return best_on_validation(self.rows, self.seeds)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the table is read, in a few sentences."""
        baseline = self.rows[0].label
        together = "one run at a time" if self.runs_at_once == 1 else f"{self.runs_at_once} runs at once"
        return (
            "accuracy: mean ± standard deviation over the seeds "
            f"({', '.join(map(str, self.seeds))}) at the end of training",
            f"gain: mean difference in test accuracy to {baseline} with the same seed, and its 95 % Student-t interval",
            "(best): highest mean accuracy on validation images, which are not trained on; the test set chose nothing",
            f"parameters, compute, time, memory: what training takes, relative to {baseline}",
            "parameters: trained values, with those of heads, decoders and other auxiliary networks",
            "compute: floating-point operations of a training step per image, counted over a few steps",
            f"time: per image, median over the runs, {together} on the machine",
            "memory: peak of the learner that needs most",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values; shares are in [0, 1]."""
        baseline = self.rows[0]
        return {
            "run_dir": str(self.run_dir),
            "status": self.status,
            "seeds": list(self.seeds),
            "baseline": baseline.label,
            "best": self.best,
            "warnings": list(self.warnings),
            "runs_at_once": self.runs_at_once,
            "rows": [
                {
                    **dataclasses.asdict(row),
                    "gains": paired_gains(row, baseline),
                    "relative": relative_costs(row, baseline),
                }
                for row in self.rows
            ],
        }


def compared_recipe(
    label: str,
    team: Team,
    results: Mapping[int, Result],
    failures: Mapping[int, str],
    flops_per_image: float | None,
) -> ComparedRecipe:
    """Return what is compared of a recipe.

    Args:
        label: of the recipe.
        team: its learners and networks.
        results: of its finished runs, by seed.
        failures: why others failed, by seed.
        flops_per_image: operations of a training step per image, if they are known.
    """
    validation = {seed: _validation_accuracy(result, team.networks) for seed, result in results.items()}
    rates = [result.images_per_second for result in results.values() if result.images_per_second]
    peaks = [size for result in results.values() for size in result.peak_memory_bytes.values()]
    return ComparedRecipe(
        label=label,
        test_accuracies=_known({seed: result.test_accuracy for seed, result in results.items()}),
        validation_accuracies=_known(validation),
        failures=dict(failures),
        parameters=team.trained_parameters,
        flops_per_image=flops_per_image,
        images_per_second=statistics.median(rates) if rates else None,
        peak_memory_bytes=max(peaks, default=None),
    )


def _validation_accuracy(result: Result, networks: Mapping[str, Network]) -> float | None:
    """Return the mean accuracy on the validation images of the networks that no learner has left."""
    names = [name for name, network in networks.items() if not set(network.learners) & set(result.departures)]
    wanted = [score_name(name if len(networks) > 1 else None, "validation", "accuracy") for name in names]
    known = [result.metrics[name] for name in wanted if name in result.metrics]
    return statistics.fmean(known) if known else None


def _known(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value is not None}


def paired_gains(row: ComparedRecipe, baseline: ComparedRecipe) -> dict[int, float]:
    """Test accuracy minus that of the baseline with the same seed, for each seed that both have finished."""
    both = (seed for seed in row.test_accuracies if seed in baseline.test_accuracies)
    return {seed: row.test_accuracies[seed] - baseline.test_accuracies[seed] for seed in both}


def relative_costs(row: ComparedRecipe, baseline: ComparedRecipe) -> dict[str, float | None]:
    """What training takes as a multiple of what the baseline takes, by the names in `COSTS`; None if unknown.

    ``time`` is time for each image: the inverse ratio of the rates.
    """
    return {
        "parameters": _ratio(row.parameters, baseline.parameters),
        "compute": _ratio(row.flops_per_image, baseline.flops_per_image),
        "time": _ratio(baseline.images_per_second, row.images_per_second),
        "memory": _ratio(row.peak_memory_bytes, baseline.peak_memory_bytes),
    }


def best_on_validation(rows: Sequence[ComparedRecipe], seeds: Sequence[int]) -> str | None:
    """Label of the recipe with the highest mean validation accuracy; of equal ones the first.

    Only recipes that have finished every seed are chosen from: others would be judged by other runs. The test set has
    no say.
    """
    whole = [row for row in rows if all(seed in row.validation_accuracies for seed in seeds)]
    means = {row.label: mean_and_deviation(list(row.validation_accuracies.values()))[0] for row in whole}
    # Means that differ by rounding alone are equal.
    known = {label: round(mean, 9) for label, mean in means.items() if mean == mean}
    return max(known, key=lambda label: known[label]) if known else None


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference

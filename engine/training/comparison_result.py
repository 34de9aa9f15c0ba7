"""What a comparison of recipes returns."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.methods import Network, Team
from engine.tracking.compared import ComparedRecipe, best_on_validation, paired_gains, relative_costs
from engine.training.reports import score_name
from engine.training.result import Result


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

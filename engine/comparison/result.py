"""The result of a comparison of recipes, and what follows from it by arithmetic."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.methods import Team
from engine.recipes import Recipe
from engine.tasks import Metric
from engine.tracking.scores import best_first, words_of
from engine.tracking.tables import mean_and_deviation
from engine.training.environment import files_changed_since
from engine.training.reports import mean_score
from engine.training.result import Result

COSTS = ("parameters", "compute", "time", "memory")


@dataclass(frozen=True)
class ComparedRecipe:
    """What is compared of one recipe.

    Attributes:
        label: what readers know the recipe by.
        test_scores: final headline score on the test images by seed, of the runs that are finished; shares in [0, 1].
        validation_scores: the same of the images held out of the training set.
        failures: why runs failed, by seed.
        parameters: trained values in training, those of heads, decoders and other auxiliary networks among them.
        flops_per_image: floating-point operations of a training step for each image; None if they are not known.
        images_per_second: median training rate over the runs; None if it is not known.
        peak_memory_bytes: of the learner that needs most; None if it is not known.
        disturbances: which networks left their cohort, or were away, in finished runs, by seed: these scores are not
            those of undisturbed runs. Also which of the user's own files have changed since a run was trained, which
            is not repeated: these scores are not those of the files of now.
    """

    label: str
    test_scores: Mapping[int, float]
    validation_scores: Mapping[int, float]
    failures: Mapping[int, str]
    parameters: int
    flops_per_image: float | None
    images_per_second: float | None
    peak_memory_bytes: int | None
    disturbances: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The outcome of a comparison; the first row is the baseline.

    Attributes:
        run_dir: the folder, which holds comparison.md, .csv and .png once every run has ended.
        status: ``finished``; ``failed`` where a run failed, which the same command tries again; ``interrupted`` where
            the same command goes on.
        seeds: with which every recipe was trained.
        headline: the score by which the recipes are judged.
        rows: what was measured of each recipe.
        warnings: where recipes were not trained on one budget.
        runs_at_once: how many runs shared the machine, at most.
    """

    run_dir: Path
    status: Literal["finished", "failed", "interrupted"]
    seeds: tuple[int, ...]
    headline: Metric
    rows: tuple[ComparedRecipe, ...]
    warnings: tuple[str, ...]
    runs_at_once: int

    @property
    def best(self) -> str | None:
        """Label of the recipe with the best mean score on validation images.

        None if none has finished every seed, or if there is only one to choose from.
        """
        return best_on_validation(self.rows, self.seeds, self.headline)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the table is read, in a few sentences."""
        baseline = self.rows[0].label
        together = "one run at a time" if self.runs_at_once == 1 else f"{self.runs_at_once} runs at once"
        score, mark = words_of(self.headline), "highest" if self.headline.higher_is_better else "lowest"
        turned = "" if self.headline.higher_is_better else ", positive where it is lower"
        scores = (
            f"{score}: mean ± standard deviation over the seeds "
            f"({', '.join(map(str, self.seeds))}) at the end of training"
        )
        if len(self.rows) == 1:
            return (
                scores,
                "validation images are not trained on: a tenth of the training images, unless there are others",
            )
        return (
            scores,
            f"gain: mean difference in test {score} to {baseline} with the same seed{turned}, and its 95 % Student-t "
            "interval",
            f"(best): {mark} mean {score} on validation images, which are not trained on; the test set chose nothing",
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
            "headline": self.headline.name,
            "baseline": baseline.label,
            "best": self.best,
            "warnings": list(self.warnings),
            "runs_at_once": self.runs_at_once,
            "rows": [
                {
                    **dataclasses.asdict(row),
                    "gains": paired_gains(row, baseline, self.headline),
                    "relative": relative_costs(row, baseline),
                }
                for row in self.rows
            ],
        }


def compared_recipe(
    label: str,
    recipe: Recipe,
    team: Team,
    results: Mapping[int, Result],
    failures: Mapping[int, str],
    flops_per_image: float | None,
    headline: Metric,
) -> ComparedRecipe:
    """Return what is compared of a recipe.

    Args:
        label: of the recipe.
        recipe: with any seed.
        team: its learners and networks.
        results: of its finished runs, by seed.
        failures: why others failed, by seed.
        flops_per_image: operations of a training step per image, if they are known.
        headline: the score by which it is judged.
    """
    validation = {
        seed: mean_score(result.metrics, team.networks, result.diverged, headline, "validation")
        for seed, result in results.items()
    }
    rates = [result.images_per_second for result in results.values() if result.images_per_second]
    peaks = [size for result in results.values() for size in result.peak_memory_bytes.values()]
    return ComparedRecipe(
        label=label,
        test_scores=_known({seed: result.test_score for seed, result in results.items()}),
        validation_scores=_known(validation),
        failures=dict(failures),
        parameters=team.trained_parameters,
        flops_per_image=flops_per_image,
        images_per_second=statistics.median(rates) if rates else None,
        peak_memory_bytes=max(peaks, default=None),
        disturbances={seed: what for seed, result in results.items() if (what := _disturbance(result, recipe))},
    )


def _disturbance(result: Result, recipe: Recipe) -> str:
    """Return in words who left the cohort or was away, and which files have changed since; nothing if none."""
    said = [f"{learner} has left the cohort: {reason}" for learner, reason in result.diverged.items()]
    if said:
        said.append("the score is that of the others")
    for absence in result.absences:
        steps = (result.steps if absence.until is None else absence.until) - absence.since
        said.append(f"{absence.network} was away for {steps:,} step{'s' * (steps != 1)}: {absence.cause}")
    said += [f"{change} since it was trained" for change in files_changed_since(result.run_dir, recipe)]
    return "; ".join(said)


def _known(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value is not None}


def paired_gains(row: ComparedRecipe, baseline: ComparedRecipe, headline: Metric) -> dict[int, float]:
    """How much better the test score is than the baseline's with the same seed, for each seed that both have finished.

    Where lower is better, a score that is lower by 0.1 is a gain of 0.1.
    """
    both = [seed for seed in row.test_scores if seed in baseline.test_scores]
    sign = 1 if headline.higher_is_better else -1
    return {seed: sign * (row.test_scores[seed] - baseline.test_scores[seed]) for seed in both}


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


def best_on_validation(rows: Sequence[ComparedRecipe], seeds: Sequence[int], headline: Metric) -> str | None:
    """Label of the recipe with the best mean score on validation images; of equal ones the first.

    Only recipes that have finished every seed are chosen from: others would be judged by other runs. The test set has
    no say. Of one recipe alone nothing is chosen.
    """
    if len(rows) < 2:
        return None
    whole = [row for row in rows if all(seed in row.validation_scores for seed in seeds)]
    means = {row.label: mean_and_deviation(list(row.validation_scores.values()))[0] for row in whole}
    # Means that differ by rounding alone are equal.
    known = {label: round(mean, 9) for label, mean in means.items() if mean == mean}
    return next(iter(best_first(headline, known)), None)


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference

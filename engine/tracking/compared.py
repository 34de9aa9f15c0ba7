"""What is known of recipes that were trained under one budget, and what follows from it by arithmetic?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.tracking.tables import mean_and_deviation

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

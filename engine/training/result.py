"""What a training returns, and what summary.json holds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

Status = Literal["finished", "interrupted"]


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a training.

    Attributes:
        run_dir: the run folder.
        status: ``finished``, or ``interrupted`` with a checkpoint from which the same command goes on.
        epochs: finished epochs.
        steps: finished steps.
        test_accuracy: share of the test images that the deployed network gets right, 0 to 1; of several networks, the
            mean of those that have not left the cohort; None if not yet known.
        metrics: last value of every score, such as ``test/loss``.
        images_per_second: median training rate of the team, evaluation left out; None if nothing was trained.
        waiting_share: median share of its time that each learner waited, 0 to 1.
        peak_memory_bytes: by learner; the device's own peak on a GPU, saved activations, parameters, gradients and
            optimizer state on a CPU.
        memory_parts: the same by purpose.
        deployed_parameters: trained values of all deployed networks; None in a summary of before this was counted.
        trained_parameters: these and those of heads, decoders, branches and other auxiliary networks.
        weights_sha256: digest of the plain backbone's tensors in name order; of several networks, of all of them.
        departures: why learners have left their cohort, by name; empty if all finished.
        seconds: wall-clock time of this call.
        warnings: what could not be made beside the record of the run, such as the picture, and why; one line each.
    """

    run_dir: Path
    status: Status
    epochs: int
    steps: int
    test_accuracy: float | None
    metrics: dict[str, float]
    images_per_second: float | None
    waiting_share: dict[str, float]
    peak_memory_bytes: dict[str, int]
    memory_parts: dict[str, dict[str, int]]
    deployed_parameters: int | None
    trained_parameters: int | None
    weights_sha256: str
    departures: dict[str, str]
    seconds: float
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; a score that is not finite, as of a peer that has left, is null."""
        metrics = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        return {**dataclasses.asdict(self), "run_dir": str(self.run_dir), "metrics": metrics}

    @staticmethod
    def from_json(values: dict[str, Any], run_dir: Path) -> Result:
        """Return the result that a summary.json holds."""
        names = {field.name for field in dataclasses.fields(Result)} - {"run_dir"}
        metrics = {name: math.nan if value is None else value for name, value in values["metrics"].items()}
        known: dict[str, Any] = {name: values.get(name) for name in names}
        return Result(run_dir=run_dir, **{**known, "metrics": metrics, "warnings": tuple(values.get("warnings", ()))})

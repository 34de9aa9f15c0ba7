"""The result of a training, as it is returned and as summary.json holds it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from engine.errors import RunError
from engine.reading import checked, without_version
from engine.tasks import ACCURACY

SUMMARY_VERSION = 2
"""What the fields of summary.json mean; see `engine.reading.without_version`."""

Status = Literal["finished", "interrupted"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that ended a team, which was then started again.

    Attributes:
        cause: who failed, and how.
        step: the last one that had been reported; 0 at the first start.
        repeated_steps: how many of the reported steps were computed once more.
        seconds_lost: from when it was noticed until the same step was reported again.
    """

    cause: str
    step: int
    repeated_steps: int
    seconds_lost: float


@dataclasses.dataclass(frozen=True)
class Absence:
    """A network of a cohort that was away while the others went on, see `method.on_loss`.

    Attributes:
        network: its name, such as ``peer1``.
        cause: who was lost, and how.
        since: the step after which it knows nothing of what the others did.
        until: the last step without it; None where it did not return before the end.
    """

    network: str
    cause: str
    since: int
    until: int | None


@dataclasses.dataclass(frozen=True)
class BestScore:
    """The best score of a run on one split, as papers report it beside that of the last epoch.

    Attributes:
        score: the headline score, as `Result.test_score`.
        epoch: after which it was scored, from 1; of equal scores the last.
        is_last: whether no later epoch was scored.
    """

    score: float
    epoch: int
    is_last: bool


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a training.

    Attributes:
        run_dir: the run folder.
        status: ``finished``, or ``interrupted`` with a checkpoint from which the same command goes on.
        epochs: finished epochs.
        steps: finished steps.
        headline: name of the score by which the recipe's task judges networks, such as ``accuracy``.
        test_score: this score of the deployed network on the test images, an accuracy from 0 to 1; of several
            networks, the mean of those that have not left the cohort; None if not yet known.
        metrics: last value of every score, such as ``test/loss``.
        images_per_second: median training rate of the team, evaluation left out; None if nothing was trained.
        waiting_share: median share of its time that each learner waited, 0 to 1.
        peak_memory_bytes: by learner; the device's own peak on a GPU, saved activations, parameters, gradients and
            optimizer state on a CPU.
        memory_parts: the same by purpose.
        deployed_parameters: trained values of all deployed networks; None in a summary of before this was counted.
        trained_parameters: these and those of heads, decoders, branches and other auxiliary networks.
        weights_sha256: digest of the plain backbone's tensors in name order; of several networks, of all of them.
        diverged: why learners have diverged and left their cohort, by name; empty if all finished.
        seconds: wall-clock time of this call.
        faults: from which the run has recovered, in their order; also in earlier calls that were interrupted.
        absences: of networks without which the others went on; where there are any, scores and weights are not those of
            an undisturbed run.
        best: the best headline score so far by split, such as ``validation``, of the same networks as `test_score`. No
            checkpoint is kept of it, and where ``test`` chose the epoch it is no fair estimate. Empty in a summary of
            before it was kept.
        warnings: what could not be made beside the record of the run, such as the picture, and why; one line each.
    """

    run_dir: Path
    status: Status
    epochs: int
    steps: int
    headline: str
    test_score: float | None
    metrics: dict[str, float]
    images_per_second: float | None
    waiting_share: dict[str, float]
    peak_memory_bytes: dict[str, int]
    memory_parts: dict[str, dict[str, int]]
    deployed_parameters: int | None
    trained_parameters: int | None
    weights_sha256: str
    diverged: dict[str, str]
    seconds: float
    warnings: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    absences: tuple[Absence, ...] = ()
    best: dict[str, BestScore] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; a score that is not finite, as of a peer that has left, is null."""
        metrics = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        values = dataclasses.asdict(self)
        lists = {name: list(values[name]) for name in ("warnings", "faults", "absences")}
        return {**values, "run_dir": str(self.run_dir), "metrics": metrics, **lists}

    def to_summary(self) -> dict[str, Any]:
        """Return what summary.json holds: `to_json` with the version of the file."""
        return {"version": SUMMARY_VERSION, **self.to_json()}

    @staticmethod
    def from_json(values: Any, run_dir: Path) -> Result:
        """Return the result that a summary.json holds.

        Raises:
            RunError: it does not hold one.
            VersionError: a newer engine has written it.
        """
        place = run_dir / "summary.json"
        said = checked(without_version(values, SUMMARY_VERSION, place, RunError), _VALUES, place, RunError)
        # JSON has lists only.
        found = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
        found["faults"] = checked(said.get("faults", []), _FAULTS, place, RunError)
        found["absences"] = checked(said.get("absences", []), _ABSENCES, place, RunError)
        found["best"] = checked(said.get("best", {}), _BEST, place, RunError)
        if "test_accuracy" in found and "headline" not in found:
            # Of before there were tasks with other scores.
            found |= {"headline": ACCURACY.name, "test_score": found["test_accuracy"]}
        if "departures" in found and "diverged" not in found:
            # Of version 1 and before.
            found["diverged"] = found["departures"]
        known = {**_MISSING, **{name: value for name, value in found.items() if name in _TYPES}, "run_dir": run_dir}
        if isinstance(known.get("metrics"), dict):
            known["metrics"] = {name: math.nan if each is None else each for name, each in known["metrics"].items()}
        return Result(**checked(known, _FIELDS, place, RunError))


_TYPES = get_type_hints(Result)
_VALUES: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_FAULTS: TypeAdapter[tuple[Fault, ...]] = TypeAdapter(tuple[Fault, ...])
_ABSENCES: TypeAdapter[tuple[Absence, ...]] = TypeAdapter(tuple[Absence, ...])
_BEST: TypeAdapter[dict[str, BestScore]] = TypeAdapter(dict[str, BestScore])
# Strict: what a file says is not turned into what it should be.
_typed_dict: Any = TypedDict
_Fields = _typed_dict("_Fields", _TYPES)
_Fields.__pydantic_config__ = ConfigDict(strict=True)
_FIELDS: TypeAdapter[dict[str, Any]] = TypeAdapter(_Fields)
# What a summary lacks that was written before there was such a field.
_LATER = {field.name: field.default for field in dataclasses.fields(Result) if field.default is not dataclasses.MISSING}
_MISSING: dict[str, Any] = {"deployed_parameters": None, "trained_parameters": None, **_LATER}

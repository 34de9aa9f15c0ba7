"""Agreement of the parts of a checkpoint.

Each file may be what its manifest says, and still not belong to the others: after a repair by hand, or a copy of half
of a checkpoint over another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from engine.checkpoints.manifests import Count, Manifest, PlainName
from engine.checkpoints.state import LearnerState
from engine.data import Facts
from engine.errors import RunError
from engine.reading import checked

STATE = "state.json"
_TENSORS = ".safetensors"


class _Absence(TypedDict):
    """A network that was away while the others trained on, after which step and until which."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    network: str
    cause: str
    since: Count
    until: Count | None


class Document(TypedDict):
    """What state.json holds; ``learners`` are the counters of each learner."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    step: Count
    learners: dict[PlainName, dict[str, Any]]
    recipe: str
    facts: dict[str, Any]
    latest: dict[str, float]
    absences: NotRequired[list[_Absence]]
    is_evaluated: NotRequired[bool]


class _Meters(TypedDict):
    sums: dict[str, float]
    counts: dict[str, Count]
    images: Count
    scored: Count
    hits: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    observed: dict[str, list[float]]


class _Memory(TypedDict):
    bytes: dict[str, Count]
    left: Annotated[int, Field(strict=True)]


class _Counters(TypedDict):
    """What `Learner.ask_state` puts beside its tensors."""

    steps: Count
    meters: _Meters
    memory: _Memory
    scaler: dict[str, Any]
    diverged: str | None
    shapes: dict[str, list[Count]]


DOCUMENT = TypeAdapter(Document)
_COUNTERS = TypeAdapter(_Counters)
_FACTS = TypeAdapter(Facts)


def check_files(manifest: Manifest, learners: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose files are not those of its learners.

    Raises:
        RunError: a learner has no file, or a file no learner.
    """
    for name in learners:
        if f"{name}{_TENSORS}" not in manifest:
            raise RunError(f"{name}{_TENSORS} is missing in the manifest, though {STATE} names the learner {name}")
    for file in manifest:
        owner = file.removesuffix(_TENSORS).partition(".knowledge-")[0]
        if file != STATE and owner not in learners:
            raise RunError(f"{file} belongs to no learner that {STATE} names ({', '.join(learners)})")


def check_facts(values: Mapping[str, Any]) -> None:
    """Refuse facts of images that are none.

    Raises:
        RunError: a field is missing or of another type, or the fields contradict one another.
    """
    facts = checked(values, _FACTS, f"{STATE}, facts", RunError)
    channels = facts.image_shape[0]
    sound = (
        facts.num_classes == len(facts.class_names) > 0
        and min(facts.image_shape) > 0
        and len(facts.mean) == len(facts.std) == channels
        and facts.sizes.get("train", -1) >= 0
    )
    if not sound:
        raise RunError(
            f"{STATE}, facts: {facts.num_classes} classes with {len(facts.class_names)} names, images of "
            f"{facts.image_shape} with {len(facts.mean)} means; expected as many of each"
        )


def check_state(name: str, state: LearnerState, step: int) -> None:
    """Refuse a learner's state whose parts contradict one another, or the step of the run.

    Args:
        name: of the learner.
        state: as it was read.
        step: finished steps of the whole run.

    Raises:
        RunError: counters are missing or of another type, there were more steps than the run has, or the optimizer
            remembers something of a parameter that does not exist, of another shape, or not of each alike.
    """
    tensors, extra = state.tensors, state.extra
    if any(key.startswith("body.") for key in tensors):
        checked(extra, _COUNTERS, f"{STATE}, learners.{name}", RunError)
    steps = extra.get("steps", 0)
    if not isinstance(steps, int) or not 0 <= steps <= step:
        raise RunError(f"{STATE}, learners.{name}.steps: found {steps!r} after step {step} of the run")
    slots: dict[str, set[str]] = defaultdict(set)
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind != "optimizer":
            continue
        parameter, _, slot = rest.rpartition(".")
        known = tensors.get(parameter)
        if known is None or not _may_belong(value, known):
            raise RunError(f"{name}{_TENSORS}: {key} of shape {tuple(value.shape)} belongs to no parameter beside it")
        slots[parameter].add(slot)
    every = set[str]().union(*slots.values())
    for parameter, found in slots.items():
        if found != every:
            missing = ", ".join(sorted(every - found))
            raise RunError(f"{name}{_TENSORS}: the optimizer's {missing} of {parameter} is missing, others have it")


def _may_belong(slot: Tensor, parameter: Tensor) -> bool:
    # What has one value counts the steps of a parameter.
    return slot.shape == parameter.shape or slot.numel() == 1

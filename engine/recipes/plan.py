"""The plan of a training, where and how its recipe runs: nothing here may change the weights that come out.

The one exception is `Plan.replicas`, which add up in another order, and draw dropout for each part.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from engine.errors import PlanError
from engine.paths import absolute
from engine.recipes.settings import PathText, plan_settings


def default_window(learners: int) -> int:
    """Return a team's training steps in flight unless a plan says; fewer would leave some learners without work."""
    return 2 * learners


@plan_settings
class Recovery:
    """What a run does by itself when the process or node of a learner, or a private Ray, ends."""

    max_failures: Annotated[int, Field(ge=-1, le=1_000_000)] = 3
    """How often the team is started again, from the newest snapshot or checkpoint, without coming further than before;
    0 ends the run at the first failure, -1 goes on for ever."""

    max_preemption_failures: Annotated[int, Field(ge=-1, le=1_000_000)] = -1
    """How often the team is started again in all because a cluster takes a node away that it drains; -1 any number of
    times, 0 ends the run at the first, after a checkpoint."""

    wait_seconds: Annotated[float, Field(gt=0.0)] = 600.0
    """How long each time it is tried to start the team on as much as it had: a lost node may come back. Then its
    learners are laid over what is left of a cluster, several on one device, if that has room for them."""

    snapshot_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between snapshots, which the driver keeps in its memory between checkpoints so that few steps, beside those
    in flight, are computed again; as few as cost about one percent of the time, and at least two seconds, unless
    given."""

    checkpoint_patience_seconds: Annotated[float, Field(ge=0.0)] = 600.0
    """How long training goes on while checkpoints and metrics cannot be written, because the disk is full, read-only or
    away; what is missing is written when it can be. 0 ends the run at the first failure."""

    stall_seconds: Annotated[float, Field(gt=0.0)] | None = None
    """How long a learner may neither compute nor wait for others before it is ended and counts as lost; ten times the
    longest that one has taken so far for one thing, and at least a minute, unless given. Ten times as long it may take
    for one thing that it computes. As long may a process of a private Ray be stopped, a minute unless given."""


@plan_settings
class Plan:
    """Executor, resources, and how often a run reports and saves."""

    executor: Literal["ray", "process"] = "ray"
    """One Ray actor per learner, or all learners in turn in this process."""

    address: str | None = None
    """Ray cluster to join, such as `auto` or `HOST:6379`; a private local Ray is started unless given. A process that
    is connected to a Ray already uses that, and no other address is taken."""

    cpus_per_learner: Annotated[float, Field(ge=0.0)] | None = None
    """CPUs that each actor reserves; 1, or an equal share of the machine when it has fewer, unless given."""

    gpus_per_learner: Annotated[float, Field(ge=0.0)] | None = None
    """GPUs that each actor reserves, fractions allowed; 1, or an equal share, when there are GPUs and none is given."""

    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] | None = None
    """How the actors are laid over nodes: together, or each on its own node. Unless given, whole peers of a cohort are
    spread, and everything else, above all neighbours of a chain, is packed."""

    replicas: Annotated[int, Field(ge=1, le=1024)] = 1
    """Actors that train each segment or peer together, each on a part of every batch: the weights are those of one
    device up to the order of sums, but for dropout, which draws for each part."""

    window: Annotated[int, Field(ge=1, le=256)] | None = None
    """Training steps in flight at once; twice the number of learners unless given, and on direct links as many short
    steps as take a few tenths of a second."""

    transport: Literal["auto", "object_store", "direct", "direct_host"] = "auto"
    """How messages travel between actors: through Ray's object store, or on direct links (shared memory on a node, TCP
    between nodes; a GPU's own memory between learners on it, NCCL between GPUs, for which `direct_host` takes the
    memory of hosts, too). `auto` takes direct links where all actors are on one node or all learners on GPUs, and the
    object store otherwise."""

    object_store_bytes: Annotated[int, Field(ge=80 * 2**20)] | None = None
    """Size of the object store of a private Ray, of which no other Ray is told; computed from the messages and the
    window unless given."""

    start_timeout_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    """How long actors may take to start before the run ends with an error."""

    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints; one after every epoch unless given. The end and an interruption always make one."""

    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """How many of the newest checkpoints are kept."""

    evaluate_every_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations; the last epoch is always evaluated."""

    evaluate_test: bool = True
    """Whether evaluations score the test images, too; a search looks at validation images alone."""

    report_every_steps: Annotated[int, Field(ge=1)] = 10
    """Steps between reports of the learners' metrics."""

    recovery: Recovery = Recovery()
    """What is done when the process or node of a learner ends."""

    mirror: PathText | None = None
    """Folder or URI (s3://, gs://, abfs://, hdfs://) that becomes a copy of the run folder, from which another machine
    goes on. It is brought up to date after every checkpoint."""

    def steps_in_flight(self, learners: int) -> int:
        """Return the window of a team of so many learners."""
        return self.window or default_window(learners)


_ADAPTER: TypeAdapter[Plan] = TypeAdapter(Plan)

PLAN_VERSION = 1
"""Of the form of a plan.json: raised when a field is renamed, removed, or means something else."""


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain JSON values; `plan_from_dict` is the inverse."""
    dumped: dict[str, Any] = _ADAPTER.dump_python(plan, mode="json")
    return dumped


def plan_to_json(plan: Plan) -> str:
    """Return the text of a plan.json."""
    return json.dumps({"version": PLAN_VERSION, **plan_to_dict(plan)}, indent=2) + "\n"


def plan_from_dict(values: dict[str, Any]) -> Plan:
    """Return the plan that plain values describe; raises pydantic's ValidationError with one entry per mistake."""
    return _ADAPTER.validate_python(values)


def plan_cautions(plan: Plan) -> list[str]:
    """Return what a user should know of a plan that runs, but perhaps not as was meant; a line each."""
    lines = []
    if plan.object_store_bytes is not None and plan.address is not None:
        lines.append(
            f"plan.object_store_bytes={plan.object_store_bytes} does nothing: it is for a private Ray, and "
            f"plan.address={plan.address} is another, whose nodes have stores already"
        )
    recovery = plan.recovery
    given = f"plan.recovery.snapshot_every_steps={recovery.snapshot_every_steps} does nothing:"
    if recovery.snapshot_every_steps is None:
        return lines
    if plan.executor == "process":
        lines.append(f"{given} there are no snapshots with plan.executor=process, where all learners are one process")
    elif recovery.max_failures == 0:
        lines.append(
            f"{given} there are no snapshots with plan.recovery.max_failures=0, where no team is started again"
        )
    return lines


def plan_with_absolute_paths(plan: Plan) -> Plan:
    """Return the plan with its paths expanded and made absolute, so that it means the same in every folder.

    Raises:
        PlanError: a path cannot be meant; see `engine.paths.absolute`.
    """
    if plan.mirror is None or "://" in plan.mirror:
        return plan
    return dataclasses.replace(plan, mirror=str(absolute(plan.mirror, "plan.mirror", PlanError)))

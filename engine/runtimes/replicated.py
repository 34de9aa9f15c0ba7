"""A team of which several actors train each learner together (`plan.replicas`).

By the same program of calls, repeated for every replica: replica r of a learner takes the messages of the replicas r
of the others, which hold the same rows of the batch. Whatever is not training is one replica's business, as all are
equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engine.checkpoints import LearnerState
from engine.data import Batch, Facts
from engine.errors import EngineError, PlanError
from engine.learners import name_without_replica, replica_name
from engine.methods import Team
from engine.phases import PHASES, QUESTIONS
from engine.program import BATCH, SOURCE, Call, Message, Program
from engine.recipes import Obstacle, Plan, Recipe
from engine.runtimes.runtime import Answer, Losses, Runtime
from engine.tasks import task_of

_SUMS = ("images_per_second",)


def replicas_of(team: Team) -> dict[str, list[str]]:
    """Return the names of each learner's replicas in a replicated team."""
    found: dict[str, list[str]] = {}
    for name in team.names:
        found.setdefault(name_without_replica(name), []).append(name)
    return found


def check_replicable(recipe: Recipe, facts: Facts, plan: Plan) -> None:
    """Refuse replicas where there can be none, and recipes in which parts of a batch cannot be trained on apart.

    Raises:
        PlanError: says which field stands against it.
    """
    replicas = plan.replicas
    if replicas == 1:
        return
    obstacle = recipe.method.obstacle_to_replicas()
    if obstacle is None and (further := task_of(recipe, facts).further_terms()):
        compared = "all images of a batch, of which each replica has a part"
        if "triplet_weight" in recipe.task.further_fields:
            obstacle = Obstacle(f"the triplet loss compares {compared}", "task.triplet_weight=0")
        else:
            names = ", ".join(further)
            obstacle = Obstacle(f"further terms of task.kind={recipe.task.kind} ({names}) may compare {compared}")
    if obstacle is None and (recipe.data.labelled_fraction is not None or recipe.data.labelled_indices is not None):
        obstacle = Obstacle("where some images have no label, parts of a batch hold different numbers of labels")
    if obstacle is not None:
        raise PlanError(f"plan.replicas={replicas}, but {obstacle.reason}; set {obstacle.remedy or 'plan.replicas=1'}")
    left = 0 if recipe.data.classes_per_batch is not None else facts.sizes["train"] % recipe.data.batch_size
    smallest = left or recipe.data.batch_size
    if smallest < 2 * replicas:
        raise PlanError(
            f"plan.replicas={replicas}, but a batch of an epoch holds {smallest} images, and each replica needs two; "
            "lower plan.replicas, or change data.batch_size"
        )
    # Last, so that who follows it is not refused again.
    if plan.executor == "process":
        raise PlanError(f"plan.replicas={replicas}, but plan.executor=process has one device; set plan.executor=ray")


def replicate(team: Team, replicas: int) -> Team:
    """Return the team in which every learner is there R times, and its programs."""
    programs = {name: _replicated(program, replicas) for name, program in team.programs.items()}
    return replace(
        team,
        learners=tuple(
            replace(learner, name=replica_name(learner.name, replica))
            for learner in team.learners
            for replica in range(replicas)
        ),
        training=tuple(programs[program.name] for program in team.training),
        evaluation=programs[team.evaluation.name],
        recalibration=None if team.recalibration is None else programs[team.recalibration.name],
    )


def _replicated(program: Program, replicas: int) -> Program:
    """Return the program in which each call of training is made once for every replica, with messages of its own."""
    calls: list[Call] = []
    messages: dict[str, Message] = {}
    for call in program.calls:
        if call.learner == SOURCE:
            calls.append(call)
            messages |= {name: program.messages[name] for name in call.gives}
            continue
        own_replicas = replicas if PHASES[call.phase].use == "training" else 1
        for replica in range(own_replicas):
            gives = tuple(replica_name(name, replica) for name in call.gives)
            calls.append(
                Call(
                    replica_name(call.learner, replica),
                    call.phase,
                    tuple(name if name == BATCH else replica_name(name, replica) for name in call.takes),
                    gives,
                )
            )
            for own, name in zip(gives, call.gives, strict=True):
                messages[own] = _part(program.messages[name], own, own_replicas)
    return Program(tuple(calls), messages, program.name)


def _part(message: Message, name: str, parts: int) -> Message:
    """Return a message with the most rows that one of so many parts of it can have."""
    return Message(name, tuple(((-(-shape[0] // parts), *shape[1:]), dtype) for shape, dtype in message.parts))


class _Merged:
    """One answer for each learner, out of those of its replicas."""

    def __init__(self, answer: Answer, names: tuple[str, ...], replicas: int, question: str) -> None:
        self._answer, self._names, self._replicas, self._question = answer, names, replicas, question

    def result(self) -> dict[str, Any]:
        answers = self._answer.result()
        merge = _mean if QUESTIONS[self._question].over_replicas == "mean" else _first
        return {
            name: merge([answers[replica_name(name, replica)] for replica in range(self._replicas)])
            for name in self._names
        }


def _first(answers: list[Any]) -> Any:
    return answers[0]


def _mean(answers: list[dict[str, float]]) -> dict[str, float]:
    """Return means over replicas, whose parts differ by one image at most; rates add up."""
    return {name: sum(each[name] for each in answers) / (1 if name in _SUMS else len(answers)) for name in answers[0]}


class ReplicatedRuntime:
    """A runtime in which every learner is trained by R actors; nobody outside notices.

    Args:
        team: of the recipe, without replicas.
        replicas: R.
        open_inner: starts a runtime of the replicated team.
    """

    def __init__(self, team: Team, replicas: int, open_inner: Callable[[Team], Runtime]) -> None:
        self._names, self._replicas = team.names, replicas
        repeated = replicate(team, replicas)
        self._programs = repeated.programs
        self._inner = open_inner(repeated)

    def submit(self, program: Program, batch: Batch) -> None:
        """Run the program's calls on every replica, each on its rows of the batch."""
        self._inner.submit(self._programs[program.name], batch)

    def ask(self, question: str) -> Answer:
        """Ask all replicas; metrics are means over them, everything else is what the first one says."""
        return _Merged(self._inner.ask(question), self._names, self._replicas, question)

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give every replica the state of its learner."""
        self._inner.restore(
            {replica_name(name, replica): state for name, state in states.items() for replica in range(self._replicas)}
        )

    def keep_for_losses(self, losses: Losses) -> str:
        """What replicas tell one another is no message, so none of them comes back alone."""
        return "what replicas tell one another is not kept"

    needs_states = False

    def finish(self) -> None:
        """Wait until all that was submitted is done."""
        self._inner.finish()

    def notice(self) -> EngineError | None:
        """Return what the inner runtime says."""
        return self._inner.notice()

    def activity(self) -> float | None:
        """Return what the inner runtime says."""
        return self._inner.activity()

    def abandon(self) -> None:
        """Let nothing wait for the replicas any more."""
        self._inner.abandon()

    def describe(self) -> dict[str, str]:
        """Return where each replica lives, in words."""
        return self._inner.describe()

    def close(self) -> None:
        """Let the replicas go."""
        self._inner.close()

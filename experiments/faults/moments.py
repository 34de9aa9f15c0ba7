"""The moments of a training at which a fault can come: which function of the engine is wrapped for each of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.phases import PHASES
from experiments.faults import fault as faults
from experiments.faults.inside import Here

_OF_FIRST_FILES = 2


def around(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Put ``wrapper(original, *arguments)`` in the place of a function of a module or class."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        return wrapper(original, *arguments, **named)

    setattr(owner, name, wrapped)


def _trains(calls: Sequence[Any]) -> bool:
    """Tell whether a learner's, or all, calls of a program are those of a step; the source's are left out."""
    return all(PHASES[call.phase].use == "training" for call in calls)


def _whole_step(batch: Any) -> int:
    return int(batch.epoch * faults.STEPS_PER_EPOCH + batch.step + 1)


def _calls(module: ModuleType, here: Here) -> None:
    """A phase of a learner begins and ends: forward, update, and those of an evaluation."""

    def make_call(original: Any, learner: Any, phase: str, batch: Any, taken: Any, gives: Any) -> Any:
        if PHASES[phase].use != "training":
            here.reach(faults.EVALUATION)
            return original(learner, phase, batch, taken, gives)
        if batch is not None:
            here.step = _whole_step(batch)
        else:
            here.reach(faults.BETWEEN)
        given = original(learner, phase, batch, taken, gives)
        here.reach(faults.AFTER_FORWARD if batch is not None else faults.AFTER_UPDATE)
        return given

    around(module, "make_call", make_call)


def _schedule(module: Any, here: Here) -> None:
    """A learner on direct links is about to take its next messages."""

    def call(original: Any, schedule: Any, part: Any, place: int, batch: Any, held: Any) -> None:
        if place == 0 and _trains(part.calls):
            here.reach(faults.BEFORE_TAKING, _whole_step(batch))
        original(schedule, part, place, batch, held)

    around(module.LearnerSchedule, "_call", call)


def _actor(module: Any, here: Here) -> None:
    """A learner is about to take messages from the object store; it takes up a state."""

    def call(original: Any, actor: Any, number: int, phase: str, gives: Any, taken: Any) -> Any:
        if PHASES[phase].use == "training" and PHASES[phase].takes_batch:
            with here.lock:
                here.offered += 1
                step = here.offered
            here.reach(faults.BEFORE_TAKING, step)
        return original(actor, number, phase, gives, taken)

    def restore(original: Any, actor: Any, state: Any) -> None:
        original(actor, state)
        here.step = here.offered = state.extra.get("steps", 0)

    around(module.LearnerActor, "call", call)
    around(module.LearnerActor, "restore", restore)


def _messages(module: ModuleType, here: Here) -> None:
    """What a learner gives is on its way into the object store."""

    def pack(original: Any, tensor: Any) -> Any:
        here.reach(faults.SENDING)
        return original(tensor)

    around(module, "pack", pack)


class _Halves:
    """A connection on which something happens after half of what is sent."""

    def __init__(self, connection: Any, here: Here) -> None:
        self._connection, self._here = connection, here

    def sendall(self, content: bytes) -> None:
        middle = len(content) // 2
        self._connection.sendall(content[:middle])
        self._here.reach(faults.SENDING)
        self._connection.sendall(content[middle:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _ends(module: Any, here: Here) -> None:
    """Half of a message's header is on a direct link."""

    def send(original: Any, end: Any, *item: Any) -> None:
        connection = end._connection
        end._connection = _Halves(connection, here)
        try:
            original(end, *item)
        finally:
            end._connection = connection

    around(module.GivingEnd, "_send", send)


def _blueprint(module: Any, here: Here) -> None:
    """A learner is built, for the first time or after a fault."""
    import ray

    def build(original: Any, blueprint: Any, name: str) -> Any:
        here.name = name
        is_first = all(event["name"] != name for event in here.happened("build"))
        here.note("build", node=ray.get_runtime_context().get_node_id())
        here.reach(faults.BUILDING if is_first else faults.RECOVERING)
        return original(blueprint, name)

    around(module.Blueprint, "build", build)


def _submit(module: Any, here: Here) -> None:
    """The driver submits a step, or a batch of an evaluation."""

    def submit(original: Any, runtime: Any, program: Any, batch: Any) -> None:
        if _trains(program.calls[1:]):
            here.step = _whole_step(batch)
            here.reach(faults.SUBMITTING)
        else:
            here.reach(faults.EVALUATION)
        original(runtime, program, batch)
        here.count_objects()

    around(next(each for name, each in vars(module).items() if name.endswith("Runtime")), "submit", submit)


def _session(module: Any, here: Here) -> None:
    """The driver starts a team."""

    def start(original: Any, session: Any) -> Any:
        here.note("start")
        return original(session)

    around(module.Session, "start", start)


def _actors(module: Any, here: Here) -> None:
    """A team stands again, and is given its states."""

    def restore(original: Any, actors: Any, states: Any) -> None:
        here.reach(faults.RECOVERING)
        original(actors, states)

    around(module.LearnerActors, "restore", restore)


def _checkpoints(module: Any, here: Here) -> None:
    """A checkpoint is whole."""

    def save_checkpoint(original: Any, folder: Path, step: int, *arguments: Any) -> Path:
        path: Path = original(folder, step, *arguments)
        here.reach(faults.CHECKPOINT, step, path)
        return path

    around(module, "save_checkpoint", save_checkpoint)


def _atomic(module: Any, here: Here) -> None:
    """A checkpoint has some of its files."""

    def write_synced(original: Any, path: Path, content: bytes) -> None:
        checkpoint = path.parent
        if checkpoint.name.startswith(".step-") and len(list(checkpoint.iterdir())) == _OF_FIRST_FILES:
            here.reach(faults.CHECKPOINT, int(checkpoint.name.split("-")[1].split(".")[0]), checkpoint)
        original(path, content)

    around(module, "write_synced", write_synced)


MOMENTS: dict[str, Callable[[Any, Here], None]] = {
    "engine.runtimes.calls": _calls,
    "engine.runtimes.ray.schedule": _schedule,
    "engine.runtimes.ray.actor": _actor,
    "engine.runtimes.ray.messages": _messages,
    "engine.runtimes.ray.links.ends": _ends,
    "engine.runtimes.ray.blueprint": _blueprint,
    "engine.runtimes.ray.stream": _submit,
    "engine.runtimes.ray.object_store": _submit,
    "engine.runtimes.ray.actor_team": _actors,
    "engine.training.session": _session,
    "engine.checkpoints.folders": _checkpoints,
    "engine.atomic": _atomic,
}

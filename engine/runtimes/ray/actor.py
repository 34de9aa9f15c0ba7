"""The one kind of actor: it builds a learner where it will live, and runs that learner's phases.

Either call by call, with messages from the object store, or many steps in one walk, with messages on links.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import ray
import torch
import torch.distributed

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import EngineError, LearnerError
from engine.learners import Learner, LostReplica, Member, explain
from engine.program import BATCH, Message, Program
from engine.runtimes.calls import make_call
from engine.runtimes.ray.doing import Doing, Sign
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.linked_learner import Answered, Linked
from engine.runtimes.ray.links import Address, PlannedLink, Position
from engine.runtimes.ray.messages import Packed, pack, unpack
from engine.runtimes.ray.ordered_execution import OrderedExecution
from engine.runtimes.ray.process_groups import Place

# Calls that wait for messages and for their turn while an earlier one runs; all others share one thread.
OVERLAPPING = "overlapping"
THREADS = 32
# Answered whatever the others do.
WATCHING = "watching"


class Builder(Protocol):
    """What makes the learners of a team, such as a `Blueprint`."""

    def build(self, name: str) -> Member:
        """Build the learner of this name; raises LearnerError if it cannot be built."""


class LearnerActor:
    """A learner on a device of its own.

    After a failure it answers every further call with the same error, so nothing goes on from a half-finished step.

    Args:
        builder: builds the learner here, because no weights travel.
        name: the learner's name.
    """

    def __init__(self, builder: Builder, name: str) -> None:
        # Ray's own handler raises SystemExit wherever the process happens to be, which may tell its parent the reason
        # or only an exit code; ended by the signal itself, the kernel tells.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._builder = builder
        self._name = name
        self._failure: EngineError | None = None
        # Number of the first call that could not be made, because what it takes was lost with another learner.
        self._stopped_at: int | None = None
        self._order = OrderedExecution()
        self._doing = Doing()
        self._linked = Linked(name, self._doing)
        self._door: socket.socket | None = None

    def build(self) -> dict[str, Any]:
        """Build the learner; returns its actor's id, process, node, host and device, and how GPUs can reach it.

        Apart from the constructor, because Ray hides the cause of an error that is raised there.
        """
        self._learner = self._order.do(lambda: self._builder.build(self._name))
        device = self._learner.device
        gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
        context = ray.get_runtime_context()
        return {
            "actor": context.get_actor_id(),
            "pid": os.getpid(),
            "node": context.get_node_id(),
            "address": ray.util.get_node_ip_address(),
            "host": os.uname().nodename,
            "device": gpu.name if gpu is not None else "CPU",
            "gpu": str(gpu.uuid) if gpu is not None else "",
            "nccl": torch.distributed.is_nccl_available(),
        }

    @ray.method(concurrency_group=WATCHING)
    def sign(self, with_stacks: bool = False) -> Sign:
        """Return a sign of life, also while the learner computes or hangs."""
        return self._doing.sign(with_stacks=with_stacks)

    def check(self) -> None:
        """Raise what this learner failed with, or LostStep where another one's end has stopped it.

        A dead one does not even answer.
        """
        if self._failure is not None:
            raise self._failure
        if self._stopped_at is not None:
            raise LostStep(f"learner {self._name}: what call {self._stopped_at} takes was never made, or is lost")

    @contextlib.contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        """Remember what goes wrong inside, and let the partners know by ending the links to them."""
        self.check()
        try:
            yield
        except EngineError as error:
            lost = isinstance(error.__cause__, LostReplica)
            self._failure = LostStep(str(error)) if lost else error
            if lost:
                raise self._failure from error
            raise
        except Exception as error:
            self._failure = LearnerError(self._name, explain(error))
            raise self._failure from error
        finally:
            if self._failure is not None:
                self._linked.close()
                if isinstance(self._learner, Learner):
                    self._learner.part()

    @ray.method(concurrency_group=OVERLAPPING)
    def call(self, number: int, phase: str, gives: Sequence[Message], taken: Mapping[str, ray.ObjectRef]) -> Any:
        """Run one phase.

        Args:
            number: 0 for the first call or question, 1 for the next, and so on.
            phase: name of the phase.
            gives: the messages that the call gives.
            taken: where the messages are that it takes, by name, the batch among them. Ray is not told that the call
                takes them: it would leave out a call whose messages were never made, and let later calls, which wait
                for this one's turn, fill all threads before it while messages come from another node.
        """
        try:
            values = dict(zip(taken, ray.get(list(taken.values())), strict=True))
        except ray.exceptions.RayError:
            values = None

        def run() -> tuple[Packed, ...]:
            if values is None and self._stopped_at is None:
                # No failure of its own: its state is that before this call, which may yet be made.
                self._stopped_at = number
            self.check()
            assert values is not None
            with self._failing_for_good():
                messages = {name: unpack(value) for name, value in values.items() if name != BATCH}
                with self._doing.while_in(f"{phase}, call {number}"):
                    given = make_call(self._learner, phase, values.get(BATCH), messages, gives)
                return tuple(pack(tensor) for tensor in given)

        given = self._order.do_in_turn(number, run)
        return given[0] if len(given) == 1 else given or None

    def listen(self, host: str | None) -> Address:
        """As `Linked.listen`."""
        return self._linked.listen(host)

    def link(
        self,
        programs: Sequence[Program] | None,
        links: Sequence[PlannedLink],
        secret: bytes,
        timeout: float,
        step: int,
        wanted: Mapping[str, Position],
    ) -> None:
        """As `Linked.link`, also while the learner waits for a lost partner; with programs, as `Linked.begin`."""
        with self._failing_for_good():
            self._linked.link(self._learner, links, secret, timeout, step, wanted)
            if programs is not None:
                self._linked.begin(self._learner, programs)

    def part_from(self, lost: Sequence[str]) -> dict[str, Position]:
        """As `Linked.part_from`, while the learner may wait for them."""
        return self._linked.part_from(lost)

    def do_without(self, away: Sequence[str]) -> None:
        """As `Linked.do_without`, while the learner may wait for them."""
        self._linked.do_without(away)

    @ray.method(concurrency_group=OVERLAPPING)
    def run_schedule(
        self, number: int, steps: Sequence[tuple[str, Batch]], questions: Sequence[str], keep_since: int | None
    ) -> Answered:
        """Run the learner's part of some steps, and answer questions after the last of them.

        Args:
            number: as of `call`.
            steps: the name of the program, one of those that `link` was given, and the batch.
            questions: as of `ask`.
            keep_since: as of `Linked.walk`.
        """

        def run() -> Answered:
            started = time.perf_counter()
            with self._failing_for_good():
                self._linked.walk(steps, keep_since)
                seconds = time.perf_counter() - started
                return Answered(seconds, [self._answer(question) for question in questions])

        return self._order.do_in_turn(number, run)

    def ask(self, number: int, question: str) -> Any:
        """Answer a question between steps."""

        def answer() -> Any:
            self.check()
            return self._answer(question)

        return self._order.do_in_turn(number, answer)

    def _answer(self, question: str) -> Any:
        with self._doing.while_in(f"its answer to {question!r}"):
            return self._learner.ask(question)

    def resume(self) -> int:
        """Forget that another learner's end has stopped this one; returns the number of the first call not yet made.

        That call, and all that were asked for after it, are to be asked for again.
        """

        def resume() -> int:
            if self._stopped_at is not None:
                self._order.continue_at(self._stopped_at)
                self._stopped_at = None
            return self._order.next

        return int(self._order.do(resume))

    def begin_at(self, number: int) -> None:
        """Take a call's number for the first, because it takes the place of a learner that was asked before."""
        self._order.continue_at(number)

    def listen_for_replicas(self, host: str) -> int:
        """Return the port at which the other replicas of this learner can meet it, the first of them."""
        self._door = socket.create_server((host, 0))
        return int(self._door.getsockname()[1])

    def join(self, place: Place) -> None:
        """Meet the other replicas of this learner, and train with them from now on."""
        assert isinstance(self._learner, Learner), "only learners have replicas"
        learner = self._learner

        def join() -> None:
            with self._failing_for_good():
                learner.join(place.meet(self._door))

        self._order.do(join)

    def restore(self, state: LearnerState) -> None:
        """Take up the state of a checkpoint."""
        self._order.do(lambda: self._learner.restore(state))

"""This engine, measured through the same runtimes that train: end to end or cut, in process or on Ray."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from engine.benchmarking.baselines.job import Job
from engine.benchmarking.baselines.training import MeasuredCase, tensor_digests
from engine.benchmarking.batches import Batches
from engine.benchmarking.timeline import Calls, busy_seconds, calls_of, ends_of_steps
from engine.errors import EngineError
from engine.machine import shared_memory
from engine.methods import Team, method_of
from engine.recipes import Plan, Recipe, plan_from_dict, recipe_from_dict
from engine.runtimes import Runtime, open_runtime

_PARAMETERS = "body."


class EngineRun:
    """One recipe under one plan.

    Args:
        recipe: what is trained.
        plan: where it is trained.
        job: facts and batches.
    """

    def __init__(self, recipe: Recipe, plan: Plan, job: Job) -> None:
        self._recipe, self._plan = recipe, plan
        self._batches = Batches.read(job.batches)
        self._team: Team = method_of(recipe).team(recipe, job.facts)
        self._runtime: Runtime = open_runtime(recipe, job.facts, self._team, self._batches.steps_per_epoch, plan)
        self._next = 0
        learners = len(self._team.names)
        # In process nothing is in flight. Elsewhere the window fills before the counted steps, and stays full after
        # them, so that no learner has less beside it than in training.
        in_flight = plan.steps_in_flight(learners) if plan.executor == "ray" else 0
        self._before, self._after = 1 + in_flight, in_flight

    def prepare(self) -> dict[str, Any]:
        """As `MeasuredCase.prepare`; also ``together``, which learners of one process keep their graphs at once."""
        weights = self.digests()
        self._submit(1)
        memory = self._runtime.ask("memory").result()
        metrics = self._runtime.ask("metrics").result()
        places = self._runtime.ask("timeline").result()
        return {
            "weights": weights,
            "first_loss": {name: found.get("loss/total") for name, found in metrics.items()},
            "memory": memory,
            "together": self._together(),
            "processes": sorted({place["process"] for place in places.values()}),
        }

    def run(self, steps: int) -> dict[str, Any]:
        """As `MeasuredCase.run`; also ``busy`` seconds of a step by learner, and the ``calls`` of the counted steps.

        Learners on a GPU know when they asked for a call, not when it was done, so there is nothing of these.

        Raises:
            EngineError: on a GPU, some steps took no time beside what fills and empties a pipeline.
        """
        memory = self._runtime.ask("memory").result()
        if any(map(is_on_gpu, memory.values())):
            return self._run_behind(steps)
        first = self._next + self._before
        self._submit(self._before + steps + self._after)
        answers: dict[str, Any] = self._runtime.ask("timeline").result()
        calls = calls_of(answers, self._batches.steps_per_epoch)
        ends = ends_of_steps(calls)
        seconds = (ends[first + steps - 1] - ends[first - 1]) / steps
        counted: Calls = {
            learner: [call for call in own if first <= call.step < first + steps] for learner, own in calls.items()
        }
        busy = {learner: busy_seconds(own) / steps for learner, own in counted.items() if own}
        return {
            "seconds": seconds,
            "waiting": [max(0.0, 1 - each / seconds) for each in busy.values()],
            "device_bytes": None,
            "busy": busy,
            "calls": {learner: [list(call) for call in own] for learner, own in counted.items()},
        }

    def _run_behind(self, steps: int) -> dict[str, Any]:
        """As `run`, where devices do later what they were asked for: between times at which they have done all of it.

        What fills and empties a pipeline takes the same time whatever lies between, so a run without the counted steps
        tells what these take.
        """
        self._drained_seconds(1)
        beside = self._before - 1 + self._after
        without = self._drained_seconds(beside)
        seconds = (self._drained_seconds(beside + steps) - without) / steps
        if seconds <= 0:
            raise EngineError(f"{steps} steps could not be told from noise on this GPU; give more --steps")
        memory = self._runtime.ask("memory").result()
        used = max(each["total"] for each in memory.values() if is_on_gpu(each))
        return {"seconds": seconds, "waiting": None, "device_bytes": used}

    def _drained_seconds(self, steps: int) -> float:
        """Return how long some steps take, to the end of all that devices were asked for; they begin with nothing."""
        started = time.perf_counter()
        self._submit(steps)
        # Losses are read for it, after all that the devices were asked for before.
        self._runtime.ask("metrics").result()
        return time.perf_counter() - started

    def _together(self) -> list[list[str]]:
        if self._plan.executor == "ray":
            return []
        groups = {(own, *sorted(others)) for program in self._team.training for own, others in program.at_work()}
        return sorted(map(list, groups))

    def _submit(self, steps: int) -> None:
        for number in range(self._next, self._next + steps):
            self._runtime.submit(self._team.program(number), self._batches.batch(number))
        self._next += steps
        self._runtime.finish()

    def digests(self) -> dict[str, str]:
        """As `MeasuredCase.digests`; of one network the names are its own, of several its name comes first."""
        states = self._runtime.ask("state").result()
        found: dict[str, Tensor] = {}
        for name, network in self._team.networks.items():
            prefix = "" if len(self._team.networks) == 1 else f"{name}."
            for learner in network.learners:
                for key, value in states[learner].tensors.items():
                    if key.startswith(_PARAMETERS) and not _is_buffer(key):
                        found[prefix + key[len(_PARAMETERS) :]] = value
        return tensor_digests(found)

    def close(self) -> None:
        """Let the learners go."""
        self._runtime.close()


def is_on_gpu(memory: Mapping[str, int]) -> bool:
    """Return whether a learner with this memory is on a GPU: only there it knows what is reserved."""
    return "reserved" in memory


def _is_buffer(name: str) -> bool:
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


def open_cases(job: Job) -> dict[str, MeasuredCase]:
    """Return this engine's cases by name.

    Their settings are ``recipe``, JSON of the recipe, and ``plan``, JSON of the plan. Cases on Ray share one private
    Ray with a CPU for every learner of all of them: only one case works at a time.
    """
    chosen = {
        name: (recipe_from_dict(settings["recipe"]), plan_from_dict(settings["plan"]))
        for name, settings in job.cases.items()
    }
    on_ray = [(recipe, plan) for recipe, plan in chosen.values() if plan.executor == "ray" and plan.address is None]
    if on_ray:
        _start_ray(on_ray, job)
    return {name: EngineRun(recipe, plan, job) for name, (recipe, plan) in chosen.items()}


def _start_ray(chosen: Sequence[tuple[Recipe, Plan]], job: Job) -> None:
    from engine.runtimes.ray import start_private_ray
    from engine.runtimes.ray.cluster import private_node
    from engine.runtimes.ray.placement import choose_store, store_bytes_needed
    from engine.runtimes.ray.transport import choose_transport

    teams = [(method_of(recipe).team(recipe, job.facts), plan) for recipe, plan in chosen]
    learners = sum(len(team.names) * plan.replicas for team, plan in teams)
    needed = sum(store_bytes_needed(team, plan) for team, plan in teams)
    direct = all(choose_transport(plan, 1, on_gpus=False).kind == "direct" for _, plan in chosen)
    store = choose_store(chosen[0][1], needed, shared_memory().free, "direct" if direct else "object_store")
    start_private_ray(store.bytes, max(learners, int(private_node()["CPU"])), store.on_disk)

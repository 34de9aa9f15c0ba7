"""The cases of a benchmark, this engine's own among them, and why others are left out."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from engine.benchmarking.baselines.job import Kind
from engine.benchmarking.batches import Images
from engine.errors import LearnerError, RecipeError
from engine.learners import choose_device
from engine.methods import Team, method_of
from engine.recipes import EndToEnd, Plan, Recipe, Segmented, plan_to_dict, recipe_to_dict
from engine.timing import chosen_recipe

Family = Literal[
    "end_to_end", "process", "ray", "checkpoint", "gpipe", "1f1b", "interleaved", "zero_bubble", "ddp", "fsdp"
]
# What a device for each segment would bring is told for these, too, where the network has as many blocks.
SIMULATED = (4, 8)


@dataclass(frozen=True)
class Case:
    """One way of training.

    Attributes:
        name: unique in a measurement.
        family: what it is.
        workers: processes that compute at the same time.
        threads: torch threads of each.
        num_segments: K; None where this engine cuts nothing.
        variant: chunks or micro-batches; None where there are none.
        settings: what its processes need to know; see the modules of `engine.benchmarking.baselines`.
        auxiliary_parameters: trained values of heads and decoders, which only this engine has.
        chosen: the settings of a baseline in words; "" of this engine.
    """

    name: str
    family: Family
    workers: int
    threads: int
    num_segments: int | None = None
    variant: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    auxiliary_parameters: int = 0
    chosen: str = ""


@dataclass(frozen=True)
class CaseGroup:
    """Cases that the same processes serve, one at a time.

    Attributes:
        kind: which module trains.
        cases: at least one.
        devices: where each process computes; one process for each.
        recipe: that every process gets.
    """

    kind: Kind
    cases: tuple[Case, ...]
    devices: tuple[str, ...]
    recipe: Recipe


@dataclass(frozen=True)
class Machine:
    """What there is to compute with.

    Attributes:
        cores: that this process may use.
        gpus: that torch sees, if the recipe computes on GPUs; else 0.
    """

    cores: int
    gpus: int

    @classmethod
    def for_recipe(cls, recipe: Recipe) -> Machine:
        """Return what a recipe finds here; raises PlanError if it asks for a GPU and there is none."""
        gpus = torch.cuda.device_count()
        on_gpu = choose_device(recipe.numerics, bool(gpus)).type == "cuda"
        return cls(len(os.sched_getaffinity(0)), gpus if on_gpu else 0)

    def at_once(self, threads: int) -> int:
        """Return how many workers with so many threads it keeps busy at the same time."""
        return self.gpus or max(1, self.cores // threads)

    def thread_counts(self, recipe: Recipe, worker_counts: Sequence[int]) -> list[int]:
        """Return with how many threads one process is measured: those of one worker, and of all workers together."""
        threads = recipe.numerics.threads
        together = min(self.cores, max([1, *worker_counts]) * threads)
        return sorted({threads, threads if self.gpus else together})

    def describe(self) -> str:
        """Return the devices in words."""
        return f"{self.gpus} x {torch.cuda.get_device_name(0)}" if self.gpus else f"{self.cores} CPU cores"


class EngineCases:
    """The cases of this engine: end to end, in process and on Ray.

    Args:
        images: recipe, facts and batches.
        plan: where learners live; ``executor=process`` leaves Ray out.
        ks: numbers of segments; 1 and the recipe's own unless given.
        machine: to compute with.
        say: told which cuts are chosen where they are to be measured.

    Attributes:
        groups: of cases, in the order of the table.
        left_out: reasons, by what is not measured.

    Raises:
        RecipeError: a K that the method or the network does not have.
    """

    def __init__(
        self,
        images: Images,
        plan: Plan,
        ks: Sequence[int] | None,
        machine: Machine,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._recipe, self._facts, self._machine, self._say = images.recipe, images.facts, machine, say
        self._chosen: dict[int, Recipe] = {}
        self._plan = dataclasses.replace(plan, report_every_steps=10**6)
        self.left_out: dict[str, str] = {}
        self.groups: list[CaseGroup] = []
        self.teams: dict[int | None, tuple[Recipe, Team]] = self._cuts(ks)
        self._end_to_end()
        self._in_process()
        self._on_ray()

    def _cuts(self, ks: Sequence[int] | None) -> dict[int | None, tuple[Recipe, Team]]:
        method = self._recipe.method
        if not isinstance(method, Segmented):
            if any(k != 1 for k in ks or ()):
                raise RecipeError(
                    f"--k {','.join(map(str, ks or ()))}: method.kind={method.kind} does not cut the network into "
                    "segments, and its team is measured as it is; leave --k out, or choose infopro or another method "
                    "that cuts"
                )
            # A cohort's peers may be cut, too.
            recipe = chosen_recipe(self._recipe, self._facts, self._plan, self._say)
            self._chosen[method.num_segments] = recipe
            return {None: (recipe, self._team(recipe))}
        found: dict[int | None, tuple[Recipe, Team]] = {}
        for k in sorted(set(ks or (1, method.num_segments))):
            if k < 1:
                raise RecipeError(f"--k {k}: expected numbers of segments from 1 on, such as --k 1,2,4")
            found[k] = (self._cut(k), self._team(self._cut(k)))
        return found

    def _cut(self, k: int) -> Recipe:
        own = self._recipe.method
        assert isinstance(own, Segmented)
        if k not in self._chosen:
            cuts = own.cuts
            if not isinstance(cuts, str) and k != own.num_segments:
                if k > 1:
                    self._say(f"K = {k}: cut by balanced_layers, because method.cuts={','.join(cuts)} is for another K")
                cuts = "balanced_layers" if k > 1 else ()
            recipe = dataclasses.replace(self._recipe, method=dataclasses.replace(own, num_segments=k, cuts=cuts))
            self._chosen[k] = chosen_recipe(recipe, self._facts, self._plan, lambda line: self._say(f"K = {k}: {line}"))
        return self._chosen[k]

    def _team(self, recipe: Recipe) -> Team:
        return method_of(recipe).team(recipe, self._facts)

    @property
    def recipe(self) -> Recipe:
        """The recipe as given, but with the cuts that were measured for its own number of segments."""
        return self._chosen.get(self._recipe.method.num_segments, self._recipe)

    @property
    def worker_counts(self) -> list[int]:
        """Numbers of workers at which baselines are measured: those of this engine's teams that have several."""
        replicas = self._plan.replicas if self._plan.executor == "ray" else 1
        return sorted({replicas * len(team.names) for _, team in self.teams.values()} - {1})

    def _end_to_end(self) -> None:
        """Add end-to-end training with the threads of one worker, and with those of all workers together."""
        recipe = dataclasses.replace(self._recipe, method=EndToEnd())
        for count in self._machine.thread_counts(recipe, self.worker_counts):
            # With which all is compared: nothing is run again, whatever the recipe says.
            numerics = dataclasses.replace(recipe.numerics, threads=count, recompute="none")
            changed = dataclasses.replace(recipe, numerics=numerics)
            words = "" if self._machine.gpus else f", {count} thread{'s' if count > 1 else ''}"
            self._alone(f"end to end, one device{words}", "end_to_end", changed, None)

    def _in_process(self) -> None:
        for k, (recipe, _) in self.teams.items():
            if k != 1:
                self._alone(f"{_label(recipe, k)}, in process", "process", recipe, k)
        for k in SIMULATED:
            if None in self.teams or k in self.teams:
                continue
            name = f"{_label(self._recipe, k)}, in process"
            try:
                self._alone(name, "process", self._cut(k), k)
            except (RecipeError, LearnerError) as error:
                self.left_out[f"{name}, for the simulation"] = str(error)

    def _alone(self, name: str, family: Family, recipe: Recipe, k: int | None) -> None:
        plan = dataclasses.replace(self._plan, executor="process", address=None, replicas=1)
        self.groups.append(CaseGroup("engine", (self._case(name, family, recipe, plan, k),), ("",), recipe))

    def _on_ray(self) -> None:
        if self._plan.executor != "ray":
            self.left_out["this engine on Ray"] = f"plan.executor={self._plan.executor}"
            return
        plan = self._plan
        if self._machine.gpus and plan.gpus_per_learner is None:
            # All of them live at the same time, though only some of them work.
            learners = plan.replicas * sum(len(team.names) for _, team in self.teams.values())
            share = min(1.0, math.floor(10_000 * self._machine.gpus / learners) / 10_000)
            plan = dataclasses.replace(plan, gpus_per_learner=share)
        words = [plan.transport.replace("_", " ")] if plan.transport != "auto" else []
        words += [f"{plan.replicas} replicas"] if plan.replicas > 1 else []
        where = f"on Ray ({', '.join(words)})" if words else "on Ray"
        cases = [
            self._case(f"{_label(recipe, k)}, {where}", "ray", recipe, plan, k) for k, (recipe, _) in self.teams.items()
        ]
        self.groups.append(CaseGroup("engine", tuple(cases), ("",), self._recipe))

    def _case(self, name: str, family: Family, recipe: Recipe, plan: Plan, k: int | None) -> Case:
        team = self._team(recipe)
        return Case(
            name,
            family,
            len(team.names) * plan.replicas if family == "ray" else 1,
            recipe.numerics.threads,
            k,
            None,
            {"recipe": recipe_to_dict(recipe), "plan": plan_to_dict(plan)},
            sum(learner.auxiliary_parameters for learner in team.learners),
        )


def _label(recipe: Recipe, k: int | None) -> str:
    return recipe.method.kind if k is None else f"{recipe.method.kind}, K = {k}"

"""The job of a process that measures some cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.data import Facts
from engine.recipes import Plan, Recipe, plan_from_dict, plan_to_dict, recipe_from_dict, recipe_to_dict

Kind = Literal["engine", "checkpointing", "pipelines", "data_parallel", "block_times"]


@dataclass(frozen=True)
class Job:
    """What all processes of a group are told; only the rank differs.

    Attributes:
        kind: which module of this room trains.
        recipe: what is trained; each case of this engine has one of its own.
        plan: where this engine's learners live; baselines do not look at it.
        facts: of the images.
        batches: file of the training batches, as `engine.benchmarking.batches` writes it.
        cases: settings of each case, by its name; see the modules.
        workers: number of processes.
        rank: of this process, from 0.
        store: file through which the processes find one another.
        device: where this process computes, such as ``cpu`` or ``cuda:1``; not for this engine, which chooses itself.
        timeout_seconds: after which a process that waits for another gives up.
    """

    kind: Kind
    recipe: Recipe
    plan: Plan
    facts: Facts
    batches: str
    cases: Mapping[str, Mapping[str, Any]]
    workers: int = 1
    rank: int = 0
    store: str = ""
    device: str = "cpu"
    timeout_seconds: float = 600.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` is the inverse."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {
            "recipe": recipe_to_dict(self.recipe),
            "plan": plan_to_dict(self.plan),
            "facts": self.facts.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """Return the job that `to_json` wrote."""
        return cls(
            **{
                **values,
                "recipe": recipe_from_dict(values["recipe"]),
                "plan": plan_from_dict(values["plan"]),
                "facts": Facts.from_json(values["facts"]),
            }
        )

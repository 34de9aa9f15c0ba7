"""The blueprint from which an actor builds its learner where it will live: the recipe as JSON, never weights."""

from __future__ import annotations

import contextlib
import json
import traceback
from dataclasses import dataclass

from engine.data import Facts
from engine.errors import EngineError, LearnerError
from engine.learners import Member, choose_device, explain, name_without_replica, numerics_applied
from engine.methods import method_of
from engine.partition import Findings
from engine.recipes import Recipe, recipe_from_dict, recipe_to_dict

# Holds the settings of torch for the life of the process: let go, they would be put back at once.
_FOR_LIFE = contextlib.ExitStack()


@dataclass(frozen=True)
class Blueprint:
    """Builds any learner of a team.

    Attributes:
        recipe: JSON of the resolved recipe.
        facts: JSON of what is known of the data.
        steps_per_epoch: optimizer steps in an epoch.
        gpus_are_planned: whether actors reserve GPUs or parts of them.
        replicated: whether the names are those of replicas.
        findings: of the process that made the team.
    """

    recipe: str
    facts: str
    steps_per_epoch: int
    gpus_are_planned: bool
    replicated: bool
    findings: Findings

    @classmethod
    def of(
        cls, recipe: Recipe, facts: Facts, steps_per_epoch: int, gpus_are_planned: bool, replicated: bool
    ) -> Blueprint:
        """Return the blueprint of a recipe's team."""
        wanted, known = json.dumps(recipe_to_dict(recipe)), json.dumps(facts.to_json())
        return cls(wanted, known, steps_per_epoch, gpus_are_planned, replicated, Findings.of_this_process())

    def build(self, name: str) -> Member:
        """Build a learner, and apply the recipe's numerics to this process, which from now on is the learner's alone.

        Raises:
            LearnerError: it cannot be built.
        """
        try:
            self.findings.remember()
            recipe, facts = recipe_from_dict(json.loads(self.recipe)), Facts.from_json(json.loads(self.facts))
            _FOR_LIFE.enter_context(numerics_applied(recipe.numerics))
            device = choose_device(recipe.numerics, self.gpus_are_planned)
            wanted = name_without_replica(name) if self.replicated else name
            learner = method_of(recipe).build_learner(recipe, facts, self.steps_per_epoch, wanted, device)
            learner.name = name
            return learner
        except EngineError:
            raise
        except Exception as error:
            raise LearnerError(name, f"could not be built: {explain(error)}", traceback.format_exc()) from error

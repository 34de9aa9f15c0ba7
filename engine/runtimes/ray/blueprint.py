"""The blueprint from which an actor builds its learner where it will live: the recipe as JSON, never weights."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from engine.data import Facts
from engine.errors import EngineError, LearnerError
from engine.learners import Member, choose_device, explain, name_without_replica, numerics_applied
from engine.methods import method_of
from engine.partition import Findings
from engine.recipes import Recipe, recipe_from_dict, recipe_to_dict
from engine.recipes.own_files import check_unchanged, own_files

# Holds the settings of torch for the life of the process: let go, they would be put back at once.
_FOR_LIFE = contextlib.ExitStack()


@dataclass(frozen=True)
class Blueprint:
    """Builds any learner of a team.

    Attributes:
        recipe: JSON of the resolved recipe.
        own_files: digests of the user's own files that the recipe names, by path, which is the same on every node.
        facts: JSON of what is known of the data.
        steps_per_epoch: optimizer steps in an epoch.
        gpus_are_planned: whether actors reserve GPUs or parts of them.
        replicated: whether the names are those of replicas.
        findings: of the process that made the team.
    """

    recipe: str
    own_files: Mapping[str, str]
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
        values, known = recipe_to_dict(recipe), json.dumps(facts.to_json())
        findings = Findings.of_this_process()
        return cls(
            json.dumps(values), own_files(values), known, steps_per_epoch, gpus_are_planned, replicated, findings
        )

    def build(self, name: str) -> Member:
        """Build a learner, and apply the recipe's numerics to this process, which from now on is the learner's alone.

        Raises:
            RecipeError: a file of the user's own is not that of the other learners.
            LearnerError: it cannot be built.
        """
        try:
            self.findings.remember()
            values = json.loads(self.recipe)
            check_unchanged(self.own_files, values)
            recipe, facts = recipe_from_dict(values), Facts.from_json(json.loads(self.facts))
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

"""Cuts by measured times in a search: one cut for all trials where no searched field changes it, else one for each."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from engine.atomic import replace_file
from engine.errors import RunError
from engine.reading import checked, read_json, without_version
from engine.recipes import MEASURED, Plan, Recipe, has_measured_cuts, recipe_identity, segmented, with_modelled_cuts
from engine.search.definition import Sweep
from engine.search.settings import recipe_with
from engine.timing import chosen_recipe
from engine.training.session import Session

CUTS = "cuts.json"
CUTS_VERSION = 1
"""Of the form of a cuts.json: raised when an engine that knows the one before would misread it."""

# Searched fields that change neither what segments there can be nor how long they take.
_WITHOUT_INFLUENCE = ("optimizer.learning_rate", "optimizer.weight_decay", "schedule.", "epochs", "seed")
_ADVICE = "bring back a whole copy of it, or give another --run-dir, or --resume never to start a new search beside it"


@with_config(ConfigDict(extra="forbid", strict=True))
class _Cuts(TypedDict):
    """What cuts.json holds."""

    recipe: str
    """Digest of the recipe before any setting, whose cuts were still to be measured."""
    cuts: Annotated[list[str], Field(min_length=1)]


_SHAPE = TypeAdapter(_Cuts)


def with_base_cuts(
    definition: Sweep, base: Recipe, folder: Path, plan: Plan, tell: Callable[[str], None]
) -> tuple[Sweep, Recipe]:
    """Return a search and its recipe with the cuts that all trials share, where those are to be measured.

    They were measured when the search began, or are now. Where a searched field may change the cut, nothing changes
    here: each trial measures its own when it starts, beside the trials that run then.

    Args:
        definition: what is searched.
        base: the recipe before any setting.
        folder: of the search, which need not exist.
        plan: of the trials.
        tell: told what is timed and chosen.

    Raises:
        RecipeError, PlanError, DataError: nothing can be chosen.
        RunError: the folder's cuts.json is damaged.
    """
    inside = segmented(base)
    if inside is None or not has_measured_cuts(base) or inside.num_segments == 1:
        return definition, base
    field = f"{base.method.inside_field}.cuts"
    changing = next((name for name in definition.space if _may_change_cuts(name)), None)
    # Members of a population copy weights, so they are all cut alike.
    if changing is not None and definition.scheduler != "pbt":
        tell(f"{field}={MEASURED}: each trial times its blocks when it starts, because {changing} is searched")
        return definition, base
    blocks = _read(folder, base)
    if blocks is None:
        with Session(with_modelled_cuts(base), Plan()) as session:
            chosen = segmented(chosen_recipe(base, session.source.facts, plan, tell))
        assert chosen is not None
        blocks = tuple(chosen.cuts)
    others = [word for word in definition.fields if word.partition("=")[0] != field]
    definition = dataclasses.replace(definition, fields=(*others, f"{field}={','.join(blocks)}"))
    return definition, recipe_with(base, definition, {})


def keep_base_cuts(base: Recipe, chosen: Recipe, folder: Path) -> None:
    """Write cuts.json into the folder of a search, where all trials share cuts that were measured.

    Args:
        base: the recipe before any setting, as given.
        chosen: the same with its cuts, of `with_base_cuts`.
        folder: of the search, which exists.
    """
    inside = segmented(chosen)
    if not has_measured_cuts(base) or inside is None or has_measured_cuts(chosen):
        return
    values = {"version": CUTS_VERSION, "recipe": recipe_identity(base), "cuts": list(inside.cuts)}
    replace_file(folder / CUTS, (json.dumps(values, indent=2) + "\n").encode())


def _may_change_cuts(name: str) -> bool:
    return not name.startswith(_WITHOUT_INFLUENCE) and not name.rpartition(".")[2].endswith("weight")


def _read(folder: Path, base: Recipe) -> tuple[str, ...] | None:
    path = folder / CUTS
    if not os.path.lexists(path):
        return None
    values = read_json(path, RunError, follow_links=False, advice=_ADVICE)
    values = without_version(values, CUTS_VERSION, path, RunError)
    found = checked(values, _SHAPE, path, RunError, advice=_ADVICE)
    # That of another search is refused with its sweep.json.
    return tuple(found["cuts"]) if found["recipe"] == recipe_identity(base) else None

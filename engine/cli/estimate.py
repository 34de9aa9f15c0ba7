"""`local-learning estimate`: what a training would need, and how fast it could be."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.cli.outcome import Outcome
from engine.cli.words import PROGRAM, shown, whole_number, whole_numbers
from engine.errors import PlanError, RecipeError

if TYPE_CHECKING:
    from engine.data import Facts
    from engine.planning import CutEstimate, TeamEstimate
    from engine.recipes import Plan, Recipe

EPILOG = f"""examples:
  {PROGRAM} estimate infopro_cifar10_resnet32_k4
  {PROGRAM} estimate infopro_imagenet_resnet152 data.batch_size=256 --gpu-memory 16GB --gpus 4
  {PROGRAM} estimate infopro_cifar10_resnet110_k4 --k 2,4 --profile

Nothing is allocated that training would need, and no GPU; only a backbone of one's own is made on the CPU for a
moment. Pictures of one's own are looked at where they are, and need not be there if data.image_size and
data.num_classes are given. Sizes are those of the tensors; a GPU needs about half a GB for CUDA besides, its kernels
some room of their own, and direct links from GPU to GPU the messages of two steps. Shares of time and bounds follow a
model of one CPU core; messages count as free. --profile times blocks and segments on this machine, which takes
seconds for each K, and prints the cut that method.cuts=measured would choose, to become part of the recipe as
method.cuts=BLOCK,BLOCK."""

_POWERS = " KMGT"
_MOST = 1 << 16
_EXPECTED = f"a whole number from 1 to {_MOST:,}, such as"
# More than any device will have, and few enough for every count of bytes that is derived from it.
_MOST_BYTES = 10**18


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``estimate``."""
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe, FILE.py with recipe(), or a recipe.json")
    parser.add_argument(
        "fields", metavar="field=value", nargs="*", default=[], help="changes, such as data.batch_size=256"
    )
    parser.add_argument("--k", metavar="K,K", help="numbers of segments; 1,2,4,8 and the recipe's unless given")
    parser.add_argument(
        "--gpu-memory", metavar="16GB", help="find the fastest way, the smallest K and the largest batch that fit"
    )
    parser.add_argument("--gpus", metavar="N", help="number of devices; one for each learner unless given")
    parser.add_argument("--profile", action="store_true", help="time real blocks and segments for some seconds")


def run(options: argparse.Namespace) -> Outcome:
    """Estimate, and say what was assumed."""
    counts = _counts(options.k)
    memory = _bytes(options.gpu_memory)
    devices = None
    if options.gpus is not None:
        devices = whole_number(options.gpus, "--gpus", 1, _MOST, f"{_EXPECTED} --gpus 4", PlanError)
    from engine.recipes import Plan, apply_overrides, load_recipe, segmented, with_absolute_paths

    recipe, plan = apply_overrides(load_recipe(options.recipe), Plan(), options.fields)
    recipe = with_absolute_paths(recipe)
    from engine.cli.estimate_lines import estimate_lines
    from engine.planning.choosing import fastest_that_fits
    from engine.planning.estimate import estimate_team, obstacle_to_cuts, segment_counts, with_segments
    from engine.planning.fitting import largest_batch, smallest_that_fits
    from engine.planning.known_images import known_facts
    from engine.runtimes.replicated import check_replicable

    facts, assumed = known_facts(recipe)
    check_replicable(recipe, facts, plan)
    own = segmented(recipe)
    asked: Sequence[int | None] = counts or [own.num_segments if own else None]
    teams: list[TeamEstimate] = []
    left_out: dict[str, str] = {}
    for count in segment_counts(recipe, facts, counts):
        try:
            changed = with_segments(recipe, count, facts) if count else recipe
            teams.append(estimate_team(changed, facts, plan, devices))
        except RecipeError as error:
            if count in asked:
                raise
            left_out[f"K = {count}"] = str(error)
    obstacle = obstacle_to_cuts(recipe)
    if obstacle and options.profile:
        raise PlanError(f"--profile times segments one by one, but {obstacle}: leave --profile out")
    if obstacle:
        left_out["the comparison of cuts"] = obstacle
    compared = [] if obstacle else _cuts(recipe, facts, plan, teams, options.profile)
    cuts = [cut for cut in compared if not cut.obstacle]
    left_out |= {f"the cut {cut.rule} at K = {cut.num_segments}": cut.obstacle for cut in compared if cut.obstacle}
    whole = _end_to_end_seconds(recipe, facts, plan, teams)
    fits: dict[str, Any] = {}
    if memory is not None:
        smallest = smallest_that_fits(teams, memory)
        # Who has not said how many there are may have one, or one for each learner.
        numbers = [1] if plan.executor == "process" else [devices] if devices else [1, None]
        looked = [team.num_segments for team in teams]
        estimated = {numbers[-1]: teams}
        choices = fastest_that_fits(recipe, facts, plan, numbers, memory, looked, estimated)
        fits = {
            "gpu_memory": memory,
            "smallest_num_segments": smallest.num_segments if smallest else None,
            "num_segments": [team.num_segments for team in teams if team.needed <= memory],
            "any": smallest is not None,
            "fastest": [
                {
                    "devices": number,
                    "where": _where(number, plan),
                    "num_segments": choice.team.num_segments,
                    "fields": choice.fields,
                    "needed": choice.team.needed,
                    "speed_up": whole / choice.team.seconds,
                }
                for number, choice in zip(numbers, choices, strict=True)
                if choice is not None
            ],
            "largest_batch": largest_batch(recipe, facts, plan, devices, memory),
        }
    values = {
        "recipe": recipe.name,
        "batch_size": recipe.data.batch_size,
        "image_shape": facts.image_shape,
        "num_classes": facts.num_classes,
        "assumed": assumed,
        "teams": [{**team.to_json(), "speed_up": whole / team.seconds} for team in teams],
        "cuts": [
            {
                "num_segments": cut.num_segments,
                "rule": cut.rule,
                "blocks": cut.blocks,
                "memory": cut.memory,
                "speed_up": cut.speed_up,
            }
            for cut in cuts
        ],
        "left_out": left_out,
        "fits": fits or None,
    }
    return Outcome(estimate_lines(recipe, facts, assumed, teams, whole, cuts, left_out, fits), values)


def _where(devices: int | None, plan: Plan) -> str:
    if devices is not None:
        return "on one device" if devices == 1 else f"on {devices} devices"
    if plan.gpus_per_learner:
        return "on as many devices as plan.gpus_per_learner asks for"
    return "with a device for each learner"


def _end_to_end_seconds(recipe: Recipe, facts: Facts, plan: Plan, teams: Sequence[TeamEstimate]) -> float:
    """Return the modelled seconds of a step on one device without any cut, and with nothing run again."""
    from engine.planning.estimate import estimate_team, with_segments

    if recipe.numerics.recomputed_blocks:
        recipe = dataclasses.replace(recipe, numerics=dataclasses.replace(recipe.numerics, recompute="none"))
        if teams[0].num_segments is None:
            return estimate_team(recipe, facts, plan).total_seconds
        teams = [dataclasses.replace(teams[0], num_segments=0)]
    if teams[0].num_segments is None:
        return teams[0].total_seconds
    uncut = next((team for team in teams if team.num_segments == 1), None)
    return (uncut or estimate_team(with_segments(recipe, 1, facts), facts, plan)).total_seconds


def _cuts(recipe: Recipe, facts: Facts, plan: Plan, teams: Sequence[TeamEstimate], profile: bool) -> list[CutEstimate]:
    from engine.planning.estimate import compare_cuts

    counts = [team.num_segments for team in teams if team.num_segments is not None and team.num_segments > 1]
    if profile and not counts:
        raise PlanError(
            f"--profile times the blocks between which to cut, but method.kind={recipe.method.kind} is not cut here: "
            "leave --profile out" + (", or give --k with a number above 1" if teams[0].num_segments else "")
        )
    if not profile:
        return [cut for count in counts for cut in compare_cuts(recipe, facts, count)]
    from engine.timing import TimedBlocks, measured_cut, subject_of

    subject = subject_of(recipe, facts)
    blocks = TimedBlocks(subject, counts, -(-recipe.data.batch_size // plan.replicas))
    return [cut for count in counts for cut in compare_cuts(recipe, facts, count, measured_cut(subject, blocks, count))]


def _counts(text: str | None) -> Sequence[int] | None:
    return None if text is None else whole_numbers(text, "--k", 1, _MOST, f"{_EXPECTED} --k 4", PlanError)


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    # Not more digits than a float takes without becoming infinite.
    found = re.fullmatch(r"(\d{1,30}(?:\.\d{1,30})?)\s*([KMGT])(i?)B?", text.strip(), re.IGNORECASE | re.ASCII)
    size = 0.0
    if found:
        size = float(found[1]) * (1024 if found[3] else 1000) ** _POWERS.index(found[2].upper())
    if not 0 < size <= _MOST_BYTES:
        raise PlanError(
            f"--gpu-memory {shown(text)}: expected bytes with a unit, such as 16GB or 24GiB, and at most "
            f"{_MOST_BYTES // 10**12:,}TB"
        )
    return int(size)

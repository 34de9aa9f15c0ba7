"""Text of an estimate."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.cli.outcome import aligned
from engine.recipes import MEASURED, has_measured_cuts

if TYPE_CHECKING:
    from engine.data import Facts
    from engine.planning import CutEstimate, TeamEstimate
    from engine.recipes import Recipe

_MEBIBYTE = 1 << 20
_MOST_BLOCK_LETTERS = 60
# Cuts for which a recipe has a word.
_BY_RULE = ("balanced_layers", "balanced_memory", "balanced_time")


def estimate_lines(
    recipe: Recipe,
    facts: Facts,
    assumed: str,
    teams: Sequence[TeamEstimate],
    whole: float,
    cuts: Sequence[CutEstimate],
    left_out: Mapping[str, str],
    fits: Mapping[str, Any],
) -> list[str]:
    """Return tables of learners, teams and cuts, and what fits.

    Args:
        recipe: what would be trained.
        facts: what is known of the images.
        assumed: what had to be assumed, in words.
        teams: one for each number of segments.
        whole: modelled seconds of a step end to end on one device.
        cuts: side by side.
        left_out: reasons, by what nobody asked for and cannot be.
        fits: what fits into a given memory; empty if none was given.
    """
    shape = "x".join(map(str, facts.image_shape))
    lines = [
        f"{recipe.name}: {recipe.method.kind}, {recipe.backbone.name}, {facts.name} of {shape} in "
        f"{facts.num_classes:,} classes, batch {recipe.data.batch_size:,}, {recipe.numerics.precision}",
        *([f"assumed: {assumed}"] if assumed else []),
        *_to_be_measured(recipe, cuts),
        "",
        "MiB of each learner (of auxiliary networks in brackets), its share of the work, and what it hands on:",
        *_learners(teams),
        "",
        "MiB of a device, and of one that runs all learners in turn; overhead of auxiliary networks; bound on speed:",
        *_teams(teams, whole, fits.get("gpu_memory")),
        f"on Ray, and at most {_mebibytes(max(team.snapshot_bytes for team in teams))} MiB of the driver's own memory "
        "for snapshots between checkpoints",
        f"on direct links, and at most {_mebibytes(max(team.kept_bytes for team in teams))} MiB of all processes "
        "for a learner that comes back alone",
    ]
    if cuts:
        lines += [
            "",
            "cuts: saved activations of the largest segment over end to end, and bound on speed, a device for each:",
            *_cuts(cuts, recipe.method.inside_field),
        ]
    if left_out:
        lines += ["", *(f"left out: {name}: {reason}" for name, reason in left_out.items())]
    return lines + (["", *_fits(recipe, teams, fits)] if fits else [])


def _to_be_measured(recipe: Recipe, cuts: Sequence[CutEstimate]) -> list[str]:
    """Return which cut the tables are of, where the recipe's is not chosen yet."""
    if not has_measured_cuts(recipe):
        return []
    when = ", and below now" if any(cut.rule == MEASURED for cut in cuts) else " (--profile: now)"
    field = f"{recipe.method.inside_field}.cuts={MEASURED}"
    return [f"cuts: {field} is timed when a training starts{when}; the tables are of balanced_time"]


def _learners(teams: Sequence[TeamEstimate]) -> list[str]:
    head = (
        "K",
        "learner",
        "blocks",
        "activations",
        "parameters",
        "gradients",
        "optimizer",
        "kept",
        "peak",
        "work",
        "gives",
    )
    rows: list[tuple[str, ...]] = [head]
    for team in teams:
        for size in team.sizes:
            given = [count for name, count in team.messages.items() if team.givers[name] == size.name]
            rows.append(
                (
                    str(team.num_segments or "-"),
                    size.name,
                    _span(size.blocks),
                    _with_part(size.activations, size.auxiliary_activations),
                    _with_part(size.parameters, size.auxiliary_parameters),
                    _mebibytes(size.gradients),
                    _mebibytes(size.optimizer),
                    _mebibytes(sum(size.kept.values())) if size.kept else "-",
                    _mebibytes(size.peak),
                    f"{size.seconds / team.total_seconds:.1%}",
                    _mebibytes(sum(given)) if given else "-",
                )
            )
    return aligned(rows)


def _span(blocks: Sequence[str]) -> str:
    return blocks[0] if len(blocks) == 1 else f"{blocks[0]}..{blocks[-1]}"


def _mebibytes(count: float) -> str:
    size = count / _MEBIBYTE
    return f"{size:,.0f}" if size >= 1000 else f"{size:.3g}" if size < 100 else f"{size:.0f}"


def _with_part(count: int, part: int) -> str:
    return f"{_mebibytes(count)} ({_mebibytes(part)})"


def _teams(teams: Sequence[TeamEstimate], whole: float, memory: int | None) -> list[str]:
    head = ["K", "cuts", "devices", "largest", "in turn", "parameters", "MACs", "speed", "efficiency", "in flight"]
    rows = [[*head, "fits"] if memory is not None else head]
    for team in teams:
        row = [
            str(team.num_segments or "-"),
            _shortened(team.cuts) or "-",
            str(len(team.groups)),
            _mebibytes(team.device_bytes),
            _mebibytes(team.in_turn_bytes),
            f"+{team.parameter_overhead:.1%}",
            f"+{team.mac_overhead:.1%}",
            f"{whole / team.seconds:.2f}x",
            f"{team.efficiency:.0%}",
            f"{_mebibytes(team.in_flight_bytes)} ({team.window} steps)",
        ]
        rows.append([*row, "yes" if team.needed <= memory else "no"] if memory is not None else row)
    return aligned(rows)


def _cuts(cuts: Sequence[CutEstimate], path: str) -> list[str]:
    rows = [("K", "cut", "memory", "speed", f"{path}.cuts=")]
    rows += [
        (str(cut.num_segments), cut.rule, f"{cut.memory:.3f}", f"{cut.speed_up:.2f}x", _shortened(",".join(cut.blocks)))
        for cut in cuts
        if cut.rule in _BY_RULE
    ]
    # The others are meant to be copied.
    rows += [
        (
            str(cut.num_segments),
            cut.rule,
            f"{cut.memory:.3f}",
            f"{cut.speed_up:.2f}x",
            shlex.quote(",".join(cut.blocks)),
        )
        for cut in cuts
        if cut.rule not in _BY_RULE
    ]
    return aligned(rows)


def _smallest(recipe: Recipe, teams: Sequence[TeamEstimate], count: int) -> str:
    """Return the fields that cut a recipe into so many segments as the estimate did."""
    path, own = recipe.method.inside_field, recipe.method.inside.cuts
    cuts = next(team.cuts for team in teams if team.num_segments == count)
    same = cuts == (own if isinstance(own, str) else ",".join(own)) or has_measured_cuts(recipe)
    return f"{path}.num_segments={count}" + ("" if same else f" {path}.cuts={cuts}")


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_BLOCK_LETTERS else f"{text[: _MOST_BLOCK_LETTERS - 3]}..."


def _fits(recipe: Recipe, teams: Sequence[TeamEstimate], fits: Mapping[str, Any]) -> list[str]:
    memory = f"{fits['gpu_memory'] / 1e9:g} GB"
    batch = recipe.data.batch_size
    lines = []
    if fits["smallest_num_segments"] is not None:
        found = ", ".join(map(str, fits["num_segments"]))
        smallest = _smallest(recipe, teams, fits["smallest_num_segments"])
        lines.append(f"fits into {memory} at batch {batch:,} with K = {found}; the smallest: {smallest}")
    elif fits["any"]:
        lines.append(f"fits into {memory} at batch {batch:,}")
    else:
        looked = ", ".join(str(team.num_segments) for team in teams if team.num_segments)
        on_actors = any(len(team.sizes) > 1 and not team.in_process for team in teams)
        lines.append(
            f"does not fit into {memory} at batch {batch:,}"
            + (f" with K = {looked}" if looked else "")
            + (", each learner an actor" if on_actors else "")
        )
    for choice in fits["fastest"]:
        need = f"{choice['speed_up']:.2f}x the speed of end to end, {_mebibytes(choice['needed'])} MiB"
        fields = " ".join(map(shlex.quote, choice["fields"])) or "the recipe as it is"
        lines += [f"the fastest that fits {choice['where']} ({need}):", f"  {fields}"]
    largest = fits["largest_batch"]
    lines.append(f"largest batch of the recipe as it is: data.batch_size={largest}" if largest else "no batch fits")
    return lines

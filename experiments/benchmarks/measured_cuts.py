"""Times of the cut that `method.cuts=measured` chooses, beside the best that trying all finds.

    python -m experiments.benchmarks.measured_cuts [--cases resnet32:32:2:128,resnet32:32:4:128,resnet18:64:2:16]
        [--method infopro] [--threads 1] [--rounds 5] [--around 2] [--output FILE]

A case is a network, the side of its random images, K, and the images of a batch. First the cut is chosen, by the code
and in the seconds that a training takes. Then segments are timed as learners run them, with whole batches: for K = 2
those of every cut; for more, those of every cut whose boundaries are at most `--around` blocks from those of the
measured cut or of `balanced_time`. All of a case are timed in turn in every round, so that a drift of the machine
touches all alike; the median of each segment counts, and a cut is as slow as its slowest segment. The share of a core
that other processes used is recorded; a figure taken beside more than 5 % of it is marked. It takes minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine import backbones
from engine.data import Facts
from engine.partition import CostProfile, balance
from engine.planning.known_images import known_facts
from engine.recipes import Backbone, Data, Greedy, InfoPro, Numerics, Recipe
from engine.timing import Place, Subject, TimedBlocks, TimedSegments, measured_cut, subject_of
from experiments.benchmarks.side_by_side import others_share, seconds_of_others

_CASES = "resnet32:32:2:128,resnet32:32:4:128,resnet18:64:2:16"
_METHODS = {"greedy": Greedy, "infopro": InfoPro}


def make_recipe(network: str, side: int, num_segments: int, method: str, batch_size: int, threads: int) -> Recipe:
    """Return the recipe of one case."""
    return Recipe(
        name="measured_cuts",
        method=_METHODS[method](num_segments=num_segments, cuts="measured"),
        backbone=Backbone(name=network),
        data=Data(
            name="synthetic",
            num_classes=10,
            image_size=side,
            synthetic_images=2 * batch_size,
            batch_size=batch_size,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        numerics=Numerics(threads=threads, device="cpu"),
    )


def places_of(boundaries: Sequence[int], units: int) -> list[Place]:
    """Return the segments of a cut."""
    return [(part, *each) for part, each in enumerate(itertools.pairwise((0, *boundaries, units)))]


def cuts_to_try(units: int, num_segments: int, near: Sequence[Sequence[int]], around: int) -> Iterator[tuple[int, ...]]:
    """Yield boundaries: all for two segments, else those near others.

    Args:
        units: blocks of the network.
        num_segments: K.
        near: cuts around which others are tried.
        around: blocks by which each boundary may differ from theirs.
    """
    for boundaries in itertools.combinations(range(1, units), num_segments - 1):
        distances = (max(abs(a - b) for a, b in zip(boundaries, each, strict=True)) for each in near)
        if num_segments == 2 or min(distances) <= around:
            yield boundaries


def modelled_cut(subject: Subject, facts: Facts, num_segments: int) -> tuple[int, ...]:
    """Return the boundaries of `balanced_time`."""
    profile = CostProfile(subject.recipe, facts, subject.network, num_segments, subject.chain.objective)
    return balance(profile.seconds, profile.units, num_segments)


def measure(recipe: Recipe, rounds: int, around: int) -> dict[str, Any]:
    """Return one row: the measured cut, the best of those tried, and that of `balanced_time`."""
    facts, count = known_facts(recipe)[0], recipe.method.num_segments
    started = time.perf_counter()
    subject = subject_of(recipe, facts)
    chosen = measured_cut(subject, TimedBlocks(subject, [count], recipe.data.batch_size), count)
    seconds_to_choose = time.perf_counter() - started
    modelled = modelled_cut(subject, facts, count)
    tried = list(cuts_to_try(subject.units, count, (chosen.boundaries, modelled), around))
    places = sorted({place for each in tried for place in places_of(each, subject.units)})
    before, started = seconds_of_others(), time.perf_counter()
    times = TimedSegments(subject, count, recipe.data.batch_size)(places, rounds)
    load = others_share(before, time.perf_counter() - started)
    points = backbones.cut_points(subject.network)

    def slowest(boundaries: Sequence[int]) -> float:
        return max(times[place] for place in places_of(boundaries, subject.units))

    def named(boundaries: Sequence[int]) -> str:
        return ",".join(points[stop - 1] for stop in boundaries)

    best, side = min(tried, key=slowest), facts.image_shape[1]
    return {
        "case": f"{recipe.backbone.name}, {side} x {side}, K = {count}, batch {recipe.data.batch_size}",
        "cuts_tried": len(tried),
        "seconds_to_choose": seconds_to_choose,
        "rows_to_choose": chosen.rows,
        **{
            f"{name}_{what}": value
            for name, cut in (("measured", chosen.boundaries), ("best", best), ("balanced_time", modelled))
            for what, value in (("cut", named(cut)), ("milliseconds", 1000 * slowest(cut)))
        },
        "measured_over_best": slowest(chosen.boundaries) / slowest(best),
        "balanced_time_over_best": slowest(modelled) / slowest(best),
        "others_cpu_share": load,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    lines = [
        "| network | measured | best of those tried | balanced_time | measured over best | balanced_time over best | "
        "chosen in | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cuts = [
            f"{row[f'{name}_cut']} ({row[f'{name}_milliseconds']:.0f} ms)"
            for name in ("measured", "best", "balanced_time")
        ]
        busy = "beside other work" if row["others_cpu_share"] > 0.05 else ""
        lines.append(
            f"| {row['case']} | {cuts[0]} | {cuts[1]}, of {row['cuts_tried']} | {cuts[2]} "
            f"| {row['measured_over_best']:.3f} | {row['balanced_time_over_best']:.3f} "
            f"| {row['seconds_to_choose']:.0f} s, {row['rows_to_choose']} images | {busy} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=_CASES, help="NETWORK:SIDE:K:BATCH,...")
    parser.add_argument("--method", choices=sorted(_METHODS), default="infopro")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--around", type=int, default=2, help="blocks from the cuts around which others are tried")
    parser.add_argument("--output", type=Path, help="write the rows as JSON to this file too")
    arguments = parser.parse_args()
    rows = []
    for case in arguments.cases.split(","):
        network, side, count, batch_size = case.split(":")
        recipe = make_recipe(network, int(side), int(count), arguments.method, int(batch_size), arguments.threads)
        rows.append(measure(recipe, arguments.rounds, arguments.around))
        print(table(rows[-1:]), flush=True)
    print(f"\n{os.uname().machine}, {arguments.threads} threads, medians of {arguments.rounds} rounds\n")
    print(table(rows))
    document = {"machine": os.uname().machine, "threads": arguments.threads, "rows": rows}
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()

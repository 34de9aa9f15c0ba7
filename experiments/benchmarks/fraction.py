"""Cost of splitting predictions on mixed images, beside a training step of CIFAR ResNet-50.

    python -m experiments.benchmarks.fraction [--device cuda] [--threads 1] [--rounds 5] [--rules linear,exact]

Every rule of mixed knowledge fraction, on random predictions and bases of 64 and 512 rows and 100 and 1000 classes, in
float32, shares uniform in (0, 1). The step is forward, backward and SGD with momentum of ResNet-50 with the stem for
32 x 32 images, 100 classes, batch 64, float32. In each round every way is timed once, in turn, and medians over
rounds are compared. The share of a core that other processes used is recorded; a figure taken beside more than 5 % of
it is marked.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.backbones import build
from engine.knowledge.fraction import split_knowledge
from engine.recipes import Backbone, Fraction
from engine.streams import generator
from experiments.benchmarks.side_by_side import in_turn
from experiments.benchmarks.words import names_among

SHAPES = ((64, 100), (64, 1000), (512, 100), (512, 1000))
BATCH_SIZE, CLASSES, IMAGE = 64, 100, (3, 32, 32)
STEP = "training step of ResNet-50"
SECONDS_EACH = 0.2


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(call: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """Return a function that measures one call: the mean over as many as fill `SECONDS_EACH`."""

    def measure() -> float:
        call()
        wait_for(device)
        started, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - started < SECONDS_EACH:
            call()
            calls += 1
        wait_for(device)
        return (time.perf_counter() - started) / calls

    return measure


def make_step(device: torch.device) -> Callable[[], None]:
    """Return a function that trains for one step."""
    network = build(Backbone(name="resnet50", stem="cifar"), CLASSES, IMAGE, seed=0).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=3e-4)
    images = torch.rand((BATCH_SIZE, *IMAGE), generator=generator("images")).to(device)
    labels = torch.randint(CLASSES, (BATCH_SIZE,), generator=generator("labels")).to(device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def make_split(rule: Fraction, rows: int, classes: int, device: torch.device) -> Callable[[], object]:
    """Return a function that splits the predictions of one batch by a rule."""

    def softmax(part: str) -> Tensor:
        return torch.softmax(4 * torch.randn((rows, classes), generator=generator(part)), dim=1).to(device)

    mixed, first, second = softmax("mixed"), softmax("first"), softmax("second")
    share = torch.rand(rows, generator=generator("share")).to(device)
    return lambda: split_knowledge(mixed, first, second, share, rule)


def measure(rules: list[Fraction], rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Return one row for the step and one for each rule and shape."""
    calls: dict[str, Callable[[], object]] = {STEP: make_step(device)}
    described: dict[str, dict[str, Any]] = {STEP: {}}
    for rows, classes in SHAPES:
        for rule in rules:
            name = f"{rows} x {classes}, {rule}"
            calls[name] = make_split(rule, rows, classes, device)
            described[name] = {"rule": rule, "rows": rows, "classes": classes}
    taken, loads = in_turn({name: seconds_per_call(call, device) for name, call in calls.items()}, rounds)
    step = statistics.median(taken[STEP])
    return [
        {
            "way": name,
            **described[name],
            "milliseconds": 1000 * statistics.median(taken[name]),
            "range": [1000 * min(taken[name]), 1000 * max(taken[name])],
            "percent_of_step": 100 * statistics.median(taken[name]) / step,
            "others_cpu_share": statistics.median(loads[name]),
        }
        for name in calls
    ]


def main() -> None:
    """Measure, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rules", type=names_among(get_args(Fraction)), default=",".join(get_args(Fraction)))
    parser.add_argument("--output", type=Path, help="write the rows as JSON to this file too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    rules = [rule for rule in get_args(Fraction) if rule in arguments.rules]
    rows = measure(rules, arguments.rounds, device)
    print(f"{device}, {arguments.threads} threads, median of {arguments.rounds} rounds (smallest to largest)")
    for row in rows:
        low, high = row["range"]
        mark = "  beside others" if row["others_cpu_share"] > 0.05 else ""
        times = f"{row['milliseconds']:10.4f} ms ({low:.4f} to {high:.4f})"
        print(f"  {row['way']:34} {times} {row['percent_of_step']:9.4f} % of the step{mark}")
    text = json.dumps({"device": str(device), "cores": len(os.sched_getaffinity(0)), "rows": rows})
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

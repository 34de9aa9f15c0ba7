"""The ways of training that `experiments.gpu` measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from engine.benchmarking.batches import Images, read_images
from engine.methods import method_of
from engine.recipes import Plan, load_recipe
from experiments.benchmarks.one_device import checkpointing_cost, cost_of, planned_bytes
from experiments.benchmarks.steady_state import steady_state

Device = Literal["cpu", "cuda"]

PUBLISHED = {
    "ResNet-110, 32 x 32": (
        ("end to end", "end_to_end_cifar10_resnet110", "9.40 GB", "1"),
        ("checkpointing", "end_to_end_cifar10_resnet110", "3.91 GB, 0.42", "1.28"),
        ("InfoPro*, K = 2", "infopro_cifar10_resnet110_memory_k2", "5.38 GB, 0.57", "1.01"),
        ("InfoPro*, K = 3", "infopro_cifar10_resnet110_memory_k3", "4.22 GB, 0.45", "1.08"),
        ("InfoPro*, K = 4", "infopro_cifar10_resnet110_memory_k4", "3.52 GB, 0.37", "1.13"),
    ),
    "ResNet-110, 96 x 96": (
        ("end to end", "end_to_end_stl10_resnet110", "10.77 GB", "1"),
        ("checkpointing", "end_to_end_stl10_resnet110", "4.50 GB, 0.42", "1.27"),
        ("InfoPro*, K = 2", "infopro_stl10_resnet110_memory_k2", "6.15 GB, 0.57", "1.02"),
        ("InfoPro*, K = 3", "infopro_stl10_resnet110_memory_k3", "4.96 GB, 0.46", "1.07"),
        ("InfoPro*, K = 4", "infopro_stl10_resnet110_memory_k4", "4.08 GB, 0.38", "1.11"),
    ),
    "ResNet-101, 224 x 224": (
        ("end to end", "end_to_end_imagenet_resnet101", "19.71 GB", "1"),
        ("InfoPro*, K = 2", "infopro_imagenet_resnet101", "12.06 GB, 0.61", "1.12"),
    ),
    "ResNet-152, 224 x 224": (
        ("end to end", "end_to_end_imagenet_resnet152", "26.29 GB", "1"),
        ("InfoPro*, K = 2", "infopro_imagenet_resnet152", "15.53 GB, 0.59", "1.09"),
    ),
}
"""InfoPro (Wang et al. 2021), tables 3 and 4: ways, recipes, memory of one GPU, time as a share of that end to end."""

# Two for each of two replicas.
_FEWEST_ROWS = 4
# The published batch of ImageNet, 1024, was spread over 8 GPUs.
_IMAGENET_GPUS = 8
# The paper does not say how many chunks.
_CHUNKS = (2, 4, 8, 16)
METHODS = (
    "greedy_cifar10_resnet32",
    "dgl_cifar10_resnet32",
    "predsim_cifar10_resnet32",
    "dml_cifar100_resnet32_k3",
    "dsl_cifar100_resnet32",
    "dhm_cifar100_resnet32",
    "st_cifar100_resnet50",
    "gkt_cifar100_resnet50",
    "mkf_cifar100_resnet50",
)
_ON_RAY = "infopro_softmax_cifar10_resnet110_k2"


@dataclass(frozen=True)
class Figures:
    """What one measurement of a way found: seconds of a step; most bytes of its device, 0 if they were not measured."""

    seconds: float
    peak: int = 0


@dataclass(frozen=True)
class Way:
    """One way of training.

    Attributes:
        name: unique in its table.
        group: ways that are compared; the first of them is what the others are a share of.
        measure: takes a number of steps and a folder for files.
        planned_bytes: what the planner says; 0 if it is not asked.
        published_memory: what the paper says, in words.
        published_time: share of the time end to end, as the paper measured it.
    """

    name: str
    group: str
    measure: Callable[[int, Path], Figures]
    planned_bytes: int = 0
    published_memory: str = ""
    published_time: str = ""


def images_for(recipe_name: str, device: Device, shrink: int) -> Images:
    """Return a shipped recipe with random images and smaller batches, to be trained on a device.

    Args:
        recipe_name: as it is shipped.
        device: where it is trained.
        shrink: by how much batches are smaller.
    """
    recipe = load_recipe(recipe_name)
    rows = recipe.data.batch_size // (_IMAGENET_GPUS if "imagenet" in recipe_name else 1)
    rows = max(_FEWEST_ROWS, rows // shrink)
    data = dataclasses.replace(recipe.data, root="/nowhere", batch_size=rows, download=False)
    numerics = dataclasses.replace(recipe.numerics, device=device)
    return read_images(dataclasses.replace(recipe, data=data, numerics=numerics))


def memory_ways(device: Device, shrink: int) -> list[Way]:
    """Return the published networks, whole, with checkpointing, and cut."""
    ways = []
    for group, rows in PUBLISHED.items():
        for name, recipe_name, memory, overhead in rows:
            images = images_for(recipe_name, device, shrink)
            shown = f"{group}, batch {images.recipe.data.batch_size}, {name}"
            if name == "checkpointing":
                ways += [
                    Way(f"{shown}, {chunks} chunks", group, _in_turn(images, chunks), 0, memory, overhead)
                    for chunks in _CHUNKS
                ]
            else:
                planned = planned_bytes(images.recipe, images.facts)
                ways.append(Way(shown, group, _in_turn(images, 0), planned, memory, overhead))
    return ways


def method_ways(device: Device, shrink: int) -> list[Way]:
    """Return a recipe of each of some other methods."""
    ways = []
    for name in METHODS:
        images = images_for(name, device, shrink)
        planned = planned_bytes(images.recipe, images.facts)
        ways.append(Way(f"{name}, batch {images.recipe.data.batch_size}", name, _in_turn(images, 0), planned))
    return ways


def link_ways(device: Device, shrink: int) -> list[Way]:
    """Return two segments as actors, by the way that messages travel."""
    images = images_for(_ON_RAY, device, shrink)
    transports: tuple[Literal["object_store", "direct", "direct_host"], ...] = ("object_store", "direct", "direct_host")
    shown = f"ResNet-110, K = 2, batch {images.recipe.data.batch_size}"
    if device == "cpu":
        # There is no other memory than the host's.
        transports = transports[:2]
    return [
        Way(f"{shown}, {transport}", shown, _as_actors(images, _plan(device, 2, transport=transport)))
        for transport in transports
    ]


def replica_ways(device: Device, shrink: int) -> list[Way]:
    """Return two segments as actors, with one and with two replicas of each."""
    images = images_for(_ON_RAY, device, shrink)
    shown = f"ResNet-110, K = 2, batch {images.recipe.data.batch_size}"
    return [
        Way(
            f"{shown}, {count} replica{'s' * (count > 1)} of each segment",
            shown,
            _as_actors(images, _plan(device, 2 * count, replicas=count)),
        )
        for count in (1, 2)
    ]


def _plan(device: Device, actors: int, **fields: Any) -> Plan:
    if device == "cpu":
        return Plan(cpus_per_learner=1.0 / actors, **fields)
    return Plan(gpus_per_learner=min(1.0, torch.cuda.device_count() / actors), **fields)


def _in_turn(images: Images, chunks: int) -> Callable[[int, Path], Figures]:
    def measure(steps: int, folder: Path) -> Figures:
        if not chunks:
            found = cost_of(images.recipe, images.facts, images.batches, steps)
            return Figures(found.seconds, found.peak)
        file = folder / "batches.npz"
        images.batches.write(file)
        found = checkpointing_cost(images.recipe, images.facts, str(file), chunks, steps)
        return Figures(found.seconds, found.peak)

    return measure


def _as_actors(images: Images, plan: Plan) -> Callable[[int, Path], Figures]:
    team = method_of(images.recipe).team(images.recipe, images.facts)

    def measure(steps: int, folder: Path) -> Figures:
        beside = plan.steps_in_flight(len(team.names)) + 1
        seconds, _ = steady_state(images.recipe, images.facts, team, images.batches, plan, steps, beside)
        return Figures(seconds)

    return measure

"""What do the tests of the shipped recipes share: the recipes by name, and the commands of InfoPro's code."""

from __future__ import annotations

from engine.recipes import InfoPro, shipped_recipes

# The commands of InfoPro-Pytorch (comand.sh), contrastive heads:
# data, network, cuts, K, ixx_1, ixy_1, ixx_2, ixy_2; K = 2 has one local loss and so no second pair.
COMMANDS = """
cifar10 resnet32  published        2  5  1    -   -
cifar10 resnet32  published        4  6  0    1   2
cifar10 resnet32  published        8  5  0    0   2
cifar10 resnet32  published        16 5  0.05 0.2 0.5
cifar10 resnet110 published        2  5  0.5  -   -
cifar10 resnet110 published        4  1  0    0   1
cifar10 resnet110 published        8  5  0    0   1
cifar10 resnet110 published        16 5  0    0.5 1
cifar10 resnet110 published_memory 2  5  0.1  -   -
cifar10 resnet110 published_memory 3  5  0    5   0.1
cifar10 resnet110 published_memory 4  5  0    5   0.1
stl10   resnet110 published        2  10 1    -   -
stl10   resnet110 published        4  20 0.2  5   2
stl10   resnet110 published        8  20 0.2  5   1
stl10   resnet110 published        16 20 0.5  10  0.1
stl10   resnet110 published_memory 2  20 1    -   -
stl10   resnet110 published_memory 3  20 0.5  5   2
stl10   resnet110 published_memory 4  20 0.5  10  1
svhn    resnet110 published        2  1  0.1  -   -
svhn    resnet110 published        4  5  0    0.5 1
svhn    resnet110 published        8  5  0    0.5 2
svhn    resnet110 published        16 5  0.2  0.5 1
"""
ROWS = [tuple(line.split()) for line in COMMANDS.strip().splitlines()]
TINY = {
    "end_to_end_cifar10_resnet32_tiny",
    "greedy_cifar10_resnet32_tiny",
    "dgl_cifar10_resnet32_tiny",
    "predsim_cifar10_resnet32_tiny",
    "infopro_cifar10_resnet32_k4_tiny",
    "infopro_softmax_cifar10_resnet32_k2_tiny",
    "infopro_svhn_resnet110_tiny",
    "infopro_stl10_resnet110_tiny",
    "infopro_imagenet_resnet101_tiny",
    "infopro_imagenet_resnext101_32x8d_tiny",
}
RECIPES = {name: make() for name, make in shipped_recipes().items()}
WHOLE = {name: recipe for name, recipe in RECIPES.items() if not name.endswith("_tiny")}
KINDS = ("end_to_end", "greedy", "dgl", "predsim", "infopro")
# Cohorts, networks that teach themselves, their baselines, and other tasks have tests of their own.
OTHERS = {
    name
    for name, recipe in RECIPES.items()
    if recipe.method.kind not in KINDS
    or recipe.task.kind != "classification"
    or "100" in name
    or name.startswith(("baseline_", "unbranched_"))
}
PAPER = {name: recipe for name, recipe in WHOLE.items() if recipe.data.name != "digits" and name not in OTHERS}


def suffix(num_segments: int) -> str:
    return "" if num_segments == 2 else f"_k{num_segments}"


def infopro_name(data: str, network: str, cuts: str, num_segments: str) -> str:
    if cuts == "published_memory":
        return f"infopro_{data}_{network}_memory_k{num_segments}"
    return f"infopro_{data}_{network}{suffix(int(num_segments))}"


def lambdas(method: InfoPro) -> list[tuple[float, float]]:
    """Return (lambda_1, lambda_2) of every local loss."""
    count = method.num_segments
    return [
        (method.reconstruction_weight.at(segment, count), method.classification_weight.at(segment, count))
        for segment in range(count - 1)
    ]

"""Are the shipped recipes those of the papers, complete, and what their names say?"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine import backbones
from engine.learners.optimization import learning_rate_at
from engine.recipes import (
    SGD,
    InfoPro,
    Recipe,
    Segmented,
    load_recipe,
    recipe_identity,
    recipe_to_json,
    shipped_recipes,
)
from engine.recipes.files import recipes_folder

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
SIDES = {"cifar10": 32, "svhn": 32, "stl10": 96, "folder": 224, "digits": 8, "cityscapes": 512}
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


def expected_lambdas(row: tuple[str, ...]) -> list[tuple[float, float]]:
    """Work the authors' formula out by hand: ratio = j / (K - 2), and 0 where K = 2."""
    count = int(row[3])
    first_1, first_2 = float(row[4]), float(row[5])
    last_1, last_2 = (first_1, first_2) if row[6] == "-" else (float(row[6]), float(row[7]))
    found = []
    for j in range(count - 1):
        ratio = j / (count - 2) if count > 2 else 0
        found.append((first_1 * (1 - ratio) + last_1 * ratio, first_2 * (1 - ratio) + last_2 * ratio))
    return found


def test_the_names_are_complete() -> None:
    expected = set(TINY)
    for method in ("end_to_end", "greedy", "dgl", "predsim", "infopro"):
        expected.add(f"{method}_digits")
    for network in ("resnet32", "resnet110"):
        expected.add(f"end_to_end_cifar10_{network}")
        for count in (2, 4, 8, 16):
            expected |= {f"{method}_cifar10_{network}{suffix(count)}" for method in ("greedy", "dgl")}
            expected |= {
                f"greedy_contrastive_cifar10_{network}_k{count}",
                f"infopro_softmax_cifar10_{network}_k{count}",
            }
    expected |= {f"predsim_cifar10_resnet32{suffix(count)}" for count in (2, 4, 8, 16)}
    expected |= {infopro_name(*row[:4]) for row in ROWS}
    expected |= {"end_to_end_svhn_resnet110", "end_to_end_stl10_resnet110"}
    for network in ("resnet101", "resnet152"):
        expected |= {f"end_to_end_imagenet_{network}", f"infopro_imagenet_{network}"}
    assert set(RECIPES) - OTHERS == expected


def test_no_file_takes_a_name_of_another() -> None:
    counted = 0
    for path in recipes_folder().glob("[!_]*.py"):
        space: dict[str, object] = {"__name__": path.stem}
        exec(compile(path.read_text(), str(path), "exec"), space)
        recipes = space["RECIPES"]
        assert isinstance(recipes, dict)
        counted += len(recipes)
    assert counted == len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_called_what_its_key_says(name: str) -> None:
    assert RECIPES[name].name == name


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    path = tmp_path / "recipe.json"
    path.write_text(recipe_to_json(recipe))
    assert load_recipe(path) == recipe
    assert recipe_identity(load_recipe(path)) == recipe_identity(recipe)


def test_two_recipes_never_train_the_same() -> None:
    digests = [recipe_identity(recipe) for recipe in RECIPES.values()]
    assert len(set(digests)) == len(digests)


def test_a_shipped_recipe_is_loaded_by_name() -> None:
    assert load_recipe("infopro_stl10_resnet110_memory_k3") == RECIPES["infopro_stl10_resnet110_memory_k3"]


@pytest.mark.parametrize("name", WHOLE)
def test_no_recipe_says_where_images_lie_or_downloads_them(name: str) -> None:
    assert WHOLE[name].data.root is None
    assert WHOLE[name].data.download is False


@pytest.mark.parametrize("row", ROWS, ids=lambda row: infopro_name(*row[:4]))
def test_the_weights_are_the_published_ones(row: tuple[str, ...]) -> None:
    recipe = RECIPES[infopro_name(*row[:4])]
    assert (recipe.data.name, recipe.backbone.name, recipe.method.cuts) == row[:3]
    assert recipe.method.num_segments == int(row[3])
    assert recipe.method.head == "contrastive"
    np.testing.assert_allclose(lambdas(recipe.method), expected_lambdas(row), rtol=1e-12)


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] == "cifar10" and row[2] == "published"])
def test_softmax_takes_the_weights_of_contrastive(row: tuple[str, ...]) -> None:
    recipe = RECIPES[f"infopro_softmax_cifar10_{row[1]}_k{row[3]}"]
    assert recipe.method.head == "softmax"
    np.testing.assert_allclose(lambdas(recipe.method), expected_lambdas(row), rtol=1e-12)
    assert recipe.method.cuts == "published"


@pytest.mark.parametrize(("network", "classification"), [("resnet101", 0.75), ("resnet152", 1.0)])
def test_imagenet_has_two_segments_and_softmax(network: str, classification: float) -> None:
    recipe = RECIPES[f"infopro_imagenet_{network}"]
    assert recipe.backbone.name == network
    assert (recipe.method.num_segments, recipe.method.cuts) == (2, "published_memory")
    assert recipe.method.head == "softmax"
    assert lambdas(recipe.method) == [(5.0, classification)]


@pytest.mark.parametrize("name", PAPER)
def test_name_and_method_agree(name: str) -> None:
    recipe = PAPER[name]
    kind = next(kind for kind in KINDS if name.startswith(kind))
    assert recipe.method.kind == kind
    assert recipe.backbone.name in name
    assert recipe.data.name.replace("folder", "imagenet") in name
    if isinstance(recipe.method, Segmented):
        last = name.rpartition("_k")[2]
        assert recipe.method.num_segments == (int(last) if last.isdigit() else 2)
    if kind == "greedy":
        assert recipe.method.head == ("contrastive" if "contrastive" in name else "softmax")


_networks: dict[str, nn.Sequential] = {}


def network_of(recipe: Recipe) -> nn.Sequential:
    name = recipe.backbone.name
    if name not in _networks:
        with torch.device("meta"):
            _networks[name] = backbones.build(recipe.backbone, 10, (3, 224, 224), seed=0)
    return _networks[name]


@pytest.mark.parametrize("name", [name for name in RECIPES if isinstance(RECIPES[name].method, Segmented)])
def test_the_cuts_exist(name: str) -> None:
    recipe = RECIPES[name]
    size = recipe.data.height_and_width or (SIDES[recipe.data.name],) * 2
    network = network_of(recipe)
    count = recipe.method.num_segments
    segments = backbones.cut(network, count, recipe.method.cuts, recipe.backbone.name, (3, *size))
    assert len(segments) == count
    assert [index for start, stop in segments for index in range(start, stop)] == list(range(len(network)))


def test_memory_cuts_make_the_first_segment_shorter_than_equal_layers_do() -> None:
    for data, side in (("cifar10", 32), ("stl10", 96)):
        recipe = RECIPES[f"infopro_{data}_resnet110_memory_k2"]
        network = network_of(recipe)
        stops = {
            cuts: backbones.cut(network, 2, cuts, "resnet110", (3, side, side))[0][1]
            for cuts in ("published", "published_memory")
        }
        assert stops["published_memory"] < stops["published"]


SMALL = [name for name in PAPER if PAPER[name].data.name != "folder"]


@pytest.mark.parametrize("name", SMALL)
def test_the_schedule_of_small_images(name: str) -> None:
    recipe = PAPER[name]
    start = 0.1 if recipe.data.name == "stl10" else 0.8
    assert recipe.epochs == 160
    assert recipe.optimizer.learning_rate == start

    def rate(epoch: int) -> float:
        return learning_rate_at(recipe, 49, epoch - 1, 7)

    def base(epoch: int) -> float:
        return 0.5 * start * (1 + math.cos(math.pi * epoch / 160))

    assert rate(1) == pytest.approx(0.01, abs=1e-15)
    assert rate(2) == pytest.approx(0.1 * base(2) + 0.009)
    assert rate(10) == pytest.approx(0.9 * base(10) + 0.001)
    assert rate(11) == pytest.approx(base(11))
    assert rate(80) == pytest.approx(start / 2)
    assert rate(160) == 0


@pytest.mark.parametrize("name", [name for name in PAPER if PAPER[name].data.name == "folder"])
def test_the_schedule_of_imagenet(name: str) -> None:
    recipe = PAPER[name]
    assert recipe.epochs == 90
    assert learning_rate_at(recipe, 1252, 0, 0) == 0.4
    assert learning_rate_at(recipe, 1252, 0, 1251) == 0.4
    assert learning_rate_at(recipe, 1252, 45, 3) == pytest.approx(0.2)
    assert learning_rate_at(recipe, 1252, 89, 0) == pytest.approx(0.2 * (1 + math.cos(math.pi * 89 / 90)))


@pytest.mark.parametrize("name", PAPER)
def test_the_optimizer_is_the_published_one(name: str) -> None:
    optimizer = PAPER[name].optimizer
    assert isinstance(optimizer, SGD)
    assert (optimizer.kind, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == ("sgd", 0.9, True, 1e-4)


# batch size; crop padding, padding mode, flip, random resized crop; learning rate
IMAGES = {
    "cifar10": (1024, 4, "reflect", True, False, 0.8),
    "svhn": (1024, 2, "zeros", False, False, 0.8),
    "stl10": (128, 4, "zeros", True, False, 0.1),
    "folder": (1024, 0, "reflect", True, True, 0.4),
}


@pytest.mark.parametrize("name", PAPER)
def test_batches_and_augmentation_are_the_published_ones(name: str) -> None:
    recipe = PAPER[name]
    changes = recipe.data.augmentation
    assert IMAGES[recipe.data.name] == (
        recipe.data.batch_size,
        changes.crop_padding,
        changes.padding_mode,
        changes.flip,
        changes.random_resized_crop,
        recipe.optimizer.learning_rate,
    )
    assert changes.color_jitter == 0
    assert (recipe.data.train_limit, recipe.data.test_limit, recipe.data.validation_fraction) == (None, None, 0)


def test_imagenet_has_its_sizes_and_statistics() -> None:
    data = RECIPES["infopro_imagenet_resnet152"].data
    assert (data.image_size, data.resize_size) == (224, 256)
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_tiny_recipe_trains_as_its_whole_one(name: str) -> None:
    small, whole = RECIPES[name], RECIPES[name.removesuffix("_tiny")]
    assert small.optimizer == whole.optimizer
    assert small.schedule == whole.schedule
    assert small.numerics == whole.numerics
    assert small.data.augmentation == whole.data.augmentation
    assert small.method.kind == whole.method.kind
    if isinstance(whole.method, Segmented):
        assert small.method.num_segments == whole.method.num_segments
    if isinstance(whole.method, InfoPro):
        assert lambdas(small.method) == lambdas(whole.method)
        assert small.method.head == whole.method.head
    assert small.data.name == "synthetic"
    assert small.data.synthetic_images == 2 * small.data.batch_size
    assert small.epochs == 1


def test_listing_recipes_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, engine.recipes as r; "
        "[make() for make in r.shipped_recipes().values()]; r.load_recipe('infopro_digits'); "
        "print(sorted({'torch', 'ray', 'torchvision'} & set(sys.modules)))"
    )
    root = recipes_folder().parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(recipes_folder().glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_recipe_file_says_how_it_is_run_and_what_was_measured(path: Path) -> None:
    header = path.read_text().split('"""')[1]
    commands = [line.split() for line in header.splitlines() if line.strip().startswith("local-learning train")]
    assert commands
    for words in commands:
        assert words[2] in RECIPES
    measured = re.search(r"docs/results/[\w-]+\.md", header)
    assert measured and (recipes_folder().parent.parent / measured[0]).is_file()
    if path.stem != "digits":
        assert ("We have measured none of it" in header) == (path.stem != "camvid")
        assert "Budget:" in header
        assert "Table" in header

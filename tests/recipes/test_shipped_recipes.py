"""Are the shipped recipes complete, all different, and what their names and files say?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from engine import backbones
from engine.errors import RecipeError
from engine.recipes import InfoPro, Recipe, Segmented, load_recipe, recipe_identity, recipe_to_json
from engine.recipes.files import recipes_folder
from tests.recipes.shipped import KINDS, OTHERS, PAPER, RECIPES, ROWS, TINY, WHOLE, infopro_name, lambdas, suffix

SIDES = {"cifar10": 32, "svhn": 32, "stl10": 96, "folder": 224, "digits": 8, "cityscapes": 512}


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
    for network in ("resnet101", "resnet152", "resnext101_32x8d"):
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


def test_a_run_folder_of_the_same_name_is_no_shipped_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "infopro_digits").mkdir()
    stored = tmp_path / "infopro_digits" / "recipe.json"
    stored.write_text(recipe_to_json(RECIPES["infopro_digits"]))
    assert load_recipe("infopro_digits") == RECIPES["infopro_digits"], "both mean one training"
    other = RECIPES["greedy_digits"]
    stored.write_text(recipe_to_json(other))
    with pytest.raises(RecipeError, match="is a shipped recipe, and here also a run folder with another one"):
        load_recipe("infopro_digits")
    assert load_recipe("./infopro_digits") == load_recipe(Path("infopro_digits")) == other


@pytest.mark.parametrize("name", WHOLE)
def test_no_recipe_says_where_images_lie_or_downloads_them(name: str) -> None:
    assert WHOLE[name].data.root is None
    assert WHOLE[name].data.download is False


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

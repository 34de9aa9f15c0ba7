"""`local-learning list`: the recipes, searches, backbones and analyses that there are."""

from __future__ import annotations

import argparse
import shlex
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from engine.cli.outcome import Outcome, aligned
from engine.cli.words import shown
from engine.errors import InputError

if TYPE_CHECKING:
    from engine.recipes import Recipe

_DATA = {
    "digits": "1,797 handwritten digits of 8x8 pixels in 10 classes, from scikit-learn; part of this package",
    "cifar10": "60,000 images of 32x32 pixels in 10 classes; python, binary or Parquet files below data.root",
    "cifar100": "60,000 images of 32x32 pixels in 100 classes; python, binary or Parquet files below data.root",
    "svhn": "99,289 house numbers of 32x32 pixels in 10 classes; the .mat files below data.root",
    "stl10": "13,000 images of 96x96 pixels in 10 classes; the binary files below data.root",
    "folder": "your own pictures: data.root/train/CLASS/x.png, and test/ or val/",
    "parquet": "your own pictures in Parquet shards, as Hugging Face data sets have them",
    "label_maps": "your own pictures with a class for each pixel: images/train/x.jpg with labels/train/x.png",
    "cityscapes": "3,475 street pictures of 2048x1024 pixels with 19 classes; leftImg8bit and gtFine below data.root",
    "market1501": "pictures of identities by several cameras, in the folders of Market-1501 and DukeMTMC-reID",
    "identities": "your own pictures of identities: Parquet, or a .csv with image, identity, camera and split",
    "synthetic": "made-up images, of any size and number of classes, for trying things out",
}
KINDS = ("methods", "backbones", "data", "recipes", "sweeps", "analyses")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``list``."""
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only these; all unless given")
    parser.add_argument(
        "pattern",
        nargs="?",
        metavar="PATTERN",
        help="only names that match, such as 'infopro_*cifar10*'; the whole name of a recipe also shows what its file "
        "says of data, budget and published figures",
    )


def run(options: argparse.Namespace) -> Outcome:
    """Return one line for each thing of each kind that was asked for, and what the file of a whole name says.

    Raises:
        InputError: no name matches the pattern.
    """
    kinds = [options.kind] if options.kind else list(KINDS)
    found = {kind: _FINDERS[kind]() for kind in kinds}
    if options.pattern is not None:
        found = {kind: _matching(kind, options.pattern, rows) for kind, rows in found.items()}
    lines: list[str] = []
    for kind, rows in found.items():
        lines += [f"{kind}:", *aligned(list(rows.items())), ""]
    values: dict[str, Any] = dict(found)
    if options.pattern in found.get("recipes", {}):
        from engine.recipes import file_of_shipped

        path, said = file_of_shipped(options.pattern)
        lines += [f"{path}:", *said.splitlines(), ""]
        values |= {"file": str(path), "docstring": said}
    return Outcome(lines[:-1], values)


def _matching(kind: str, pattern: str, rows: dict[str, str]) -> dict[str, str]:
    """Return the rows whose names match as a whole, upper and lower case apart."""
    found = {name: text for name, text in rows.items() if fnmatchcase(name, pattern)}
    if found:
        return found
    from engine.recipes.problems import three_nearest

    part = f"*{pattern}*"
    hint = f"; {shlex.quote(part)} finds a part of a name" if any(fnmatchcase(name, part) for name in rows) else ""
    given = shown(shlex.quote(pattern))
    raise InputError(f"list {kind} {given}: no name matches. Nearest: {three_nearest(pattern.lower(), rows)}{hint}")


def _methods() -> dict[str, str]:
    from engine.recipes import METHODS

    own = {"FILE.py:NAME": "your own: a subclass of engine.recipes.MethodSettings, with METHOD beside it"}
    return {kind: (settings.__doc__ or "").partition("\n")[0] for kind, settings in METHODS.items()} | own


def _backbones() -> dict[str, str]:
    from engine import backbones

    own = {"FILE.py:FUNCTION": "your own: FUNCTION(num_classes, image_shape) returns a flat torch.nn.Sequential"}
    return backbones.names() | own


def _data() -> dict[str, str]:
    return dict(_DATA)


def _recipes() -> dict[str, str]:
    from engine.recipes import shipped_recipes

    # The tiny variants, NAME_tiny, are for tests and come last.
    recipes = sorted(shipped_recipes().items(), key=lambda item: item[0].endswith("_tiny"))
    return {name: _describe(function()) for name, function in recipes}


def _sweeps() -> dict[str, str]:
    from engine.search import shipped_sweeps

    made = {name: function() for name, function in shipped_sweeps().items()}
    return {
        name: f"{found.recipe} over {', '.join(field.removeprefix('method.') for field in found.space)}"
        f" ({found.searcher}, {found.scheduler})".replace(", none)", ")")
        for name, found in made.items()
    }


def _analyses() -> dict[str, str]:
    from engine.analysis import ANALYSES, REPORT

    page = {REPORT: "One HTML page of all that lies in the folders of runs, of a comparison or of a search."}
    return {name: (analysis.__doc__ or "").partition("\n")[0] for name, analysis in ANALYSES.items()} | page


def _describe(recipe: Recipe) -> str:
    method, networks = recipe.method, recipe.method.networks(recipe.backbone)
    segments, is_cohort = method.inside.num_segments, method.inside is not method
    size = f"{len(networks)} peers" if is_cohort else f"K = {segments}"
    if is_cohort and segments > 1:
        size += f" of K = {segments}"
    names = " and ".join(dict.fromkeys(network.name for network in networks))
    return f"{method.kind}, {size}, {names} on {recipe.data.name}, epochs={recipe.epochs}"


_FINDERS = {
    "methods": _methods,
    "backbones": _backbones,
    "data": _data,
    "recipes": _recipes,
    "sweeps": _sweeps,
    "analyses": _analyses,
}

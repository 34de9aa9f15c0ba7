"""Facts of a recipe's images that are known before any of them is on the disk."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data import Facts, open_source
from engine.data.normalisation import IMAGENET, PUBLISHED
from engine.data.readers.cifar import EXPECTED as CIFAR_IMAGES
from engine.data.readers.cityscapes import CLASSES as CITYSCAPES
from engine.data.readers.cityscapes import PUBLISHED as CITYSCAPES_IMAGES
from engine.data.readers.market1501 import find_market1501
from engine.data.readers.stl10 import EXPECTED as STL10_IMAGES
from engine.data.readers.svhn import EXPECTED as SVHN_IMAGES
from engine.data.remote.uris import is_uri
from engine.errors import RecipeError
from engine.paths import absolute, kind_of
from engine.recipes import Data, Recipe


@dataclass(frozen=True)
class _Published:
    size: tuple[int, int]
    classes: int
    images: dict[str, int]
    names: tuple[str, ...] | None = None
    label_maps: bool = False


_SETS = {
    "cifar10": _Published((32, 32), 10, CIFAR_IMAGES),
    "cifar100": _Published((32, 32), 100, CIFAR_IMAGES),
    "svhn": _Published((32, 32), 10, SVHN_IMAGES),
    # Queries and gallery without junk are the test images.
    "market1501": _Published((128, 64), 751, {"train": 12_936, "test": 3_368 + 15_913}),
    "stl10": _Published((96, 96), 10, STL10_IMAGES),
    "cityscapes": _Published((1024, 2048), len(CITYSCAPES), CITYSCAPES_IMAGES, CITYSCAPES, True),
}
# In its usual division into 11 classes.
_CAMVID_IMAGES = {"train": 367, "validation": 101, "test": 233}
# Of 2012, which the shipped recipes with data.name=folder are for.
_IMAGENET = _Published((224, 224), 1000, {"train": 1_281_167, "test": 50_000})


def known_facts(recipe: Recipe) -> tuple[Facts, str]:
    """Return facts of a recipe's images, and in words what had to be assumed; empty if nothing had.

    Published sets are in a table, that of ``market1501`` where no folder in its layout is there to look at. Pictures of
    one's own are looked at where ``data.root`` has them, and taken for ImageNet's (those with label maps for CamVid's)
    where there is none, or where they lie elsewhere and the recipe says their size and classes.

    Raises:
        RecipeError: the size of the images is unknown, or the files contradict the recipe.
        DataError: the files are incomplete or damaged.
    """
    data = recipe.data
    here = (data.name not in _SETS or data.name == "market1501") and _is_folder(data.root)
    if data.name == "market1501" and here:
        # DukeMTMC-reID is laid out as Market-1501, and has identities of its own.
        here = find_market1501(absolute(str(data.root), "data.root", RecipeError)) is not None
    if data.name in _SETS and not here:
        return _facts(data, _SETS[data.name], data.num_classes), ""
    if data.root is not None and is_uri(data.root):
        # To look at what lies elsewhere would fetch all of it.
        here = data.image_size is None or data.num_classes is None
    if here or data.name in ("digits", "synthetic"):
        source = open_source(data, recipe.seed, check=False)
        try:
            return source.facts, ""
        finally:
            source.close()
    size = data.height_and_width
    if size is None:
        raise RecipeError(
            f"data.image_size is not given, and there are no images at data.root={data.root} to tell their size: give "
            "data.image_size, or data.root=DIR"
        )
    if data.name == "label_maps":
        if data.class_names is None:
            raise RecipeError(
                f"data.class_names is not given, and there is no table of classes at data.root={data.root}: give the "
                'names, as in data.class_names=["sky","road"], or data.root=DIR'
            )
        known = _Published(size, len(data.class_names), _CAMVID_IMAGES, data.class_names, True)
        return _facts(data, known, data.num_classes), f"no images at data.root={data.root}: as many as in CamVid"
    classes = data.num_classes or _IMAGENET.classes
    found = _facts(data, _Published(size, classes, _IMAGENET.images), classes)
    given = "" if data.num_classes else f", in {classes:,} classes unless data.num_classes is given"
    return found, f"no images at data.root={data.root}: as many as in ImageNet{given}"


def _is_folder(root: str | None) -> bool:
    """Return whether ``data.root`` is a folder of this machine."""
    if root is None or is_uri(root):
        return False
    return kind_of(absolute(root, "data.root", RecipeError), "data.root", RecipeError) == "folder"


def _facts(data: Data, published: _Published, classes: int | None) -> Facts:
    if classes not in (None, published.classes):
        raise RecipeError(f"data.num_classes={classes}, but {data.name} has {published.classes} classes: leave it out")
    training = published.images["train"]
    sizes = {"train": training, "test": min(published.images["test"], data.test_limit or published.images["test"])}
    if "validation" in published.images:
        sizes = {"train": training, "validation": published.images["validation"], **sizes}
    elif data.validation_fraction:
        sizes = {"train": training, "validation": round(training * data.validation_fraction), **sizes}
        sizes["train"] -= sizes["validation"]
    sizes["train"] = min(sizes["train"], data.train_limit or sizes["train"])
    labelled = round(sizes["train"] * (data.labelled_fraction or 1.0))
    if data.unlabelled == "drop":
        sizes["train"] = labelled
    mean, std = PUBLISHED.get(data.name, IMAGENET)
    size = data.height_and_width or published.size
    image_shape = (3, *(data.augmentation.crop or size))
    return Facts(
        name=data.name,
        num_classes=published.classes,
        class_names=published.names or tuple(map(str, range(published.classes))),
        image_shape=image_shape,
        mean=data.mean or mean,
        std=data.std or std,
        sizes=sizes,
        fingerprint="",
        labelled_images=labelled,
        training_positions=training,
        label_maps=published.label_maps,
        evaluation_shape=(3, *size) if image_shape != (3, *size) else None,
    )

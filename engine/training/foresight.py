"""What of a recipe can be refused before its images are read."""

from __future__ import annotations

from collections.abc import Callable

from engine.data import Facts
from engine.methods import method_of
from engine.recipes import Recipe, Segmented, with_modelled_cuts


def network_check(recipe: Recipe) -> Callable[[tuple[str, ...], tuple[int, int, int]], None]:
    """Return what builds and cuts a recipe's network, to be called when classes and image shape are known.

    To decode a large set takes minutes, after which a cut that cannot be would have been found. Only methods that cut
    are looked at, since only what they refuse depends on neither the pixels nor the number of images.
    """
    inside = recipe.method.inside
    recipe = with_modelled_cuts(recipe)

    def check(class_names: tuple[str, ...], image_shape: tuple[int, int, int]) -> None:
        if not isinstance(inside, Segmented):
            return
        channels = image_shape[0]
        facts = Facts(
            name=recipe.data.name,
            num_classes=len(class_names),
            class_names=class_names,
            image_shape=image_shape,
            # Not known yet, and without influence on what is built and cut.
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
            sizes={"train": recipe.data.batch_size},
            fingerprint="",
        )
        method_of(recipe).team(recipe, facts)

    return check

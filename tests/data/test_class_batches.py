"""Does every batch hold P classes with K images each, the same for all who read it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.data import open_source
from engine.errors import DataError, PlanError, RecipeError
from engine.recipes import PairedImages, Plan, Recipe, apply_overrides, load_recipe, recipe_identity, shipped_recipes
from engine.recipes.data import Data
from engine.runtimes.replicated import check_replicable


def source(**fields: Any) -> Any:
    values: dict[str, Any] = {"name": "digits", "batch_size": 12, "classes_per_batch": 4} | fields
    return open_source(Data(**values), seed=fields.get("seed", 3))


def test_every_batch_holds_as_many_of_each_class() -> None:
    opened = source()
    assert opened.steps_per_epoch() == source(classes_per_batch=None).steps_per_epoch()
    for step in range(opened.steps_per_epoch()):
        batch = opened.batch(1, step)
        classes, counts = np.unique(batch.labels, return_counts=True)
        assert len(classes) == 4
        assert counts.tolist() == [3] * 4
        assert len(np.unique(batch.indices)) == 12


def test_a_batch_is_a_function_of_seed_epoch_and_step() -> None:
    one, other = source(), source()
    expected = {place: one.batch(*place).indices for place in ((0, 0), (0, 1), (2, 5))}
    for place in ((2, 5), (0, 1), (0, 0)):
        np.testing.assert_array_equal(other.batch(*place).indices, expected[place])
    assert len({tuple(indices) for indices in expected.values()}) == 3
    another = open_source(Data(name="digits", batch_size=12, classes_per_batch=4), seed=4)
    assert (another.batch(0, 0).indices != expected[0, 0]).any()


def test_a_class_of_few_images_repeats_each_of_them_equally_often() -> None:
    opened = source(train_limit=40, batch_size=20, classes_per_batch=2)
    batch = opened.batch(0, 0)
    for label in np.unique(batch.labels):
        images, counts = np.unique(batch.indices[batch.labels == label], return_counts=True)
        assert len(images) >= 3
        assert counts.max() - counts.min() <= 1


def test_images_without_a_label_are_left_out_by_name() -> None:
    opened = source(labelled_fraction=0.2, unlabelled="drop")
    assert all((opened.batch(0, step).labels >= 0).all() for step in range(5))
    for field, value in (("labelled_fraction", 0.2), ("labelled_indices", "some.txt")):
        with pytest.raises(RecipeError, match=rf"\({field}={value}\) are never seen, .* set unlabelled=drop"):
            source(**{field: value})


def test_a_second_batch_is_refused() -> None:
    data = Data(name="digits", train_limit=42, batch_size=8, classes_per_batch=2)
    with pytest.raises(RecipeError, match=r"with a second batch.*: leave data.classes_per_batch out, or mix images of"):
        open_source(data, 0, paired_images="second_batch")
    kinds: tuple[PairedImages, ...] = ("same_class", "same_image")
    for kind in kinds:
        opened = open_source(data, 0, paired_images=kind)
        assert [len(opened.batch(0, step).labels) for step in range(opened.steps_per_epoch())] == [16] * 6


def test_no_batch_is_too_short_to_train_on(tmp_path: Path) -> None:
    words = ["data.train_limit=41", "data.test_limit=20", "data.batch_size=8", "data.classes_per_batch=2", "epochs=1"]
    recipe, plan = apply_overrides(load_recipe("end_to_end_digits"), Plan(executor="process"), words)
    assert engine.train(recipe, plan, tmp_path / "run").steps == 6
    recipe, plan = apply_overrides(recipe, plan, ["data.classes_per_batch=null"])
    with pytest.raises(RecipeError, match="data.batch_size=8 leaves a batch of 1 of the 41 training images"):
        engine.train(recipe, plan, tmp_path / "other")


def test_replicas_share_batches_that_are_all_full() -> None:
    words = ["data.train_limit=43", "data.batch_size=8", "data.classes_per_batch=2"]
    recipe, plan = apply_overrides(load_recipe("end_to_end_digits"), Plan(replicas=2), words)
    facts = open_source(recipe.data, 0).facts
    check_replicable(recipe, facts, plan)
    recipe, _ = apply_overrides(recipe, plan, ["data.classes_per_batch=null"])
    with pytest.raises(PlanError, match="a batch of an epoch holds 3 images, and each replica needs two"):
        check_replicable(recipe, facts, plan)


def test_statistics_are_estimated_again_on_the_same_batches() -> None:
    opened = source(train_limit=41, batch_size=8)
    for step, batch in enumerate(opened.recalibration_batches(41)):
        np.testing.assert_array_equal(batch.indices, opened.batch(0, step).indices)
        assert len(batch.labels) == 8


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(RecipeError, match="classes_per_batch=5 does not divide batch_size=12"):
        source(classes_per_batch=5)
    with pytest.raises(RecipeError, match="draws images by their class, but those of label_maps have label maps"):
        source(name="label_maps", root="anywhere")
    with pytest.raises(DataError, match="data.classes_per_batch=12, but the training images are of 10 classes"):
        source(classes_per_batch=12)


def test_recipes_that_draw_no_classes_are_what_they_were() -> None:
    recipe: Recipe = shipped_recipes()["end_to_end_digits"]()
    assert recipe.data.classes_per_batch is None
    # Of the version before there was this choice.
    assert recipe_identity(recipe) == IDENTITY


IDENTITY = "b67973a587dea92eacb84e1624bb762adacfdb65ea4f04e14e389be0246572e1"

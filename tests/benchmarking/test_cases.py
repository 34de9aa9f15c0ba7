"""Is what can be measured chosen, and what cannot be left out with its reason?"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.benchmarking.baseline_cases import BASELINES, BaselineCases, check_baselines
from engine.benchmarking.batches import Batches, read_images
from engine.benchmarking.cases import EngineCases, Machine
from engine.benchmarking.stage_cuts import stage_bounds
from engine.errors import DataError, RecipeError
from engine.recipes import (
    DML,
    Augmentation,
    Backbone,
    Classification,
    Data,
    EndToEnd,
    Greedy,
    Numerics,
    OwnTask,
    Peer,
    Plan,
    Recipe,
    apply_overrides,
    load_recipe,
)

TinyRecipe = Callable[..., Recipe]
TWO_CORES = Machine(cores=2, gpus=0)


def names(recipe: Recipe, ks: tuple[int, ...] | None = None, executor: Any = "ray") -> list[tuple[str, int]]:
    cases = EngineCases(read_images(recipe), Plan(executor=executor), ks, TWO_CORES)
    return [(case.name, case.workers) for group in cases.groups for case in group.cases]


def test_every_k_is_measured_in_process_and_on_ray_beside_end_to_end(tiny_recipe: TinyRecipe) -> None:
    assert names(tiny_recipe(method=Greedy(num_segments=2)), (1, 2)) == [
        ("end to end, one device, 1 thread", 1),
        ("end to end, one device, 2 threads", 1),
        ("greedy, K = 2, in process", 1),
        ("greedy, K = 4, in process", 1),
        ("greedy, K = 1, on Ray", 1),
        ("greedy, K = 2, on Ray", 2),
    ]


def test_more_threads_than_cores_are_never_used(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=4), numerics=Numerics(threads=2))
    threads = {
        case.threads
        for group in EngineCases(read_images(recipe), Plan(), None, TWO_CORES).groups
        for case in group.cases
    }
    assert threads == {2}


def test_a_team_without_segments_is_measured_as_it_is(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(method=DML(peers=(Peer(), Peer())))
    assert names(recipe)[-2:] == [("dml, in process", 1), ("dml, on Ray", 2)]
    with pytest.raises(RecipeError, match=r"--k 1,2: method.kind=dml does not cut"):
        names(recipe, (1, 2))
    found = BaselineCases(read_images(recipe), tuple(BASELINES), [2], TWO_CORES)
    assert not found.groups
    assert found.left_out["DDP"] == "method.kind=dml trains several networks, a baseline only one"


def test_baselines_learn_classes_alone(tiny_recipe: TinyRecipe) -> None:
    task = OwnTask(kind=f"{Path(__file__).parents[1] / 'tasks' / 'toy_task.py'}:Regression")
    found = BaselineCases(read_images(tiny_recipe(task=task)), tuple(BASELINES), [2], TWO_CORES)
    assert not found.groups
    assert found.left_out["DDP"].startswith(f"task.kind={task.kind} has another loss")
    smoothed = read_images(tiny_recipe(task=Classification(label_smoothing=0.1)))
    found = BaselineCases(smoothed, tuple(BASELINES), [2], TWO_CORES)
    assert not found.groups
    assert found.left_out["DDP"].startswith("task.label_smoothing=0.1 asks for more than the loss of classes")


def test_random_crops_and_classes_stand_in_for_label_maps_that_are_missing() -> None:
    words = ["data.root=/nowhere", "data.augmentation.crop=48,64", "data.batch_size=4"]
    recipe, _ = apply_overrides(load_recipe("infopro_camvid_resnet18"), Plan(), words)
    found = read_images(recipe)
    batch = found.batches.batch(1)
    assert (batch.images.shape, batch.labels.shape) == ((4, 3, 48, 64), (4, 48, 64))
    assert set(np.unique(batch.labels)) == set(range(11))
    assert found.described.startswith("random images of 3 x 48 x 64, because the recipe's own are not there")
    assert ("infopro, K = 2, in process", 1) in names(recipe, (1, 2))
    assert (
        BaselineCases(found, tuple(BASELINES), [2], TWO_CORES)
        .left_out["DDP"]
        .startswith("task.kind=segmentation has another loss")
    )


def test_more_segments_than_blocks_are_refused(tiny_recipe: TinyRecipe) -> None:
    with pytest.raises(RecipeError, match="method.num_segments=9, but resnet14 has 7 blocks"):
        names(tiny_recipe(), (1, 9))


def test_blocks_that_are_named_cut_into_as_many_segments_as_they_say(tiny_recipe: TinyRecipe) -> None:
    told: list[str] = []
    recipe = tiny_recipe(method=Greedy(num_segments=2, cuts=("layer1_0",)))
    cases = EngineCases(read_images(recipe), Plan(executor="process"), (1, 2, 3), TWO_CORES, told.append)
    assert [(k, each.method.cuts) for k, (each, _) in cases.teams.items() if isinstance(each.method, Greedy)] == [
        (1, ()),
        (2, ("layer1_0",)),
        (3, "balanced_layers"),
    ]
    # 4 for the simulation, like 8, which the network has not.
    assert [line.partition(":")[0] for line in told] == ["K = 3", "K = 4", "K = 8"]
    assert told[0] == "K = 3: cut by balanced_layers, because method.cuts=layer1_0 is for another K"


def test_baselines_have_as_many_workers_as_replicas_train(tiny_recipe: TinyRecipe) -> None:
    images, plan = read_images(tiny_recipe(method=Greedy(num_segments=2))), Plan(replicas=2)
    cases = EngineCases(images, plan, (1, 2), TWO_CORES)
    on_ray = {case.workers for group in cases.groups for case in group.cases if case.family == "ray"}
    assert cases.worker_counts == sorted(on_ray) == [2, 4]
    whole = EngineCases(read_images(tiny_recipe(method=EndToEnd())), plan, None, TWO_CORES)
    assert whole.worker_counts == [2]
    assert not BaselineCases(images, ("ddp",), whole.worker_counts, TWO_CORES).left_out


def test_without_ray_its_rows_are_left_out_and_named(tiny_recipe: TinyRecipe) -> None:
    cases = EngineCases(read_images(tiny_recipe()), Plan(executor="process"), (2,), TWO_CORES)
    assert cases.left_out["this engine on Ray"] == "plan.executor=process"


def test_an_unknown_baseline_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"--against gpip: there is no such baseline; did you mean 'gpipe'\?"):
        check_baselines(["ddp", "gpip"])


def test_what_does_not_divide_a_batch_is_left_out(tiny_recipe: TinyRecipe) -> None:
    found = BaselineCases(read_images(tiny_recipe()), tuple(BASELINES), [2, 4, 8], TWO_CORES)
    starts = {choice.name: choice.starts for group in found.groups for choice in group.choices}
    # A batch has 12 images, the network 8 blocks with its classifier.
    assert [start["micro_batches"] for start in starts["GPipe, 2 workers"]] == [2, 4]
    assert [start["micro_batches"] for start in starts["1F1B, 4 workers"]] == [4]
    assert "equal parts" in found.left_out["pipelines, 8 micro-batches"]
    assert "equal parts" in found.left_out["DDP, 8 workers"]
    assert "at least as many" in found.left_out["1F1B, 4 workers, 2 micro-batches"]
    assert "8 stages, and the network has 7 blocks that can end one" in found.left_out["GPipe, 8 workers"]
    assert "8 stages" in found.left_out["interleaved 1F1B, 4 workers"], "two for each worker"


def test_every_baseline_has_settings_to_choose_from(tiny_recipe: TinyRecipe) -> None:
    """Checkpointing, which has one process, gets the threads of all workers together, too."""
    recipe = tiny_recipe(backbone=Backbone(name="resnet14", widths=(256, 256, 256)))
    found = BaselineCases(read_images(recipe), tuple(BASELINES), [2], TWO_CORES)
    choices = {choice.name: choice for group in found.groups for choice in group.choices}
    for threads, name in ((1, "checkpointing, 1 thread"), (2, "checkpointing, 2 threads")):
        assert choices[name].threads == threads
        assert [start["chunks"] for start in choices[name].starts] == [2, 4, 8]
    assert {group.recipe.numerics.threads for group in found.groups if group.kind == "checkpointing"} == {1, 2}
    assert [start["bucket_mib"] for start in choices["DDP, 2 workers"].starts] == [1, 5, 25, 100]
    assert len(choices["FSDP2, 2 workers"].starts) == 3
    assert {start["schedule"] for start in choices["interleaved stages, 2 workers"].starts} == {
        "interleaved_1f1b",
        "looped_bfs",
    }
    assert {start["schedule"] for start in choices["zero bubble, 2 workers"].starts} == {
        "zero_bubble",
        "interleaved_zero_bubble",
        "zbv",
        "dual_pipe_v",
    }


def test_with_one_gpu_several_workers_of_others_are_left_out(tiny_recipe: TinyRecipe) -> None:
    found = BaselineCases(read_images(tiny_recipe()), ("checkpoint", "ddp"), [2], Machine(cores=2, gpus=1))
    assert {group.kind for group in found.groups} == {"checkpointing"}
    assert found.left_out["DDP, 2 workers"] == "each of 2 workers needs a GPU of its own, and there is 1"


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_stages_are_balanced_and_keep_the_classifier_with_the_last_block(stages: int) -> None:
    seconds = [3.0, 1.0, 1.0, 1.0, 2.0, 1.0]
    bounds = stage_bounds(seconds, stages)
    assert bounds[0] == 0 and bounds[-1] == len(seconds) and len(bounds) == stages + 1
    assert bounds[-2] <= len(seconds) - 2 or stages == 1
    largest = max(sum(seconds[a:b]) for a, b in pairwise(bounds))
    assert largest == {1: 9.0, 2: 5.0, 3: 3.0, 5: 3.0}[stages]


def test_missing_images_are_replaced_by_random_ones_of_their_shape_and_it_is_said(tmp_path: Path) -> None:
    data = Data(name="cifar100", root=str(tmp_path), batch_size=8, augmentation=Augmentation(flip=True))
    found = read_images(Recipe(name="a", method=Greedy(), backbone=Backbone(name="resnet8"), data=data))
    assert found.described.startswith("random images of 3 x 32 x 32, because the recipe's own are not there")
    assert found.facts.num_classes == 100
    assert found.batches.images.shape == (4, 8, 3, 32, 32)
    assert found.recipe.data.augmentation == data.augmentation


def test_images_of_which_no_folder_is_given_are_missing_too() -> None:
    recipe = load_recipe("infopro_softmax_cifar10_resnet32_k2")
    assert recipe.data.root is None
    found = read_images(recipe)
    said = "random images of 3 x 32 x 32, because the recipe's own are not there (data.root is missing: cifar10 is read"
    assert found.described.startswith(said)
    assert found.facts.num_classes == 10
    # What stands against a training is no missing folder.
    wrong, _ = apply_overrides(recipe, Plan(), ["data.label_column=label"])
    with pytest.raises(RecipeError, match="data.label_column is for data.name=parquet"):
        read_images(wrong)


def test_images_of_unknown_shape_are_still_missed(tmp_path: Path) -> None:
    data = Data(name="folder", root=str(tmp_path / "nowhere"), batch_size=8)
    with pytest.raises(DataError):
        read_images(Recipe(name="a", method=Greedy(), backbone=Backbone(name="resnet8"), data=data))


def test_batches_come_back_from_their_file_and_are_numbered_like_steps(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    found = read_images(tiny_recipe())
    found.batches.write(tmp_path / "batches.npz")
    again = Batches.read(tmp_path / "batches.npz")
    assert again.batch_size == 12
    batch = again.batch(6)
    assert (batch.epoch, batch.step) == (1, 2)
    assert (batch.images == found.batches.images[0]).all(), "three full batches, again and again"

"""Draws what the networks of runs predict for some test images, beside the labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engine.atomic import write_error
from engine.data import Augmenter, Source, open_source
from engine.errors import RunError
from engine.paths import absolute, check_target
from engine.tasks import task_of
from engine.tasks.segmentation import predicted_map
from engine.tracking.label_map_pictures import draw_label_maps
from engine.training.runs import Run, evaluated_recipe

SHOWN = 4
"""Images in a picture."""


def draw_predictions(
    runs: Sequence[Run], target: str | Path, data_root: str | None = None, changes: Sequence[str] = ()
) -> Path:
    """Write a PNG with images of the test split from all of its parts, their labels, and a column for each network.

    What is drawn is what is scored: of several scales, and mirrored, where recipe or changes say so.

    Args:
        runs: of one data set; a network is called by its run, and of several in a run by its own name, too; of
            several checkpoints of a run by the step, too.
        target: a .png file, replaced if it exists.
        data_root: where the images lie now; where the first recipe says unless given.
        changes: of all runs, as in `evaluate`.

    Returns:
        The file's absolute path.

    Raises:
        RecipeError: as in `evaluate`.
        RunError: the file cannot be written, a run has no label maps, or the runs have other images than the first.
        DataError: the images are missing.
    """
    path = absolute(target, "--draw-maps", RunError)
    check_target(path, "--draw-maps", (".png",), RunError)
    for run in runs:
        if not run.facts.label_maps:
            raise RunError(
                f"{run.path}: task.kind={run.recipe.task.kind} predicts no label maps, so there are none to draw; "
                "leave --draw-maps out"
            )
    runs = [dataclasses.replace(run, recipe=evaluated_recipe(run, changes)) for run in runs]
    with _opened(runs[0], data_root) as source:
        different = next((run for run in runs if run.facts.fingerprint != source.facts.fingerprint), None)
        if different is not None:
            remedy = "give those as --data-root" if different is runs[0] else "leave it out of --beside"
            raise RunError(f"{different.path}: was trained on other images than these: {remedy}")
        images, labels = _some(source)
        predicted = {
            name: [_predicted(run, network, image) for image in images]
            for run, label in zip(runs, _labels(runs), strict=True)
            for name, network in _networks(run, None if len(runs) == 1 else label).items()
        }
        try:
            draw_label_maps(path, images, labels, predicted, source.facts.class_names)
        except OSError as error:
            raise write_error(path, error) from error
    return path


@contextmanager
def _opened(run: Run, data_root: str | None) -> Iterator[Source]:
    data = run.recipe.data if data_root is None else dataclasses.replace(run.recipe.data, root=data_root)
    source = open_source(data, run.recipe.seed, check=False)
    try:
        yield source
    finally:
        source.close()


def _some(source: Source) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return images and labels at equal distances in the test split."""
    number = source.facts.sizes["test"]
    wanted = sorted({round(place * (number - 1) / max(1, SHOWN - 1)) for place in range(min(SHOWN, number))})
    images, labels, first = [], [], 0
    for batch in source.evaluation_batches("test"):
        for place in wanted:
            if first <= place < first + len(batch.labels):
                images.append(batch.images[place - first])
                labels.append(batch.labels[place - first])
        first += len(batch.labels)
    return images, labels


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return the names of the run folders, with the step where two are called alike."""
    names = [run.path.name for run in runs]
    return [
        f"{name} step {run.checkpoint.step}" if names.count(name) > 1 else name
        for name, run in zip(names, runs, strict=True)
    ]


def _networks(run: Run, label: str | None) -> Mapping[str, nn.Module]:
    found = {name: run.network(name) for name in run.networks}
    if label is None:
        return found
    return {label if len(found) == 1 else f"{label} {name}": each for name, each in found.items()}


def _predicted(run: Run, network: nn.Module, image: np.ndarray) -> np.ndarray:
    """Return the classes of an image's pixels, uint8 ``[H, W]``, as the task's score takes them."""
    augmenter = Augmenter(run.recipe.data.augmentation, run.facts, run.recipe.seed, torch.device("cpu"))

    def outputs(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = network.eval()(augmenter.normalise(pixels))
            return logits

    return predicted_map(task_of(run.recipe, run.facts), outputs, image)

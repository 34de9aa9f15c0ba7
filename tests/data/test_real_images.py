"""Are real files read with the labels that are known, and can their classes be learnt?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data import Augmenter, open_source
from engine.recipes.data import Augmentation, Data


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.mark.slow
def test_cifar10_copy(real_data: Path, real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(real_cache))
    source = open_source(Data(name="cifar10", root=str(real_data / "cifar10"), test_limit=1000), seed=0)
    batches = list(source.evaluation_batches("train"))
    labels = np.concatenate([batch.labels for batch in batches])
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert np.bincount(labels).tolist() == [5000] * 10
    frog = [59, 43, 50, 68, 98, 119, 139, 145, 149, 149]  # the original; this copy was compressed as JPEG
    assert np.abs(batches[0].images[0, 0, 0, :10].astype(int) - frog).mean() < 20
    whole = open_source(Data(name="cifar10", root=str(real_data / "cifar10")), seed=0)
    assert next(whole.evaluation_batches("test")).labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    test = np.concatenate([batch.labels for batch in source.evaluation_batches("test")])
    assert np.bincount(test).tolist() == [100] * 10


def test_cifar100_sample(real_data: Path, tmp_path: Path) -> None:
    sample = real_data / "cifar100-sample-train.parquet"
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").symlink_to(sample)
    data = Data(name="cifar100", root=str(tmp_path), batch_size=64)
    source = open_source(data, seed=0, strict_counts=False)
    labels = np.concatenate([batch.labels for batch in source.evaluation_batches("train")])
    assert [source.facts.class_names[label] for label in labels[:5]] == [
        "cattle",
        "dinosaur",
        "apple",
        "boy",
        "aquarium_fish",
    ]
    assert len(labels) == 293
    assert len(np.unique(labels)) == 95


@pytest.mark.slow
def test_a_linear_classifier_learns_two_epochs(
    real_data: Path, real_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(real_cache))
    augmentation = Augmentation(crop_padding=4, flip=True)
    data = Data(
        name="cifar10",
        root=str(real_data / "cifar10"),
        train_limit=4000,
        test_limit=1000,
        batch_size=64,
        augmentation=augmentation,
    )
    assert accuracy(data) > 0.24  # chance is 0.1


def test_digits_are_learnt() -> None:
    assert accuracy(Data(name="digits", batch_size=20), epochs=4) > 0.8


def accuracy(data: Data, epochs: int = 2) -> float:
    """Train a linear classifier and return its accuracy on the test images."""
    source = open_source(data, seed=0)
    augmenter = Augmenter(data.augmentation, source.facts, 0, torch.device("cpu"))
    weights = torch.zeros(int(np.prod(source.facts.image_shape)), source.facts.num_classes, requires_grad=True)
    for epoch in range(epochs):
        for step in range(source.steps_per_epoch()):
            batch = source.batch(epoch, step)
            pixels = augmenter.normalise(augmenter.training_pixels(batch)).flatten(1)
            loss = torch.nn.functional.cross_entropy(pixels @ weights, torch.from_numpy(batch.labels))
            (gradient,) = torch.autograd.grad(loss, weights)
            weights = (weights - 0.3 / pixels.shape[1] ** 0.5 * 0.1 * gradient).detach().requires_grad_()
    right = total = 0
    for batch in source.evaluation_batches("test"):
        pixels = augmenter.normalise(augmenter.evaluation_pixels(batch)).flatten(1)
        right += int(((pixels @ weights).argmax(dim=1).numpy() == batch.labels).sum())
        total += len(batch.labels)
    return right / total

"""Images per second of the data pipeline, against a torchvision DataLoader with two workers.

    python experiments/benchmarks/data.py [--root DIR] [--repeats 5]

Both read random 32 x 32 images in batches of 128, crop them out of a padding of 4 reflected pixels, mirror half of them
and normalise them. Ours runs in one thread of this process. Without --root, random images are written in CIFAR-10's
binary layout first. The repeats of both are interleaved, so that a busy machine slows both; medians are compared.
Figures stand in docs/results/data-pipeline.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from engine.data import Augmenter, Source, open_source
from engine.recipes.data import Augmentation, Data

BATCH_SIZE = 128
PADDING = 4
WORKERS = 2
MADE_IMAGES = 10_000
OURS = "gather on whole batches, 1 thread"
THEIRS = f"torchvision DataLoader with PIL transforms, {WORKERS} workers"


class OneByOne(Dataset[tuple[torch.Tensor, int]]):
    """The same images as a map-style data set, in the way of most training scripts."""

    def __init__(self, source: Source) -> None:
        batches = list(source.evaluation_batches("train"))
        self._images = np.concatenate([batch.images for batch in batches]).transpose(0, 2, 3, 1)
        self._labels = np.concatenate([batch.labels for batch in batches]).tolist()
        self._change = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=PADDING, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(source.facts.mean, source.facts.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        return self._change(Image.fromarray(self._images[position])), self._labels[position]


def write_images(root: Path) -> None:
    """Write random images in CIFAR-10's binary layout."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        records = random.integers(0, 256, (MADE_IMAGES // 5, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(len(records)) % 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def images_per_second(epoch: Callable[[], int]) -> float:
    """Return the speed of one pass, which returns its number of images."""
    start = time.perf_counter()
    number = epoch()
    return number / (time.perf_counter() - start)


def measure(root: Path, strict_counts: bool, repeats: int, limit: int) -> dict[str, Any]:
    """Return the speeds of both, in images per second."""
    augmentation = Augmentation(crop_padding=PADDING, padding_mode="reflect", flip=True)
    data = Data(name="cifar10", root=str(root), batch_size=BATCH_SIZE, train_limit=limit, augmentation=augmentation)
    source = open_source(data, seed=0, strict_counts=strict_counts)
    augmenter = Augmenter(augmentation, source.facts, 0, torch.device("cpu"))
    loader = DataLoader(OneByOne(source), BATCH_SIZE, shuffle=True, num_workers=WORKERS, persistent_workers=True)

    def ours(epoch: int) -> int:
        number = 0
        for step in range(source.steps_per_epoch()):
            number += len(augmenter.normalise(augmenter.training_pixels(source.batch(epoch, step))))
        return number

    def theirs() -> int:
        return sum(len(labels) for _, labels in loader)

    ours(0)
    theirs()  # starts the workers, which then stay
    speeds: dict[str, list[float]] = {OURS: [], THEIRS: []}
    loads = []
    for repeat in range(repeats):
        loads.append(os.getloadavg()[0])
        speeds[OURS].append(images_per_second(functools.partial(ours, 1 + repeat)))
        speeds[THEIRS].append(images_per_second(theirs))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "images_per_second": {name: [round(value) for value in values] for name, values in speeds.items()},
        "medians": {name: round(value) for name, value in medians.items()},
        "ratio": round(medians[OURS] / medians[THEIRS], 1),
        "load_average": [round(load, 2) for load in loads],
        "cores": os.cpu_count(),
        "batch_size": BATCH_SIZE,
        "images": source.facts.sizes["train"],
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder that holds CIFAR-10; random images unless given")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved passes over the images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.root is not None:
        result = measure(arguments.root, True, arguments.repeats, MADE_IMAGES)
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LOCAL_LEARNING_CACHE"] = str(Path(folder) / "cache")
            write_images(Path(folder))
            result = measure(Path(folder), False, arguments.repeats, MADE_IMAGES)
    for name, median in result["medians"].items():
        print(f"{name:62} {median:>9,} images/s")
    print(f"{'ratio':62} {result['ratio']:>9}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

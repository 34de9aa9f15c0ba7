"""Cost of being sure of the images before a training begins.

    python -m experiments.benchmarks.opening_data [--repeats 9]

Two things are compared with what they come on top of, in turn, on one core:
- kept images of 150 MB, opened for the first time in a process, when they are compared with their digests, and again;
- a JPEG of 500 x 375 pixels that is checked, and one that is decoded and cropped for training.
Figures stand in docs/results/data-pipeline.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from engine.data import entries
from engine.data.entries import open_entry, seal
from engine.data.parts import Picture
from engine.data.pictures.decoding import check, decoded
from engine.data.pictures.fitting import Fitting, fit, pixels
from experiments.benchmarks.side_by_side import in_turn

KEPT_BYTES = 150_000_000
PICTURES = 100
DIGESTED, AGAIN = "150 MB of kept images, opened and compared", "150 MB of kept images, opened again"
CHECKED, DECODED = "a JPEG of 500 x 375, checked", "a JPEG of 500 x 375, decoded and cropped to 224"


def make_entry(folder: Path) -> Path:
    """Write a cache entry of random images."""
    entry = folder / "entry"
    entry.mkdir()
    (entry / "train.images.npy").write_bytes(np.random.default_rng(0).bytes(KEPT_BYTES))
    (entry / entries.MANIFEST).write_text(json.dumps(seal(entry, {})))
    return entry


def make_jpeg() -> bytes:
    """Return an encoded picture with as much detail as a photograph: smooth noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (47, 63, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    return content.getvalue()


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the seconds that one of several calls takes."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    picture = Picture("picture", make_jpeg())

    def train() -> None:
        with decoded(picture) as (image, _):
            pixels(fit(image, Fitting(224, 224, 256)))

    with tempfile.TemporaryDirectory() as folder:
        entry = make_entry(Path(folder))

        def open_anew() -> None:
            # As another time of the last change makes it: what a process has seen is looked at again.
            os.utime(entry / "train.images.npy")
            open_entry(entry, lambda share: None)

        ways = {
            DIGESTED: lambda: seconds(open_anew),
            AGAIN: lambda: seconds(lambda: open_entry(entry, lambda share: None)),
            CHECKED: lambda: seconds(lambda: check(picture), PICTURES),
            DECODED: lambda: seconds(train, PICTURES),
        }
        taken, loads = in_turn(ways, repeats)
    for way, found in taken.items():
        print(
            f"{way:50} {1000 * statistics.median(found):8.2f} ms ({1000 * min(found):.2f} to {1000 * max(found):.2f})"
        )
    print(f"others used at most {max(max(shares) for shares in loads.values()):.2f} of a core")


if __name__ == "__main__":
    main()

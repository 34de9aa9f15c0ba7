"""What do the tests of layouts of folders share: how one is opened, all that it gives, and what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.data import Source, open_source
from engine.data.readers.folder import find_folder
from engine.recipes.data import Data


def open_folder(root: Path, **fields: Any) -> Source:
    return open_source(Data(name="folder", root=str(root), **({"batch_size": 2} | fields)), seed=5)


def everything(source: Source, split: str) -> tuple[np.ndarray, np.ndarray]:
    batches = list(source.evaluation_batches(split))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


def left_out(root: Path) -> dict[str, int]:
    return {left.reason: left.number for left in find_folder(root).survey.left_out}

"""Small checkpoints of two learners: their states, their values, and the names of their files."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.checkpoints import LearnerState, save_checkpoint

METERS = {"sums": {"total": 0.1 + 0.2}, "counts": {"total": 7}, "images": 7, "scored": 7, "hits": 2, "observed": {}}
COUNTERS = {"meters": METERS, "memory": {"bytes": {}, "left": 3}, "scaler": {}, "diverged": None, "shapes": {}}
FACTS = {
    "name": "digits",
    "num_classes": 2,
    "class_names": ["a", "b"],
    "image_shape": [1, 8, 8],
    "mean": [0.5],
    "std": [0.25],
    "sizes": {"train": 9, "test": 3},
    "fingerprint": "f",
}
VALUES = {"recipe": "abc", "facts": FACTS, "latest": {"test/loss": 1 / 3}}


def _states(step: int) -> dict[str, LearnerState]:
    values = torch.arange(6, dtype=torch.float32).reshape(2, 3) + step
    return {
        "segment0": LearnerState(
            {"body.a": values, "optimizer.body.a.momentum_buffer": -values}, {"steps": step, **COUNTERS}
        ),
        "segment1": LearnerState(
            {"body.b": values.to(torch.bfloat16), "body.count": torch.tensor(step), "body.none": torch.empty(0, 4)},
            {"steps": step, **COUNTERS},
        ),
    }


def _save(folder: Path, *steps: int, keep: int = 9) -> Path:
    for step in steps:
        path = save_checkpoint(folder, step, _states(step), VALUES, keep)
    return path


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())

"""Is what the network says of another image of the class only consulted?"""

from __future__ import annotations

import numpy as np
import torch

from engine.data import Batch
from engine.learners.self_distillation.class_wise import SAME_CLASS, SameClass
from engine.learners.self_distillation.passes import FIRST

PIXELS = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 4)
BATCH = Batch(np.zeros((6, 1, 4, 4), np.uint8), np.array([0, 1, 2, 0, 1, 2]), np.arange(6), "train", 0, 0)


def test_paired_images_are_consulted_and_their_statistics_tracked() -> None:
    passes = SameClass(consults=True).passes(BATCH, PIXELS)
    assert passes.first.name == FIRST
    assert passes.first.pixels.equal(PIXELS[:3])
    assert passes.first.labels.tolist() == [0, 1, 2]
    (consulted,) = passes.consulted
    assert consulted.name == SAME_CLASS
    assert consulted.pixels.equal(PIXELS[3:])
    assert consulted.tracked
    assert not passes.further


def test_without_weight_nobody_is_consulted() -> None:
    passes = SameClass(consults=False).passes(BATCH, PIXELS)
    assert passes.first.pixels.equal(PIXELS[:3])
    assert not passes.consulted

"""Distillation against a loop written by hand, which uses none of the engine's training code, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from engine import backbones
from engine.recipes import Backbone
from engine.training import export_network
from tests.parity.peers_by_hand import (
    CLASSES,
    _assert_equal,
    _learn,
    _network,
    _optimizer,
    _recipe,
    _state,
    _steps,
    _train,
    mean_of_kl,
)


@pytest.mark.parametrize(("where", "smoothing"), [("run", 0.1), ("cohort", 0.0), ("file", 0.0)])
def test_distillation_from_a_frozen_teacher(where: str, smoothing: float, tmp_path: Path) -> None:
    cohort = ("method.kind=dml",) if where == "cohort" else ()
    # Wider than the student, and with another seed.
    teachers = _train(_recipe(*cohort, "backbone.widths=4,4,8", "seed=9"), tmp_path / "teacher")
    given, words = str(teachers.path), ()
    if where == "cohort":
        teacher, words = teachers.network("peer1"), ("method.teacher_network=peer1",)
    elif where == "run":
        teacher = teachers.network()
    else:
        given = str(tmp_path / "teacher.safetensors")
        export_network(teachers, given)
        teacher = backbones.build(Backbone(name="resnet8", widths=(4, 4, 8)), CLASSES, (1, 8, 8), seed=0)
        backbones.load_plain_state(teacher, "resnet8", safetensors.torch.load_file(given))
    settings = ("method.weight=0.6", "method.label_weight=0.4", "method.temperature=2")
    settings += (f"task.label_smoothing={smoothing}",)
    recipe = _recipe("method.kind=distillation", f"method.teacher={given}", *words, *settings)
    run = _train(recipe, tmp_path / "run")

    student = _network(recipe)
    optimizer = _optimizer(student)
    for _, images, labels in _steps(recipe, [optimizer]):
        with torch.no_grad():
            target = teacher.eval()(images)
        own = student(images)
        label_loss = F.cross_entropy(own, labels, label_smoothing=smoothing)
        _learn(optimizer, 0.4 * label_loss + 0.6 * mean_of_kl(own, [target], 2.0))

    _assert_equal(_state(run, "student"), student)

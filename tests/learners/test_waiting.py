"""Between two reports no step of any method asks for a number that a device would have to compute first."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch.utils._python_dispatch import TorchDispatchMode

import engine
from engine.learners import learner
from engine.learners.finite import DeferredCheck, ImmediateCheck, LossCheck
from engine.recipes import METHODS, Recipe
from engine.tracking import Preparation
from engine.training.session import Session

# On a GPU each of these waits for all that was asked of it before.
WAITS = {"_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "_unique2", "bincount"}
# Of numbers that are drawn, counted or kept in main memory, wherever the learner is.
ON_THE_HOST = {
    "backbones/subnetworks.py",
    "knowledge/mixing.py",
    "knowledge/store.py",
    "learners/self_distillation/last_batch.py",
    "objectives/branches.py",
}
ENGINE = Path(engine.__file__).parent
NEEDS_A_TEACHER = {"distillation"}
USUAL = {"end_to_end", "infopro", "dml", "gkt"}
FIELDS: dict[str, dict[str, Any]] = {"dml": {"on_divergence": "stop"}}


class Waits(TorchDispatchMode):
    """Counts operations that give a number to Python, by the line that asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(each is not None and each.dtype == torch.bool for each in args[1])
        if name in WAITS or by_mask:
            frames = [each for each in traceback.extract_stack() if Path(each.filename).is_relative_to(ENGINE)]
            place = Path(frames[-1].filename).relative_to(ENGINE).as_posix()
            if place not in ON_THE_HOST:
                self.found.append(f"{place}:{frames[-1].lineno} {name}")
        return func(*args, **(kwargs or {}))


def _as_on_a_gpu(device: torch.device, optimizer: torch.optim.Optimizer, *, at_once: bool) -> LossCheck:
    return ImmediateCheck() if at_once else DeferredCheck(device)


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in USUAL else pytest.param(kind, marks=pytest.mark.slow)
        for kind in sorted(set(METHODS) - NEEDS_A_TEACHER)
    ],
)
def test_no_step_waits(kind: str, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "loss_check", _as_on_a_gpu)
    method = TypeAdapter(METHODS[kind]).validate_python({"kind": kind, **FIELDS.get(kind, {})})
    with Session(
        tiny_recipe(method=method), engine.Plan(executor="process"), Preparation(lambda text: None)
    ) as session:
        runtime = session.start()
        waits = Waits()
        for step in range(4):
            batch = session.source.batch(0, step)
            with waits:
                runtime.submit(session.team.program(step), batch)
        assert waits.found == []
        # The mode sees what a report asks for, so that a test without any findings means something.
        with waits:
            assert runtime.ask("metrics").result()
        assert waits.found


# Networks are placed before the first step.
PLACES_MODULES = {"learners/inputs.py:placed", "learners/teacher.py:__init__"}


def test_nothing_is_copied_to_a_device_but_through_pinned_memory() -> None:
    """A copy out of other memory waits for the device, and on a CPU nobody can see that it would."""
    found, pinned = [], 0
    rooms = [
        path for room in ("learners", "objectives", "knowledge", "tasks") for path in (ENGINE / room).rglob("*.py")
    ]
    for path in [*rooms, ENGINE / "data" / "augmentation.py"]:
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                if not isinstance(call, ast.Call):
                    continue
                pinned += ast.unparse(call.func) == "on_device"
                to_device = any(ast.unparse(each).endswith("device") for each in call.args)
                place = f"{path.relative_to(ENGINE).as_posix()}:{function.name}"
                if isinstance(call.func, ast.Attribute) and call.func.attr == "to" and to_device:
                    found.append(place)
    assert set(found) == PLACES_MODULES
    assert pinned > 20

"""What stays in float32 where networks compute in bfloat16?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import engine
from engine.program import BATCH
from engine.recipes import SGD, AdamW, InfoPro, Numerics, Optimizer, Recipe
from engine.tracking import Preparation
from engine.training.session import Session


@pytest.mark.parametrize("optimizer", [SGD(), AdamW()])
def test_weights_and_optimizer_state_stay_in_float32(optimizer: Optimizer, tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(
        method=InfoPro(num_segments=2), optimizer=optimizer, numerics=Numerics(precision="bfloat16", threads=1)
    )
    with Session(recipe, engine.Plan(executor="process"), Preparation(lambda text: None)) as session:
        runtime, program = session.start(), session.team.program(0)
        for step in range(2):
            runtime.submit(program, session.source.batch(0, step))
        memory = runtime.ask("memory").result()
        states = runtime.ask("state").result()
        travelling = {name: message for name, message in program.messages.items() if name != BATCH}
    for learner, state in states.items():
        floating = [tensor for tensor in state.tensors.values() if tensor.is_floating_point()]
        assert floating
        assert {tensor.dtype for tensor in floating} == {torch.float32}
        moments = 1 if isinstance(optimizer, SGD) else 2
        # AdamW counts its steps in a tensor for each parameter.
        assert memory[learner]["optimizer"] // memory[learner]["parameters"] == moments
        assert memory[learner]["gradients"] == memory[learner]["parameters"]
    assert travelling
    assert {dtype for message in travelling.values() for _, dtype in message.parts} == {"bfloat16"}

"""State of a learner: all that training changes in it as named arrays, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import RunError
from engine.reading import first_line

KNOWLEDGE_FOLLOWS = "knowledge_follows"
"""In a state's `extra`: the step of the state whose knowledge a knowledge store has changed since; None: all of it."""


@dataclass
class LearnerState:
    """All that training changes in one learner.

    Attributes:
        tensors: by name; ``body.BLOCK.*`` are the plain backbone's weights and buffers, ``auxiliary.*`` those of
            heads and decoders, ``optimizer.PARAMETER.SLOT`` what the optimizer remembers. On the CPU, contiguous.
        extra: JSON values: counters and running sums.
        knowledge: the rows of a knowledge store that changed since the state before, which `extra` names as the step
            ``knowledge_follows`` (None: since the start); when restored, all rows. Empty without a store.
    """

    tensors: dict[str, Tensor]
    extra: dict[str, Any]
    knowledge: dict[str, Tensor] = field(default_factory=dict)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def pack_state(
    body: nn.Module,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    named: dict[str, nn.Parameter],
    extra: dict[str, Any],
) -> LearnerState:
    """Return a copy of a learner's state; nothing in it shares memory with the learner."""
    tensors = {f"body.{name}": _copy(value) for name, value in body.state_dict().items()}
    tensors |= {f"auxiliary.{name}": _copy(value) for name, value in objective.state_dict().items()}
    for name, parameter in named.items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{slot}"] = _copy(value)
    return LearnerState(tensors, extra)


def unpack_state(
    state: LearnerState,
    body: nn.Module,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    named: dict[str, nn.Parameter],
) -> dict[str, Any]:
    """Put a state into a learner and return its ``extra``.

    Raises:
        RunError: names or shapes are not this learner's.
    """
    try:
        for prefix, module in (("body.", body), ("auxiliary.", objective)):
            part = {name[len(prefix) :]: value for name, value in state.tensors.items() if name.startswith(prefix)}
            module.load_state_dict(part, strict=True)
    except RuntimeError as error:
        raise RunError(f"a checkpoint does not fit this learner: {first_line(error)}") from error
    expected = slots_of(optimizer)
    slots: dict[int, dict[str, Tensor]] = {}
    # Torch numbers parameters group by group, which need not be the order of their names.
    numbered = (parameter for group in optimizer.param_groups for parameter in group["params"])
    places = {parameter: place for place, parameter in enumerate(numbered)}
    for name, parameter in named.items():
        prefix = f"optimizer.{name}."
        found = {key[len(prefix) :]: value for key, value in state.tensors.items() if key.startswith(prefix)}
        # Momentum is there from the start; others remember nothing of what has had no gradient yet.
        if (found or isinstance(optimizer, torch.optim.SGD)) and found.keys() != expected:
            raise RunError(
                f"a checkpoint does not fit this learner: of {name} the optimizer would remember "
                f"{', '.join(found) or 'nothing'}, expected {', '.join(expected) or 'nothing'}"
            )
        if found:
            slots[places[parameter]] = {slot: _beside(value, parameter) for slot, value in found.items()}
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return state.extra


def slots_of(optimizer: torch.optim.Optimizer) -> set[str]:
    """Return the names of what an optimizer remembers of a parameter."""
    momentum = {"momentum_buffer"} if optimizer.param_groups[0].get("momentum") else set[str]()
    if isinstance(optimizer, torch.optim.SGD):
        return momentum
    if isinstance(optimizer, torch.optim.RMSprop):
        return {"step", "square_avg"} | momentum
    return {"step", "exp_avg", "exp_avg_sq"}


def _beside(value: Tensor, parameter: nn.Parameter) -> Tensor:
    if value.shape != parameter.shape:  # a step counter; the optimizer knows where it belongs
        return value.clone()
    # In the parameter's layout: the fused kernels walk both in memory order.
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)

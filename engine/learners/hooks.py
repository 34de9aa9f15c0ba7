"""Hooks that read the outputs of blocks inside a body, and runs that leave no trace in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.backbones import BatchNormNeck
from engine.errors import RecipeError

POOLED = "pooled"
"""Stands for the features [B, D] that enter the last linear layer."""

BEFORE_NECK = "before_neck"
"""Stands for the same before they pass a batch-norm neck, if the network has one."""


class OutputHooks:
    """Records outputs of a body's blocks, with their graph.

    Args:
        body: the blocks.
        names: of the blocks, `POOLED`, and `BEFORE_NECK`.

    Raises:
        RecipeError: one of these two is asked of a body without a linear layer.
    """

    def __init__(self, body: nn.Sequential, names: Sequence[str]) -> None:
        self._recorded: dict[str, Tensor] | None = None
        for name in names:
            if name in (POOLED, BEFORE_NECK):
                _entered(body, name).register_forward_pre_hook(self._input_recorder_of(name))
            else:
                body.get_submodule(name).register_forward_hook(self._recorder_of(name))

    def _input_recorder_of(self, name: str) -> Any:
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if self._recorded is not None:
                self._recorded[name] = inputs[0]

        return record

    def _recorder_of(self, name: str) -> Any:
        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self._recorded is not None:
                self._recorded[name] = output
            # Whatever reads the view adds its gradients up before they meet those of the branch: a sum of two then,
            # which is the same in any order, and so wherever the branch is computed.
            return output.view_as(output)

        return record

    @contextlib.contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """Give what the body computes inside the block, by name."""
        self._recorded = {}
        try:
            yield self._recorded
        finally:
            self._recorded = None


def _entered(body: nn.Sequential, name: str) -> nn.Module:
    necks = [module for module in body.modules() if isinstance(module, BatchNormNeck)]
    if necks and name == BEFORE_NECK:
        return necks[-1]
    found = [module for module in body.modules() if isinstance(module, nn.Linear)]
    if not found:
        raise RecipeError(
            "the features that enter the last linear layer are asked for, but this backbone has none: choose another"
        )
    return found[-1]


@contextlib.contextmanager
def statistics_untracked(*modules: nn.Module) -> Iterator[None]:
    """Let batch norms use the statistics of the batch inside the block without updating their running ones."""
    norms = [each for module in modules for each in module.modules() if isinstance(each, _BatchNorm)]
    tracked = [norm for norm in norms if norm.track_running_stats]
    for norm in tracked:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracked:
            norm.track_running_stats = True

"""Hooks that read the outputs of blocks inside a body, and runs that leave no trace in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.errors import RecipeError

POOLED = "pooled"
"""Stands for the features [B, D] that enter the last linear layer."""


class OutputHooks:
    """Records outputs of a body's blocks, with their graph.

    Args:
        body: the blocks.
        names: of the blocks, and `POOLED`.

    Raises:
        RecipeError: `POOLED` is asked of a body without a linear layer.
    """

    def __init__(self, body: nn.Sequential, names: Sequence[str]) -> None:
        self._recorded: dict[str, Tensor] | None = None
        for name in names:
            if name == POOLED:
                _last_linear(body).register_forward_pre_hook(self._record_input)
            else:
                body.get_submodule(name).register_forward_hook(self._recorder_of(name))

    def _record_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._recorded is not None:
            self._recorded[POOLED] = inputs[0]

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


def _last_linear(body: nn.Sequential) -> nn.Linear:
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

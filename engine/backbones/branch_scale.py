"""Scaling of residual branches while training drops blocks at random."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from engine.errors import RecipeError


@contextlib.contextmanager
def scaled_branches(network: nn.Sequential, scales: Mapping[str, float]) -> Iterator[None]:
    """Multiply the residual branches of some blocks by factors inside the block of code.

    A branch that is kept with probability p and then multiplied by 1/p contributes in expectation what it does in the
    whole network, which therefore is deployed without scaling. ``torchvision.ops.StochasticDepth`` does the same;
    Huang et al. (2016, arXiv 1603.09382, equation 5) scale by p at test time instead.

    A network that is compiled as a whole does not see these factors; `run_without` calls its children one by one.

    Args:
        network: its named children have ``branch_end``, the module whose output is added to the shortcut.
        scales: the factor of each block by name; the others', and those with factor 1, run as they are.

    Raises:
        RecipeError: a named block does not tell where its branch ends.
    """
    ends = {name: _branch_end(name, network.get_submodule(name)) for name in scales}
    with contextlib.ExitStack() as hooks:
        for name, factor in scales.items():
            if factor != 1:
                hooks.callback(ends[name].register_forward_hook(_multiplier(factor)).remove)
        yield


def _branch_end(name: str, block: nn.Module) -> nn.Module:
    end = getattr(block, "branch_end", None)
    if not isinstance(end, nn.Module):
        raise RecipeError(
            f"backbone: block {name!r} ({type(block).__name__}) has "
            f"{'no branch_end' if end is None else f'branch_end={end!r}'}, so its residual branch cannot be scaled. "
            "Define a property branch_end of the block that returns the module whose output is added to the shortcut."
        )
    return end


def _multiplier(factor: float) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def multiply(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * factor

    return multiply

"""A counter of the work of operations and of what they would allocate, without a byte allocated.

Everything here runs on meta tensors, which have shapes and no values.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_CONVOLUTIONS = (_aten.convolution.default, _aten.convolution_overrideable.default)
_CONVOLUTIONS_BACKWARD = (_aten.convolution_backward.default, _aten.convolution_backward_overrideable.default)
_PRODUCTS = {
    _aten.mm.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.baddbmm.default: (1, 2),
}

# What autocast computes in the lower precision, as far as networks here use it.
_LOWERED = (
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose2d,
    torch.nn.functional.linear,
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    torch.mm,
    torch.bmm,
    torch.einsum,
)


class CostCounter(TorchDispatchMode):
    """Adds up the work of all operations inside its block, and follows what they allocate.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products, forward and backward.
        moved: bytes that the operations read and write; views move nothing.
        peak: most bytes that lived at one time, of all that was allocated inside the block.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.moved = 0
        self.peak = 0
        self._live: dict[int, int] = {}
        self._lives = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and write down what it costs."""
        # Whoever makes tensors with values gets values.
        takes_short_way = function in _SHORT_WAYS and args[0].is_meta
        given = (_SHORT_WAYS[function] if takes_short_way else function)(*args, **(kwargs or {}))
        if function.is_view:
            return given
        taken = list(_tensors((*args, *(kwargs or {}).values())))
        results = list(_tensors((given,)))
        known = {_key(tensor) for tensor in taken}
        self.moved += sum(tensor.nbytes for tensor in (*taken, *results))
        self.macs += _macs(function, args, results)
        for tensor in results:
            if _key(tensor) not in known and _key(tensor) not in self._live:
                self._allocate(tensor.untyped_storage())
        return given

    def _allocate(self, storage: torch.UntypedStorage) -> None:
        self._live[storage._cdata] = storage.nbytes()
        self._lives += storage.nbytes()
        self.peak = max(self.peak, self._lives)
        weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, key: int) -> None:
        self._lives -= self._live.pop(key)


def _normalised(images: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *_: Any) -> Any:
    statistics = [images.shape[1]] if training else [0]
    return (torch.empty_like(images), *(images.new_empty(statistics, dtype=torch.float32) for _ in range(2)))


def _normalised_backward(gradient: Tensor, images: Tensor, weight: Any, *rest: Any) -> Any:
    wanted = rest[-1]
    gradients = [torch.empty_like(images) if wanted[0] else None]
    return (
        *gradients,
        *(images.new_empty(images.shape[1], dtype=torch.float32) if each else None for each in wanted[1:]),
    )


# What torch does in Python on the meta device, which takes longer than all other operations together.
_SHORT_WAYS: dict[Any, Callable[..., Any]] = {
    _aten.native_batch_norm.default: _normalised,
    _aten.native_batch_norm_backward.default: _normalised_backward,
    _aten.threshold_backward.default: lambda gradient, *_: torch.empty_like(gradient),
    _aten.normal_.default: lambda tensor, *_, **__: tensor,
    _aten.uniform_.default: lambda tensor, *_, **__: tensor,
}


def _macs(function: Any, args: Any, results: list[Tensor]) -> int:
    """Return the multiply-accumulates of an operation; 0 for all that are bound by memory anyway."""
    if function in _CONVOLUTIONS:
        images, weight, transposed = args[0], args[1], args[6]
        return (images if transposed else results[0]).numel() * weight[0].numel()
    if function in _CONVOLUTIONS_BACKWARD:
        gradient, images, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
        # As many for the input's gradient as forward, and as many for the weight's.
        return (images if transposed else gradient).numel() * weight[0].numel() * sum(wanted[:2])
    if function in _PRODUCTS:
        left = args[_PRODUCTS[function][0]]
        return results[0].numel() * left.shape[-1]
    return 0


@contextlib.contextmanager
def layer_macs(module: nn.Module) -> Iterator[list[int]]:
    """Give the multiply-accumulates of each convolution and linear layer that runs inside the block, as written.

    A layer may be evaluated in a cheaper way in training; in evaluation mode each is called by itself.
    """
    found: list[int] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        found.append(output.numel() * layer.weight[0].numel())

    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Lowered(TorchFunctionMode):
    """Casts what goes into convolutions and matrix products, as autocast does, which the meta device lacks."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _LOWERED:
            args = [self._cast(value) for value in args]
        return function(*args, **(kwargs or {}))

    def _cast(self, value: Any) -> Any:
        return value.to(self._dtype) if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def in_precision(dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Return a block in which networks on the meta device compute in a precision, as under autocast elsewhere."""
    return contextlib.nullcontext() if dtype == torch.float32 else _Lowered(dtype)

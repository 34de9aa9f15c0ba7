"""Do tensors cross the object store unchanged, over the same memory?"""

from __future__ import annotations

import itertools
import pickle
import warnings

import numpy as np
import pytest
import torch

from engine.runtimes.ray.messages import pack, unpack

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool, torch.float64)
SHAPES = ((2, 3, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (4, 7), (3,), (), (0, 3, 4, 5))


def _tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return (torch.arange(int(np.prod(shape))).reshape(shape) * 37 % 101 - 50).to(dtype)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize(("shape", "dtype"), itertools.product(SHAPES, DTYPES))
def test_round_trip(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = _tensor(shape, dtype)
    received = unpack(pickle.loads(pickle.dumps(pack(tensor))))
    assert (received.dtype, received.shape) == (dtype, tensor.shape)
    assert received.equal(tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 4, 5), (2, 3, 2, 2)])
def test_channels_last_stays_channels_last(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The layout decides which kernel runs, and so the last bits."""
    tensor = _tensor(shape, dtype).contiguous(memory_format=torch.channels_last)
    packed = pack(tensor)
    assert packed.array.flags.c_contiguous
    received = unpack(packed)
    assert received.equal(tensor)
    assert received.stride() == tensor.stride()
    assert received.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_nothing_is_copied(dtype: torch.dtype) -> None:
    tensor = _tensor((2, 3, 4, 5), dtype)
    packed = pack(tensor)
    assert _address(packed.array) == tensor.data_ptr()
    assert unpack(packed).data_ptr() == tensor.data_ptr()


def test_a_graph_is_not_sent() -> None:
    tensor = torch.ones(2, 3, requires_grad=True) * 2
    received = unpack(pack(tensor))
    assert not received.requires_grad
    assert received.grad_fn is None


def test_strided_tensors_are_sent_without_gaps() -> None:
    tensor = _tensor((4, 6), torch.float32)[:, ::2]
    packed = pack(tensor)
    assert packed.array.flags.c_contiguous
    assert unpack(packed).equal(tensor)


def test_read_only_memory_is_received_without_a_warning() -> None:
    packed = pack(_tensor((2, 3), torch.float32))
    packed.array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # As engine.runtimes.calls sets it; pytest puts filters of its own in front of it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        received = unpack(packed)
    assert received.equal(_tensor((2, 3), torch.float32))


def test_bits_that_are_no_numbers_survive() -> None:
    tensor = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    assert unpack(pack(tensor)).view(torch.int32).equal(tensor.view(torch.int32))

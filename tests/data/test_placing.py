"""Does what goes to a GPU go through page-locked memory, without waiting, and is nothing copied in vain?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.data import Batch, on_device

CPU = torch.device("cpu")


def test_on_a_cpu_a_tensor_stays_itself() -> None:
    tensor = torch.arange(4)
    assert on_device(tensor, CPU) is tensor
    array = np.arange(4)
    assert on_device(array, CPU).data_ptr() == array.ctypes.data


def test_an_array_that_may_not_be_written_is_copied() -> None:
    array = np.arange(4)
    array.flags.writeable = False
    placed = on_device(array, CPU)
    assert placed.tolist() == [0, 1, 2, 3]
    assert placed.data_ptr() != array.ctypes.data


def test_an_array_that_is_only_shown_read_only_is_not() -> None:
    array = np.arange(12).reshape(3, 4)
    shown = Batch(array, array[1:], array, "train", 0, 0).read_only()
    assert not shown.images.flags.writeable
    assert on_device(shown.images, CPU).data_ptr() == array.ctypes.data
    assert on_device(shown.labels, CPU).data_ptr() == array[1:].ctypes.data


def test_a_gpu_gets_it_out_of_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    pinned = torch.arange(4)

    def pin(tensor: Tensor) -> Tensor:
        asked.append(("pin", tensor.tolist()))
        return pinned

    def to(tensor: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        asked.append(("to", tensor is pinned, device.type, non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", to)
    on_device(np.arange(3), torch.device("cuda", 0))
    assert asked == [("pin", [0, 1, 2]), ("to", True, "cuda", True)]

"""Are torch's settings those of the recipe, only for as long as it runs, and is the device one that there is?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import PlanError
from engine.learners.numerics import DTYPES, choose_device, numerics_applied
from engine.recipes import Numerics


def current() -> tuple[int, bool, bool, bool]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


def test_settings_hold_inside_and_are_put_back() -> None:
    torch.set_num_threads(1)
    before = current()
    with numerics_applied(Numerics(threads=2)):
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    assert current() == before


def test_settings_are_put_back_after_an_error() -> None:
    torch.set_num_threads(1)
    before = current()
    with pytest.raises(ValueError, match="inside"), numerics_applied(Numerics(threads=2)):
        raise ValueError("inside")
    assert current() == before


def test_without_determinism_the_fastest_algorithms_are_sought() -> None:
    with numerics_applied(Numerics(deterministic=False)):
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark


def test_settings_can_be_nested() -> None:
    before = current()
    with numerics_applied(Numerics(threads=2)):
        with numerics_applied(Numerics(threads=1, deterministic=False)):
            assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (1, False)
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (2, True)
    assert current() == before


def test_every_precision_has_a_dtype() -> None:
    expected = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    assert expected == DTYPES


CASES = [
    ("auto", False, False, "cpu"),
    ("auto", True, False, "cpu"),
    ("auto", False, True, "cpu"),
    ("auto", True, True, "cuda"),
    ("cpu", True, True, "cpu"),
    ("cuda", True, True, "cuda"),
    ("cuda", False, True, "cuda"),
]


@pytest.mark.parametrize(("device", "planned", "there", "expected"), CASES)
def test_the_device(device: str, planned: bool, there: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device(Numerics(device=device), planned).type == expected  # type: ignore[arg-type]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlanError, match=r"numerics.device=cuda.*set numerics.device=cpu"):
        choose_device(Numerics(device="cuda"), True)


def test_float16_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(Numerics(precision="float16"), True).type == "cuda"
    with pytest.raises(PlanError, match=r"float16.*bfloat16"):
        choose_device(Numerics(precision="float16", device="cpu"), True)
    assert choose_device(Numerics(precision="bfloat16", device="cpu"), False).type == "cpu"


def test_many_networks_can_be_compiled() -> None:
    """Torch counts all modules together, and would give up after eight."""
    counted = 0

    def count(graph: Any, _: Any) -> Any:
        nonlocal counted
        counted += 1
        return graph.forward

    images = torch.ones(2, 3)
    torch._dynamo.reset()
    with numerics_applied(Numerics(compile=True)):
        for depth in range(1, 13):
            network = nn.Sequential(*(nn.Linear(3, 3) for _ in range(depth)))
            network.compile(backend=count)
            network(images)
    assert counted == 12

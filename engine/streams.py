"""Random streams: every draw is a function of a key such as (seed, learner, epoch, step).

Nothing here reads or leaves behind global state, so a replayed or resumed step draws the same
numbers in any process.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Key = int | str


def stream_seed(*key: Key) -> int:
    """Return the 63-bit seed that belongs to a key, for instance ``(seed, "segment0", epoch, step)``."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*key: Key) -> torch.Generator:
    """Return a CPU generator at the start of the stream of this key.

    Draws are made on the CPU and moved, so that every device sees the same numbers.
    """
    import torch

    return torch.Generator().manual_seed(stream_seed(*key))


@contextlib.contextmanager
def seeded(*key: Key, device: torch.device | None = None) -> Iterator[None]:
    """Run a block with torch's default generators at the start of this stream, then restore them.

    For code that can only draw from the default generator: module initialisation and dropout.
    """
    generators = _default_generators(device)
    states = [each.get_state() for each in generators]
    seed = stream_seed(*key)
    # Not torch.manual_seed: it records a traceback for each backend, which a narrow network's step would notice.
    for each in generators:
        each.manual_seed(seed)
    try:
        yield
    finally:
        for each, state in zip(generators, states, strict=True):
            each.set_state(state)


def positions(device: torch.device | None = None) -> list[torch.Tensor]:
    """Return how far torch's default generators have come, for `continued`."""
    return [each.get_state() for each in _default_generators(device)]


@contextlib.contextmanager
def continued(since: list[torch.Tensor], device: torch.device | None = None) -> Iterator[None]:
    """Run a block with torch's default generators where `positions` found them, then restore them."""
    generators = _default_generators(device)
    states = [each.get_state() for each in generators]
    for each, state in zip(generators, since, strict=True):
        each.set_state(state)
    try:
        yield
    finally:
        for each, state in zip(generators, states, strict=True):
            each.set_state(state)


def _default_generators(device: torch.device | None) -> list[torch.Generator]:
    import torch

    generators = [torch.default_generator]
    if device is not None and device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    return generators

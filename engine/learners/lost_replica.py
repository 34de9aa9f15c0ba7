"""The error of a replica whose partner is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


class LostReplica(Exception):
    """Another replica of this learner takes no part in an exchange: it has failed, or is no more."""


@contextlib.contextmanager
def exchanging() -> Iterator[None]:
    """Turn what an exchange between replicas fails with into `LostReplica`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostReplica(f"another replica is gone: {error}") from error

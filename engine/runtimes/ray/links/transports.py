"""Transports of bytes between the ends of a link that do not see the same memory.

Over the connection that the ends have anyway, or in a group of torch.distributed (NCCL), which moves them from GPU to
GPU. A group opens no port of its own for the two to find one another: they do so over that connection, too.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor

_SIZES = struct.Struct("<II")
# How often somebody who waits for a GPU looks whether the partner is still there.
_LOOK_SECONDS = 50e-6
# The two have met already, so this only ends what neither of them can finish.
_PATIENCE = timedelta(minutes=10)


class ByteTransport(Protocol):
    """Carries bytes in the order of the headers that announce them."""

    def send(self, place: Tensor) -> None:
        """Send the bytes at a place, uint8 [bytes]; raises OSError if the partner is gone."""

    def receive(self, place: Tensor) -> None:
        """Wait for the bytes that belong at a place, uint8 [bytes]; raises OSError if the partner is gone."""


class OverConnection:
    """For rings in the memory of two hosts.

    Args:
        connection: between the ends.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, place: Tensor) -> None:
        """Send the bytes after their header."""
        self._connection.sendall(place.numpy().data)

    def receive(self, place: Tensor) -> None:
        """Read the bytes after their header."""
        receive_into(self._connection, place.numpy().data)


class InGroup:
    """For rings on two devices: a group of torch.distributed with the giver as rank 0 and the taker as rank 1.

    Each link has a group of its own, because what a group does it does in order, and two learners that give each other
    something would wait for each other.

    Args:
        connection: between the ends, which says when the partner is gone: a group of GPUs would wait for it.
        rank: 0 for the giver, 1 for the taker.
        device: of the ring: with NCCL for a GPU, with gloo for a CPU.

    Raises:
        RuntimeError: no group came about.
    """

    def __init__(self, connection: socket.socket, rank: int, device: torch.device) -> None:
        self._connection, self._rank = connection, rank
        store = _MeetingOver(connection)
        groups: Any = torch.distributed
        self._group: Any
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._group = groups.ProcessGroupNCCL(store, rank, 2, groups.ProcessGroupNCCL.Options())
        else:
            self._group = groups.ProcessGroupGloo(store, rank, 2, _PATIENCE)
        # A group of GPUs is made by its first exchange: now, while nothing else is on the connection.
        first = self._group.send if rank == 0 else self._group.recv
        self._exchange(first, torch.zeros(1, dtype=torch.uint8, device=device))
        store.end()

    def send(self, place: Tensor) -> None:
        """Send the bytes at a place; returns once they are sent."""
        self._carry(self._group.send, place)

    def receive(self, place: Tensor) -> None:
        """Receive the bytes that belong at a place; returns once they are there."""
        self._carry(self._group.recv, place)

    def _carry(self, method: Any, place: Tensor) -> None:
        try:
            if place.numel():
                self._exchange(method, place)
        except RuntimeError as error:
            raise ConnectionError(str(error)) from error

    def _exchange(self, method: Any, place: Tensor) -> None:
        with torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext():
            # A GPU's work is only put into the stream by this; a CPU's is done when it returns.
            method([place], 1 - self._rank, 0).wait()
        if self._stream is not None:
            self._wait_for(self._stream.record_event())

    def _wait_for(self, event: torch.cuda.Event) -> None:
        connection = select.poll()
        # A partner that is gone says so even behind bytes that nobody has read yet.
        connection.register(self._connection, select.POLLRDHUP)
        while not event.query():
            if connection.poll(0):
                self._group.abort()
                raise ConnectionResetError("the partner is gone")
            time.sleep(_LOOK_SECONDS)


class _MeetingOver(torch.distributed.Store):
    """What the two members of a group tell each other: each sends what it sets, and waits for what it lacks."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection: socket.socket | None = connection
        self._known: dict[str, bytes] = {}

    def set(self, key: str, value: bytes | str) -> None:
        """Tell the partner a value."""
        name, content = key.encode(), value.encode() if isinstance(value, str) else bytes(value)
        self._known[key] = content
        if self._connection is not None:
            self._connection.sendall(_SIZES.pack(len(name), len(content)) + name + content)

    def get(self, key: str) -> bytes:
        """Return a value, once it is known."""
        self.wait([key])
        return self._known[key]

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Read what the partner says until all the values are known; the connection's own limit of time holds."""
        while not self.check(keys):
            if self._connection is None:
                raise RuntimeError(f"the members of a group have met; {', '.join(keys)} was not set")
            name, content = _SIZES.unpack(receive(self._connection, _SIZES.size))
            key = receive(self._connection, name).decode()
            self._known[key] = receive(self._connection, content)

    def check(self, keys: Sequence[str]) -> bool:
        """Return whether all the values are known; asked by a group's own threads at any time."""
        return all(key in self._known for key in keys)

    def end(self) -> None:
        """Leave the connection to the link."""
        self._connection = None


def receive(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes from a connection; raises OSError if it ends before."""
    found = bytearray(size)
    receive_into(connection, memoryview(found))
    return bytes(found)


def receive_into(connection: socket.socket, into: memoryview) -> None:
    """Fill memory from a connection; raises OSError if it ends before."""
    done = 0
    while done < len(into):
        count = connection.recv_into(into[done:])
        if not count:
            raise ConnectionResetError("the connection ended")
        done += count

"""Memory of a link's ring, for each way in which messages can travel."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from engine.runtimes.ray.links.transports import ByteTransport, InGroup, OverConnection, receive

Way = Literal["memory", "tcp", "gpu_memory", "nccl"]
"""In memory of one host that both ends see, or over TCP from host to host; in memory of one GPU that both ends see
(CUDA IPC), or with NCCL from GPU to GPU."""

WORDS: dict[Way, str] = {
    "memory": "in shared memory",
    "tcp": "over TCP",
    "gpu_memory": "in the memory of their GPU",
    "nccl": "with NCCL",
}

_SIZE = struct.Struct("<I")
_READY = b"\1"


def make_ring(
    way: Way, size: int, connection: socket.socket, descriptor: int, gives: bool, device: torch.device
) -> tuple[Tensor, ByteTransport | None]:
    """Return the memory of a link's ring at one of its ends, uint8 [size], and what carries bytes to the other.

    Both ends call this at the same time.

    Args:
        way: in which what is given travels.
        size: in bytes.
        connection: between the ends.
        descriptor: of memory that both ends have; -1 where there is none. It is closed.
        gives: whether this end is the giver's.
        device: of the learner.

    Raises:
        OSError: memory is short, or the partner is gone.
        RuntimeError: the devices do not let it come about.
    """
    if way == "memory":
        return _mapped(descriptor, size), None
    if way == "tcp":
        return _mapped(-1, size), OverConnection(connection)
    if way == "nccl":
        return torch.empty(size, dtype=torch.uint8, device=device), InGroup(connection, 0 if gives else 1, device)
    if gives:
        memory, words = offer(size, device)
        connection.sendall(_SIZE.pack(len(words)) + words)
        # Until the taker has opened it, and so says, too, that it could.
        receive(connection, len(_READY))
        return memory, None
    (count,) = _SIZE.unpack(receive(connection, _SIZE.size))
    memory = accept(receive(connection, count), device)
    connection.sendall(_READY)
    return memory, None


def offer(size: int, device: torch.device) -> tuple[Tensor, bytes]:
    """Return new memory of a GPU, uint8 [size], and the words with which another process opens it (CUDA IPC).

    Raises:
        RuntimeError: the driver does not share it, as between some containers.
    """
    # As torch.multiprocessing does when a tensor is sent, but for pickle.
    memory = torch.empty(size, dtype=torch.uint8, device=device)
    storage: Any = memory.untyped_storage()
    _, *described = storage._share_cuda_()
    return memory, json.dumps([each.hex() if isinstance(each, bytes) else each for each in described]).encode()


def accept(words: bytes, device: torch.device) -> Tensor:
    """Return memory that another process offers on the same GPU, uint8 [bytes], for as long as that process lives.

    Raises:
        RuntimeError: the driver does not share it.
    """
    handle, size, offset, counter, counter_offset, event, must_wait = json.loads(words)
    storages: Any = torch.UntypedStorage
    index = torch.cuda.current_device() if device.index is None else device.index
    storage = storages._new_shared_cuda(
        index,
        bytes.fromhex(handle),
        size,
        offset,
        bytes.fromhex(counter),
        counter_offset,
        bytes.fromhex(event),
        must_wait,
    )
    return torch.empty(0, dtype=torch.uint8, device=device).set_(storage)


def _mapped(descriptor: int, size: int) -> Tensor:
    """Return memory of the host: of the descriptor, which is closed, or of this process alone if it is -1."""
    try:
        return torch.from_numpy(np.frombuffer(mmap.mmap(descriptor, size), dtype=np.uint8))
    finally:
        if descriptor >= 0:
            os.close(descriptor)

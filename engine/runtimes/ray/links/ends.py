"""The two ends of a link: a ring of frames, each with all that the giver gives the taker in one step.

Where both ends see the same memory, only headers and credits cross the connection; otherwise a transport follows with
the bytes. A header says which message lies where. A credit is the number of a frame that the taker no longer needs. A
connection that ends says that the partner is gone, at once.

Nobody waits for ever on a partner that lives. Order all calls by step and then by place in the program, and look at
the first that has not been run: what it takes was given by calls before it, which have been run; a frame for what it
gives was freed when its taker ended the step that used the frame last, an earlier step, all of whose calls have been
run. So the first call that has not been run can run, with any number of frames from one on.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import LearnerError
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links.copies import Copies, Finished
from engine.runtimes.ray.links.routes import FRAMES, Route, aligned
from engine.runtimes.ray.links.transports import ByteTransport, receive

_DTYPES = ("float32", "bfloat16", "float16", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
_MOST_AXES = 8
# Message, dtype, whether channels come last, axes, frame, offset in the frame, bytes, and the size of each axis.
_HEADER = struct.Struct(f"<HBBBBxxQQ{_MOST_AXES}Q")
_FLUSHED_WITHIN_SECONDS = 5.0
# From here on bytes are worth being read where they lie; smaller messages are copied, which takes microseconds.
_COPIED_UP_TO = 16 * 1024


class GivingEnd:
    """Puts what a learner gives into the ring, in the order of its calls.

    Args:
        route: who gives whom what.
        connection: to the taker.
        memory: of the ring, uint8 [bytes].
        copies: from the learner's device.
        transport: of the bytes; None where the taker sees the same memory.
    """

    def __init__(
        self, route: Route, connection: socket.socket, memory: Tensor, copies: Copies, transport: ByteTransport | None
    ) -> None:
        self._route, self._connection, self._memory, self._copies = route, connection, memory, copies
        self._transport = transport
        self._free = deque(range(FRAMES))
        self._frame: int | None = None
        self._used = 0
        self._outbox: queue.SimpleQueue[tuple[bytes, Tensor, Finished | None] | None] = queue.SimpleQueue()
        self._postman: threading.Thread | None = None
        self._trouble: Exception | None = None
        copies.prepare(memory)

    def give(self, name: str, tensor: Tensor) -> None:
        """Send a message; waits while the taker still needs every frame.

        Raises:
            LostStep: the taker is gone.
            LearnerError: the message is larger than its program says.
        """
        if self._trouble is not None:
            if isinstance(self._trouble, LostStep):
                raise self._trouble
            given = f"what it gave {self._route.taker}"
            raise LearnerError(self._route.giver, f"{given} {self._trouble}") from self._trouble
        tensor = tensor.detach()
        channels_last = (
            tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
        )
        if channels_last:
            tensor = tensor.permute(0, 2, 3, 1)
        if self._frame is None:
            self._frame, self._used = self._next_frame(), 0
        size = tensor.numel() * tensor.element_size()
        if self._used + size > self._route.frame_bytes:
            raise LearnerError(
                self._route.giver,
                f"gives {self._route.taker} {name!r} of {size:,} bytes, which its program says is smaller",
            )
        start = self._frame * self._route.frame_bytes + self._used
        place = self._memory[start : start + size]
        finished = self._copies.put(tensor, place.view(tensor.dtype).view(tensor.shape))
        dtype = _DTYPES.index(str(tensor.dtype).removeprefix("torch."))
        shape = (*tensor.shape, *[0] * (_MOST_AXES - tensor.dim()))
        number = self._route.names.index(name)
        header = _HEADER.pack(number, dtype, channels_last, tensor.dim(), self._frame, start, size, *shape)
        self._used += aligned(size)
        if self._transport is None and finished is None and self._postman is None:
            self._send(header, place, None)
        else:
            self._post(header, place, finished)

    def _next_frame(self) -> int:
        while not self._free:
            self._free.extend(_receive(self._connection, 1, self._route.giver, self._route.taker))
        return self._free.popleft()

    def _post(self, header: bytes, place: Tensor, finished: Finished | None) -> None:
        """Have it sent from another thread, so that the learner computes meanwhile."""
        if self._postman is None:
            self._postman = threading.Thread(target=self._deliver, name=f"to {self._route.taker}", daemon=True)
            self._postman.start()
        self._outbox.put((header, place, finished))

    def _deliver(self) -> None:
        while (item := self._outbox.get()) is not None:
            try:
                self._send(*item)
            except Exception as error:
                self._trouble = error
                # The learner hears of it when it gives again; the taker, at once.
                _hang_up(self._connection)
                return

    def _send(self, header: bytes, place: Tensor, finished: Finished | None) -> None:
        if finished is not None:
            finished()
        try:
            self._connection.sendall(header)
            if self._transport is not None:
                self._transport.send(place)
        except OSError as error:
            raise _lost(self._route.giver, self._route.taker) from error

    def end_step(self) -> None:
        """Leave the frame to the taker."""
        self._frame = None

    def hang_up(self) -> None:
        """End the connection to a taker that is lost, whatever was given."""
        _hang_up(self._connection)
        if self._postman is not None:
            self._outbox.put(None)

    def close(self) -> None:
        """Send what was given, and end the connection; the taker can still take it."""
        if self._postman is not None:
            self._outbox.put(None)
            self._postman.join(_FLUSHED_WITHIN_SECONDS)
        _hang_up(self._connection)


class TakingEnd:
    """Gives a learner what lies in the ring, and the frames back after each step.

    A tensor is the memory of the ring itself, so a frame is given back only when nobody holds its tensors any more. A
    learner that keeps one beyond its step is noticed: its frame waits, and from then on it gets copies.

    Args:
        route: who gives whom what.
        connection: to the giver.
        memory: of the ring, uint8 [bytes].
        copies: to the learner's device.
        transport: of the bytes; None where the giver sees the same memory.
    """

    def __init__(
        self, route: Route, connection: socket.socket, memory: Tensor, copies: Copies, transport: ByteTransport | None
    ) -> None:
        self._route, self._connection, self._memory, self._copies = route, connection, memory, copies
        self._arrived: dict[str, tuple[Any, ...]] = {}
        self._frame: int | None = None
        self._reading: list[Finished] = []
        self._lent: list[weakref.ref[np.ndarray]] = []
        self._held: tuple[int, list[weakref.ref[np.ndarray]]] | None = None
        self.keeps = False
        """Whether the learner was seen to keep a message beyond its step."""
        self._inbox: queue.SimpleQueue[bytes | None] | None = None
        copies.prepare(memory)
        if transport is not None:
            self._inbox = queue.SimpleQueue()
            threading.Thread(target=self._collect, args=[transport], name=f"from {route.giver}", daemon=True).start()

    def take(self, name: str) -> Tensor:
        """Return a message; waits until it is there.

        Raises:
            LostStep: the giver is gone.
        """
        while name not in self._arrived:
            fields = _HEADER.unpack(self._next_header())
            self._arrived[self._route.names[fields[0]]] = fields
        _, dtype, channels_last, axes, self._frame, start, size, *shape = self._arrived[name]
        place = self._memory[start : start + size]
        if self._copies.lends:
            place = self._lend(place)
        tensor = place.view(getattr(torch, _DTYPES[dtype])).view(shape[:axes])
        tensor, finished = self._copies.get(tensor.permute(0, 3, 1, 2) if channels_last else tensor)
        if finished is not None:
            self._reading.append(finished)
        return tensor

    def _lend(self, place: Tensor) -> Tensor:
        """Return the memory at a place, watched, or a copy where that is cheap or the learner keeps what it took."""
        if self.keeps or place.nbytes <= _COPIED_UP_TO:
            return place.clone()
        # An array lives as long as any tensor over it, views included; a tensor may end before its views do.
        array = place.numpy()
        self._lent.append(weakref.ref(array))
        return torch.from_numpy(array)

    def _next_header(self) -> bytes:
        if self._inbox is None:
            return _receive(self._connection, _HEADER.size, self._route.taker, self._route.giver)
        header = self._inbox.get()
        if header is None:
            self._inbox.put(None)
            raise _lost(self._route.taker, self._route.giver)
        return header

    def _collect(self, transport: ByteTransport) -> None:
        """Fill the ring while the learner computes; credits keep what arrives off frames in use."""
        assert self._inbox is not None
        try:
            while True:
                header = _receive(self._connection, _HEADER.size, self._route.taker, self._route.giver)
                start, size = _HEADER.unpack(header)[5:7]
                transport.receive(self._memory[start : start + size])
                self._inbox.put(header)
        except (LostStep, OSError):
            self._inbox.put(None)

    def end_step(self) -> None:
        """Give the step's frame back, once all that was read from it has been read."""
        for finished in self._reading:
            finished()
        if self._frame is not None:
            lent = [reference for reference in self._lent if reference() is not None]
            if lent:
                # At most one frame ever waits, because from here on nothing is lent; the others suffice.
                self._held, self.keeps = (self._frame, lent), True
            else:
                self._return(self._frame)
        if self._held is not None and all(reference() is None for reference in self._held[1]):
            self._return(self._held[0])
            self._held = None
        self._arrived, self._frame, self._reading, self._lent = {}, None, [], []

    def _return(self, frame: int) -> None:
        try:
            self._connection.sendall(bytes([frame]))
        except OSError:
            # A giver that is gone needs no credit. Whoever still needs the giver will notice.
            return

    def close(self) -> None:
        """End the connection."""
        _hang_up(self._connection)


def _receive(connection: socket.socket, size: int, own: str, partner: str) -> bytes:
    try:
        return receive(connection, size)
    except OSError as error:
        raise _lost(own, partner) from error


def _lost(own: str, partner: str) -> LostStep:
    return LostStep(f"learner {own}: the link to {partner} ended, which had failed or died")


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # What was sent is still delivered, and whoever waits on either end wakes up.
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()

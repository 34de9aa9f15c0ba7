"""The end of a process of this machine that is not a child of ours. Ray itself does not say how it came."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import struct
import time
from pathlib import Path

# From linux/pidfd.h: PIDFD_GET_INFO for the first version of struct pidfd_info, which has 64 bytes.
_GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
_INFO_EXIT = 1 << 3
_EXIT_CODE_AT = 60
_PATIENCE_SECONDS = 2.0
_NAMES = {int(number): number.name for number in signal.Signals}


class WatchedProcess:
    """Holds on to a process, so that the kernel tells how it ended even after its parent has taken note of it.

    Linux 6.15 and later tell; elsewhere the ending stays unknown.

    Args:
        process_id: a process that is alive, in this process's own namespace.
    """

    def __init__(self, process_id: int) -> None:
        self._descriptor: int | None = None
        self._out_of_memory_kills = _out_of_memory_kills()
        with contextlib.suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(process_id)

    def ending(self) -> str | None:
        """Return how a process ended that is dead or dying, such as ``exit code 7``; None where it cannot be told."""
        status = self._wait_status()
        if status is None:
            return None
        if not os.WIFSIGNALED(status):
            return f"exit code {os.WEXITSTATUS(status)}"
        number = os.WTERMSIG(status)
        if number == signal.SIGKILL and _out_of_memory_kills() > self._out_of_memory_kills:
            return "out of memory: the kernel ended it with SIGKILL"
        return f"signal {_NAMES.get(number, number)}"

    def _wait_status(self) -> int | None:
        if self._descriptor is None:
            return None
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            content = bytearray(struct.pack("=Q56x", _INFO_EXIT))
            try:
                fcntl.ioctl(self._descriptor, _GET_INFO, content)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    return None  # An older Linux.
            else:
                if struct.unpack_from("=Q", content)[0] & _INFO_EXIT:
                    status: int = struct.unpack_from("=i", content, _EXIT_CODE_AT)[0]
                    return status
            # It is there once the process is dead and its parent has asked for it.
            time.sleep(0.01)
        return None

    def close(self) -> None:
        """Let go of the process; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _out_of_memory_kills() -> int:
    """Return how many processes of this machine the kernel has ended for lack of memory since it started."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0

"""Locks of folders: one process at a time writes to one, and a second is told which, on which machine, since when.

The lock is the operating system's, so it ends with its process, however that ends. What the file `.lock` says only
serves the message, and tells a process that is at its end, which is worth waiting for, from one that works.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from engine.atomic import open_lock
from engine.errors import FolderHeld, RunError
from engine.reading import checked, read_json

_LOCK = ".lock"
_LOCK_BYTES = 4096
# How long a process that was killed may still hold its folder while the system takes its memory back.
_DYING_SECONDS = 15.0
# A holder writes its name right after it has locked; who only asks whether a folder is free locks for an instant.
_UNNAMED_SECONDS = 1.0
_PAUSE_SECONDS = 0.05
_EXITING = 0x4  # PF_EXITING among the flags of Linux's /proc/PID/stat.


@dataclass(frozen=True)
class _Holder:
    """What a lock file says of the process that holds it."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


_HOLDER = TypeAdapter(_Holder)


def hold(folder: Path, doing: str) -> IO[str]:
    """Make a folder this process's own, until what is returned is released.

    Args:
        folder: which exists.
        doing: what the process does in it, for another one's message, such as ``training``.

    Raises:
        FolderHeld: another process holds it; nothing has been changed.
        RunError: the lock file cannot be used; nor has anything then.
    """
    lock = open_lock(folder / _LOCK, RunError)
    try:
        _wait(folder, lock, fcntl.LOCK_EX, doing)
        holder = {"host": _host(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        # A disk that is full must not keep a run from saying so itself, in the file that it needs first.
        with contextlib.suppress(OSError):
            lock.truncate(0)
            lock.write(json.dumps(holder) + "\n")
            lock.flush()
    except BaseException:
        lock.close()
        raise
    return lock


def release(lock: IO[str]) -> None:
    """Let other processes have the folder."""
    with contextlib.suppress(OSError):
        lock.truncate(0)
    with contextlib.suppress(OSError):
        lock.close()


def refuse_held(folder: Path, doing: str) -> None:
    """Find out whether another process holds a folder, before anything is done that takes long; nothing is written.

    Raises:
        FolderHeld: another process holds it.
    """
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # There is none yet, or it is not ours to read, as in the finished run of another user.
        return
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        # Whoever takes the lock says what is wrong with it.
        os.close(descriptor)
        return
    with os.fdopen(descriptor) as lock:
        _wait(folder, lock, fcntl.LOCK_SH, doing)


def holder_here(folder: Path) -> int | None:
    """Return which process of this machine held a folder last, and may have ended; None if there is none."""
    holder = _holder(folder)
    return holder.pid if holder is not None and holder.host == _host() else None


def _wait(folder: Path, lock: IO[str], kind: int, doing: str) -> None:
    """Lock the file, and be patient only with a process that is at its end."""
    started = time.monotonic()
    while not _locked(folder, lock, kind):
        holder = _holder(folder)
        if holder is None:
            patience = _UNNAMED_SECONDS
        else:
            patience = _DYING_SECONDS if holder.host == _host() and _is_ending(holder.pid) else 0.0
        if time.monotonic() - started > patience:
            known = f" ({holder})" if holder is not None else ""
            raise FolderHeld(
                f"{folder}: another process is {doing} in this folder{known}; wait for it, or give another --run-dir"
            )
        time.sleep(_PAUSE_SECONDS)


def _locked(folder: Path, file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RunError(
            f"{folder / _LOCK}: cannot be locked ({error.strerror}), so two trainings could meet here; give a "
            "--run-dir on another file system"
        ) from error
    return True


def _holder(folder: Path) -> _Holder | None:
    try:
        values = read_json(folder / _LOCK, RunError, limit=_LOCK_BYTES, follow_links=False)
        return checked(values, _HOLDER, folder / _LOCK, RunError)
    except RunError:
        return None


def _is_ending(pid: int) -> bool:
    """Tell whether a process of this machine has ended, is ending, or is about to: no signal stops a SIGKILL."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return not Path(f"/proc/{pid}").exists()
    if fields[0] in "ZX" or int(fields[6]) & _EXITING:
        return True
    pending = [line.split()[1] for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(int(mask, 16) >> (signal.SIGKILL - 1) & 1 for mask in pending)


def _host() -> str:
    return socket.gethostname()

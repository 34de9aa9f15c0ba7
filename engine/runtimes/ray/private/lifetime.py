"""Lifetime of a private Ray: started, watched, and ended with certainty.

A process of its own holds it (`head.py`), which ends all of Ray when this process ends in whatever way. What this
process itself does to end it is bounded: a Ray that does not listen is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

import psutil
import ray

from engine import last_words
from engine.errors import EXIT_LEARNER_FAILED, PlanError
from engine.reading import first_line
from engine.runtimes.ray.private import last_exit
from engine.runtimes.ray.private.deaths import Deaths
from engine.runtimes.ray.private.folder import PrivateFolder
from engine.runtimes.ray.private.hanging import Hanging, processes_of, processes_of_session
from engine.runtimes.ray.private.holder import GONE, REMEDY, Holder
from engine.runtimes.ray.private.surroundings import (
    TokenOf,
    connecting,
    keep_output_clean,
    safe_job,
)
from engine.runtimes.stopped import STOPPED_SECONDS, is_stopped

_PAUSE_SECONDS = 0.25
# How long Ray may take to end in good order, its holder to end it, and this process to do so by force.
_POLITE_SECONDS = 2.0
_HOLDER_SECONDS = 3.0
_FORCED_SECONDS = 2.0
# In which the process that holds a Ray tells how a part of it ended.
_TELLING_SECONDS = 2.0


class PrivateRay:
    """A Ray that only this process can use, and that ends with it.

    Args:
        cpus: that it offers.
        gpus: that it offers.
        object_store_bytes: size of the object store; Ray's default unless given.
        on_disk: whether the store's memory is a file in the folder of this Ray, and not shared memory.
        hanging_seconds: how long one of its processes may be stopped before it counts as lost.

    Raises:
        PlanError: it does not start; says why.
    """

    def __init__(
        self,
        cpus: int,
        gpus: int,
        object_store_bytes: int | None = None,
        on_disk: bool = False,
        hanging_seconds: float = STOPPED_SECONDS,
    ) -> None:
        self._lost: str | None = None
        self._told = threading.Event()
        self._deaths: Deaths | None = None
        self._hang: str | None = None
        self._hanging: Hanging | None = None
        self._connected = False
        self._closing = threading.Lock()
        self._closed = False
        self._token: TokenOf | None = None
        self._handler: logging.Handler | None = None
        self._watcher: threading.Thread | None = None
        self._folder = PrivateFolder()
        try:
            self._holder = Holder(
                self._folder,
                {"cpus": cpus, "gpus": gpus, "object_store_bytes": object_store_bytes, "on_disk": on_disk},
            )
        except OSError as error:
            self._folder.remove()
            raise PlanError(f"a private Ray does not start: {error.strerror or error}; {REMEDY}") from error
        except BaseException:
            self._folder.remove()
            raise
        self._process = self._holder.process
        try:
            place = self._holder.place()
            self._deaths = Deaths(place["processes"].values())
            self._hanging = Hanging(processes_of(place["processes"]), hanging_seconds)
            self._watcher = threading.Thread(target=self._watch, name="private Ray", daemon=True)
            self._watcher.start()
            self._connect(place)
        except BaseException:
            self.close()
            raise

    def _connect(self, place: Mapping[str, Any]) -> None:
        self._token = TokenOf(self._folder)
        self._handler = keep_output_clean(self._folder.log)
        last_exit.take_over(self._end_process)
        try:
            with connecting(on_loopback=True):
                ray.init(
                    address=place["address"],
                    _node_ip_address=place["node_ip"],
                    job_config=safe_job(),
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                )
        except Exception as error:  # Ray raises what it likes
            why = self.lost or first_line(error)
            raise PlanError(f"a private Ray does not start: {why}; {REMEDY}") from error
        self._connected = True

    def _watch(self) -> None:
        """Take note of what ends by itself, or hangs; end a Ray that somebody left without closing it."""
        while not self._closed:
            try:
                answer = self._holder.read(_PAUSE_SECONDS)
            except (OSError, ValueError):
                return
            if answer is not None:
                died = f"Ray's {answer['died']} ended with {answer['how']}" if "died" in answer else answer["error"]
                # Whoever waits looks at it. The rest is left alone, because Ray ends this process where it asks an
                # object store that is gone for anything.
                self._lost = died
                self._told.set()
                return
            if self._hanging is not None and (hangs := self._hanging.look()) is not None:
                self._hang = hangs
            if self._connected and not ray.is_initialized():
                self._end()
                return

    @property
    def lost(self) -> str | None:
        """Which of its processes ended by itself and how, in words; None while it is well."""
        if self._lost is None and self._deaths is not None and self._deaths.seen() and not self._closed:
            self._told.wait(_TELLING_SECONDS)
            return self._lost or "one of Ray's processes ended"
        return self._lost

    @property
    def is_lost_at_once(self) -> bool:
        """Whether `lost` tells of a process in the moment in which it has ended, and not some time later."""
        return self._deaths is not None and self._deaths.see_all

    def _end_process(self) -> None:
        """End this process, as Ray would, but not without a word."""
        # The sockets of a process are closed a moment before it has ended.
        self._told.wait(_TELLING_SECONDS)
        what = self._lost or "Ray wants this process to end"
        # Otherwise the process that holds it would have the last word.
        self.kill()
        last_words.say(GONE.format(what), EXIT_LEARNER_FAILED)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_HOLDER_SECONDS)
        os._exit(EXIT_LEARNER_FAILED)

    def take_hang(self) -> str | None:
        """Return which of its processes hung and since when, in words, to whoever asks first; None if none did.

        It goes on by now, or is ended.
        """
        hang, self._hang = self._hang, None
        return hang

    @property
    def is_well(self) -> bool:
        """Whether it serves: none of its processes has ended, hung or is stopped, and it was not closed."""
        return not self._closed and self.lost is None and self._hang is None and not self._is_stopped()

    @property
    def has_ended(self) -> bool:
        """Whether it was closed, or ended because this process has disconnected from it."""
        return self._closed

    def kill(self) -> None:
        """Let all its processes be ended at once, also those that hang; what waits for them then fails."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(b"x")
            self._process.stdin.flush()

    def processes(self) -> list[psutil.Process]:
        """Return all its processes that are alive, with those of its workers."""
        return processes_of_session(self._process.pid)

    def _is_stopped(self) -> bool:
        return any(map(is_stopped, self.processes()))

    def close(self) -> None:
        """Disconnect and end it; takes some seconds at most. A second call does nothing."""
        if self._closed:
            return
        hammer = threading.Timer(0.0 if self.lost or self._is_stopped() else _POLITE_SECONDS, self.kill)
        hammer.daemon = True
        hammer.start()
        # What follows is no business of the thread that looks for those who forget it.
        self._connected = False
        try:
            ray.shutdown()
        finally:
            hammer.cancel()
            hammer.join(_FORCED_SECONDS)
            self._end()

    def _end(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            assert self._process.stdin is not None
            # First, because whoever disconnected from this one may start another Ray at once.
            if self._token is not None:
                self._token.close()
            try:
                self.kill()
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_HOLDER_SECONDS)
            finally:
                self._clear()
                last_exit.take_back(self._end_process)

    def _clear(self) -> None:
        deadline = time.monotonic() + _FORCED_SECONDS
        # Only where the process that holds it hangs, too, or was killed itself.
        while (left := self.processes()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._process.poll()
            time.sleep(0.01)
        if self._watcher not in (None, threading.current_thread()):
            assert self._watcher is not None
            self._watcher.join(_FORCED_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._deaths is not None:
            self._deaths.close()
        if self._handler is not None:
            logging.getLogger("ray").removeHandler(self._handler)
            self._handler.close()
        self._folder.remove()

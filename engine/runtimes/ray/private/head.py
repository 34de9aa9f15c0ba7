"""The process that holds a private Ray: it starts Ray's processes, and ends them all when its driver is gone.

It is a process of its own, in a session of its own, so that a signal of a terminal or a scheduler reaches the driver
and not Ray, and so that nothing is left however the driver ends: killed, hanging, or gone without a word.

This file is run, not imported: it knows only Ray, and imports nothing of the engine, which would bring torch along. Its
standard input is one line of JSON; another byte, or its end, is the order to stop. Its standard output is JSON, too:
first ``{"address": ..., "processes": ...}`` or ``{"error": ...}``, later ``{"died": ..., "how": ...}`` for a process of
Ray that ended by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_NEEDED = ("gcs_server", "raylet")
_PR_SET_CHILD_SUBREAPER = 36  # From linux/prctl.h.
_PAUSE_SECONDS = 0.2
_KILLING_SECONDS = 5.0
_SHOWN_LINES = 3
_MOST_OPEN_FILES = 65536


def main() -> int:
    """Start a Ray, say where it is, and end it with standard input or the driver; returns the exit code."""
    answers = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    driver = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        # What raylet leaves behind becomes a child of this process, which then can end it.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Not through sys.stdin, whose buffer would hide the end of the file from select.
    wanted: dict[str, Any] = json.loads(_first_line())
    try:
        _allow_open_files()
        # First of all, because its imports take longest.
        with _fork_server(wanted["fork_server"]):
            _serve(wanted, answers, driver)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_descendants()
        shutil.rmtree(wanted["folder"], ignore_errors=True)
    return 0


def _first_line() -> bytes:
    text = b""
    while not text.endswith(b"\n"):
        piece = os.read(_STDIN, 1 << 16)
        if not piece:
            sys.exit(0)
        text += piece
    return text


@contextlib.contextmanager
def _fork_server(command: list[str]) -> Iterator[None]:
    """Have workers forked inside the block, by a process that ends with its standard input; Ray goes on without it."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            assert process.stdin is not None
            held.callback(process.stdin.close)
        yield


def _serve(wanted: dict[str, Any], answers: int, driver: int) -> None:
    is_over = threading.Event()
    threading.Thread(target=_watch_the_start, args=(wanted, answers, is_over), daemon=True).start()
    try:
        node = _start(wanted)
    except (Exception, SystemExit) as error:  # Ray raises what it likes, and ends with some
        _say(answers, {"error": f"{_first_words(error)}{_said(Path(wanted['ray_folder']))}"})
        return
    finally:
        is_over.set()
    _say(answers, {"address": node.gcs_address, "node_ip": node.node_ip_address, "processes": _processes(node)})
    told: dict[str, str] = {}
    while (over := _is_over(driver)) is None:
        for name, how in _ended(node):
            if name not in told:
                told[name] = how
                _say(answers, {"died": name, "how": how})
    if over == "gone" and (told := told or dict(_ended(node))):
        # Where a driver waits for an object store that is gone, Ray ends it at once and without a word.
        name, how = next(iter(told.items()))
        for descriptor, form in wanted["last_words"]:
            with contextlib.suppress(OSError):
                # Not format(): an object of JSON has braces of its own.
                os.write(descriptor, form.replace("{}", f"Ray's {name} ended with {how}").encode())


def _watch_the_start(wanted: dict[str, Any], answers: int, is_over: threading.Event) -> None:
    """End this process with a word when one of Ray's ends while they start: Ray waits for half a minute, or aborts."""
    while not is_over.wait(_PAUSE_SECONDS):
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error, ChildProcessError):
                if child.name() not in _NEEDED:
                    continue
                # Left to be waited for by whoever has started it.
                found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None:
                    continue
                how = _how(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)
                what = f"Ray's {child.name()} ended with {how} while it started{_said(Path(wanted['ray_folder']))}"
                _say(answers, {"error": what})
                _end_descendants()
                shutil.rmtree(wanted["folder"], ignore_errors=True)
                os._exit(0)


def _allow_open_files() -> None:
    """Raise the limit as ray.init does for what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _MOST_OPEN_FILES)), hard))


def _start(wanted: dict[str, Any]) -> Any:
    from ray._private import ray_constants
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    # Ray listens on 127.0.0.1 alone where clusters are switched off, as by default on macOS; elsewhere on every
    # interface, also when it is told that the node's address is 127.0.0.1.
    ray_constants.ENABLE_RAY_CLUSTER = False
    settings = RayParams(
        num_cpus=wanted["cpus"],
        num_gpus=wanted["gpus"],
        object_store_memory=wanted["object_store_bytes"],
        plasma_directory=wanted["ray_folder"] if wanted["on_disk"] else None,
        temp_dir=wanted["ray_folder"],
        setup_worker_path=wanted["worker_start"],
        # Its sockets lie below, and their paths must be short.
        session_name="session",
        include_dashboard=False,
        include_log_monitor=False,
        # Nothing is scaled up or down on one machine.
        no_monitor=True,
    )
    return Node(settings, head=True, shutdown_at_exit=False, spawn_reaper=True, ray_init_cluster=True)


def _processes(node: Any) -> dict[str, int]:
    """Return the numbers of the processes without which nothing goes on, by name."""
    found = node.all_processes
    return {name: found[name][0].process.pid for name in _NEEDED if found.get(name)}


def _ended(node: Any) -> Iterator[tuple[str, str]]:
    for name, processes in list(node.all_processes.items()):
        for started in processes:
            code = started.process.poll()
            if code is not None:
                yield name, _how(code)


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _is_over(driver: int) -> str | None:
    """Wait a moment; returns ``closed`` or ``gone`` for a driver that has said goodbye or has not, None for one there.

    A child of the driver may hold the driver's end open when that is gone.
    """
    readable, _, _ = select.select([_STDIN], [], [], _PAUSE_SECONDS)
    if readable:
        return "closed" if os.read(_STDIN, 1) else "gone"
    return None if os.getppid() == driver else "gone"


def _say(answers: int, values: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(answers, json.dumps(values).encode() + b"\n")


def _first_words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _said(folder: Path) -> str:
    """Return the last lines of what Ray's own processes said, which are gone with the folder."""
    lines: list[str] = []
    for name in ("gcs_server.err", "raylet.err", "gcs_server.out", "raylet.out"):
        with contextlib.suppress(OSError):
            text = (folder / "session" / "logs" / name).read_text(errors="replace")
            lines += [line.strip() for line in text.splitlines() if " E " in line or " C " in line][-_SHOWN_LINES:]
    return "".join(f"; {line[:200]}" for line in lines[-_SHOWN_LINES:])


def _end_descendants() -> None:
    """End all that was started here, by force, because nothing depends on it; stopped processes end, too."""
    deadline = time.monotonic() + _KILLING_SECONDS
    while time.monotonic() < deadline:
        alive = [process for process in psutil.Process().children(recursive=True) if _is_alive(process)]
        if not alive:
            return
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=_PAUSE_SECONDS)


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


if __name__ == "__main__":
    sys.exit(main())

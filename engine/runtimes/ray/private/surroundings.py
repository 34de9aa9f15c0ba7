"""Surroundings of a connection to Ray: what it takes of this process and its environment, given back afterwards.

Ray adds the current folder to what its workers import from, uploads it where the program was started by ``uv run``,
takes over SIGTERM, prints to standard error, and reads a token from the home folder. None of that is wanted.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.job_config import JobConfig

from engine.runtimes.child import engine_folder
from engine.runtimes.ray.private.folder import PrivateFolder
from engine.runtimes.ray.private.worker_start import VARIABLE

_DISTRIBUTION = "local-learning"


class SafeJob(JobConfig):
    """A job whose workers import nothing from the folder of the program's script or from the current folder."""

    def _runtime_env_has_working_dir(self) -> bool:
        # Ray then takes it that the code's folder is known, and adds neither.
        return True


def safe_job() -> JobConfig:
    """Return what a driver tells Ray of itself; an engine that is not installed is found where this one lies."""
    try:
        importlib.metadata.distribution(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return SafeJob(_py_driver_sys_path=[str(engine_folder())])
    return SafeJob()


def environment_of_head(folder: PrivateFolder) -> dict[str, str]:
    """Return the environment of a private Ray's processes and learners."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_OTHER_RAYS}
    # A name that is relative means the current folder of this process, which is not that of the learners.
    given = "" if sys.flags.ignore_environment else environment.get("PYTHONPATH", "")
    path = [os.path.abspath(part) for part in given.split(os.pathsep) if part]
    return {
        # No usage reports, and no lower priority for the learners than for the driver.
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        # A learner lives in a thread of its own, for which glibc would keep memory apart, which it cannot be told to
        # hold.
        "MALLOC_ARENA_MAX": "1",
        # Ray's first process never comes back on a machine of its own: without it nothing waits for a minute.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        **environment,
        **_known_to_both(folder),
        VARIABLE: str(folder.fork_server),
        "PYTHONPATH": os.pathsep.join([str(folder.code), *path]),
    }


_OF_OTHER_RAYS = (
    "RAY_ADDRESS",
    "RAY_AUTH_TOKEN",
    "RAY_GCS_SERVER_PORT",
    "RAY_TMPDIR",
    "RAY_REDIS_ADDRESS",
    RAY_JOB_CONFIG_JSON_ENV_VAR,
)


def _known_to_both(folder: PrivateFolder) -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder.token),
        # What Ray wants to tell of its tasks before it ends is heard by nobody; it would wait 5 s for one that hangs.
        "RAY_task_events_shutdown_flush_timeout_ms": "200",
    }


class TokenOf:
    """Lets this process use the token of a private Ray, and its settings, until it is closed."""

    def __init__(self, folder: PrivateFolder) -> None:
        names = (*_known_to_both(folder), *_OF_OTHER_RAYS)
        self._before = {name: os.environ.pop(name, None) for name in names}
        os.environ.update(_known_to_both(folder))
        _read_anew()

    def close(self) -> None:
        """Put back what was there before; a second call does nothing."""
        if not self._before:
            return
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        self._before = {}
        _read_anew()


def _read_anew() -> None:
    # Ray remembers both for the life of the process.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def connecting(on_loopback: bool) -> Iterator[None]:
    """Let ray.init inside the block take nothing that is this process's own.

    Args:
        on_loopback: whether this process shall listen on 127.0.0.1 alone, as the private Ray does.
    """
    changed: list[tuple[Any, str, Any]] = [
        (ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False),
        (ray_utils, "set_sigterm_handler", lambda handler: None),
        # Its C++ would take over SIGTERM behind Python's back, and abort.
        (ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", True),
    ]
    if on_loopback:
        changed.append((ray_constants, "ENABLE_RAY_CLUSTER", False))
    before = [(place, name, getattr(place, name)) for place, name, _ in changed if hasattr(place, name)]
    for place, name, value in changed:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def keep_output_clean(log: Path | None = None) -> logging.Handler | None:
    """Send what Ray says to a file, also of a dead worker, and nothing of it to the screen.

    Standard output is for results, standard error for what the engine says, and LearnerError says more.

    Args:
        log: the file; without one Ray's lines go where the program sends what is logged.

    Returns:
        what was added to Ray's logger, for whoever closes the file.
    """
    # Of calls that fail because of the first failure, and whose answers nobody waits for any more.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    logger = logging.getLogger("ray")

    def to_log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        logger.info("%s", "\n".join(data["lines"]))

    ray_worker.print_to_stdstream = to_log
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    if log is None:
        return None
    handler = logging.FileHandler(log, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    return handler

"""Folder of a private Ray: its sockets, logs and token.

In a folder of its own that only this user may enter: neither the home folder nor another Ray's folder is needed, and
removing it leaves nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import engine
from engine.errors import PlanError
from engine.paths import absolute

# From linux/un.h: the longest path of a Unix socket is one byte less than sockaddr_un has room for.
_SOCKET_PATH_BYTES = 107
_LONGEST_SOCKET = "/ray/session/sockets/plasma_store"
_PREFIX = "local_learning_ray_"
_RANDOM_CHARACTERS = 8
_TOKEN_BYTES = 32
_LOGGED_BYTES = 2**20


def choose_temporary_folder() -> Path:
    """Return the folder in which a private Ray can make its own: TMPDIR, or another one if that is too long.

    Raises:
        PlanError: none is short enough and can be written to, or a variable names a home folder that is not known; says
            how to give one.
    """
    unusable: dict[str, str] = {}
    for folder in _candidates():
        if str(folder) in unusable:
            continue
        reason = _reason_against(folder)
        if reason is None:
            return folder
        unusable[str(folder)] = reason
    reasons = ", ".join(f"{folder}: {reason}" for folder, reason in unusable.items())
    raise PlanError(
        f"a private Ray has no folder for its sockets ({reasons}); set TMPDIR to a folder that can be written to and "
        f"whose name has at most {_most_bytes()} bytes, or use --on process"
    )


def _candidates() -> Iterator[Path]:
    # RAY_TMPDIR is what Ray itself looks at.
    for variable in ("RAY_TMPDIR", "TMPDIR", "TEMP", "TMP"):
        if os.environ.get(variable):
            yield absolute(os.environ[variable], variable, PlanError)
    yield from map(Path, ("/tmp", "/var/tmp"))
    if os.environ.get("XDG_RUNTIME_DIR"):
        yield absolute(os.environ["XDG_RUNTIME_DIR"], "XDG_RUNTIME_DIR", PlanError)


def _most_bytes() -> int:
    return _SOCKET_PATH_BYTES - len(f"/{_PREFIX}{_LONGEST_SOCKET}") - _RANDOM_CHARACTERS


def _reason_against(folder: Path) -> str | None:
    length = len(os.fsencode(folder))
    if length > _most_bytes():
        return f"has {length} bytes, and sockets below it would have too long names"
    if os.pathsep in str(folder):
        return f"holds {os.pathsep!r}, which separates folders in PYTHONPATH"
    if not folder.is_dir():
        return "is no folder"
    return None if os.access(folder, os.W_OK | os.X_OK) else "cannot be written to"


class PrivateFolder:
    """A folder of mode 0700, in which lie the sockets and logs of one private Ray, its token, and a way to the engine.

    Attributes:
        path: the folder.
        token: a file of mode 0600 with the token that everybody needs who wants to talk to this Ray.
        code: a folder in which nothing but the engine can be found by import.
        fork_server: the socket at which workers are asked for.
        ray: what Ray's own processes write into; they let everybody enter it, so it lies inside.
        log: what Ray's processes, and Ray in this process, have to say.

    Raises:
        PlanError: there is no place for it.
    """

    def __init__(self) -> None:
        parent = choose_temporary_folder()
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        except OSError as error:
            raise PlanError(
                f"{parent}: cannot hold the folder of a private Ray ({error.strerror}); set TMPDIR to another folder, "
                "or use --on process"
            ) from error
        try:
            self.token = self.path / "token"
            self.log = self.path / "ray.log"
            self.code = self.path / "code"
            self.fork_server = self.path / "fork_server"
            self.ray = self.path / "ray"
            self._write_token()
            self.code.mkdir()
            self.ray.mkdir()
            (self.code / "engine").symlink_to(Path(engine.__file__).resolve().parent)
        except PlanError:
            self.remove()
            raise
        except OSError as error:
            self.remove()
            raise PlanError(
                f"{self.path}: cannot be written to ({error.strerror}); free some space, or set TMPDIR "
                "to another folder"
            ) from error

    def _write_token(self) -> None:
        # Made for this user alone from the first moment on, whatever the umask is.
        descriptor = os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(secrets.token_hex(_TOKEN_BYTES))
        check_is_private(self.token)

    def said(self) -> str:
        """Return what was logged so far, the newest at the end; nothing if nothing was."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _LOGGED_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def remove(self) -> None:
        """Remove the folder with all that is in it; a second call does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)


def check_is_private(token: Path) -> None:
    """Refuse a token that others may read: whoever has it can run code as this user.

    Raises:
        PlanError: says whose it is and what its mode is.
    """
    found = token.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid() or mode & 0o077:
        raise PlanError(
            f"{token}: has mode {mode:04o} and owner {found.st_uid}, so that others could use this Ray; expected mode "
            f"0600 and owner {os.geteuid()}; set TMPDIR to a folder whose file system keeps modes, or use --on process"
        )


def check_token_of_clusters() -> None:
    """Close the token of this user's clusters, which Ray writes into the home folder, to others, and say so.

    Tokens in other places are somebody else's business: secrets that are mounted have modes of their own.
    """
    with contextlib.suppress(OSError, RuntimeError, KeyError):  # no home, or none that is known
        token = Path.home() / ".ray" / "auth_token"
        found = token.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & 0o077:
            token.chmod(0o600)
            logging.getLogger(__name__).warning(
                "%s could be read by others, who could have run code on your clusters; its mode is 0600 now; make a "
                "new token if others use this machine",
                token,
            )

"""Does what is said of a private Ray that does not start make it start, or lead to a training without Ray?"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.recipes import Plan, apply_overrides, load_recipe
from engine.runtimes.ray.private import folder as private_folder
from engine.runtimes.ray.private.folder import PrivateFolder, check_is_private
from engine.runtimes.ray.private.holder import Holder
from engine.runtimes.ray.private.lifetime import PrivateRay

Refused = Callable[..., re.Match[str]]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name."""
    made = Path(tempfile.mkdtemp(prefix="short", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("broken", ["mkdtemp", "token", "mode"])
def test_a_folder_that_cannot_hold_a_private_ray(
    broken: str, short: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "other"):
        (short / name).mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(short / "first"))
    made, opened = tempfile.mkdtemp, os.open

    def no_folder(**named: Any) -> str:
        if named["dir"].name == "first" and broken == "mkdtemp":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return made(**named)

    def no_token(path: Any, *given: Any, **named: Any) -> int:
        if broken == "token" and str(path).startswith(f"{short}/first") and str(path).endswith("/token"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, *given, **named)

    def all_may_read(token: Path) -> None:
        # As on a file system that keeps no modes.
        if str(token).startswith(f"{short}/first") and broken == "mode":
            token.chmod(0o777)
        check_is_private(token)

    monkeypatch.setattr(tempfile, "mkdtemp", no_folder)
    monkeypatch.setattr(os, "open", no_token)
    monkeypatch.setattr(private_folder, "check_is_private", all_may_read)
    says = {
        "mkdtemp": "set (TMPDIR) to another folder, or use --on (process)",
        "token": "free some space, or set (TMPDIR) to another folder",
        "mode": "set (TMPDIR) to a folder whose file system keeps modes, or use --on (process)",
    }[broken]
    found = refused(says, PrivateFolder)
    assert not list((short / "first").iterdir())
    monkeypatch.setenv(found[1], str(short / "other"))
    PrivateFolder().remove()
    if broken != "token":
        words = [f"plan.executor={found[2]}"]
        assert apply_overrides(load_recipe("infopro_digits"), Plan(), words)[1].executor == "process"


@pytest.mark.parametrize("end", ["no process", "an error", "silence"])
def test_a_private_ray_that_does_not_start(end: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(holder: Holder, wanted: Any) -> Any:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    if end == "no process":
        monkeypatch.setattr(Holder, "_start", no_process)
    elif end == "an error":
        monkeypatch.setattr(Holder, "read", lambda holder, seconds: {"error": "no port is free"})
    else:
        monkeypatch.setattr("engine.runtimes.ray.private.holder._START_SECONDS", 0.0)
    says = r"`local-learning (doctor)` tries it alone; --on (process) does without Ray"
    found = refused(says, lambda: PrivateRay(1, 0))
    assert apply_overrides(load_recipe("infopro_digits"), Plan(), [f"plan.executor={found[2]}"])[1]

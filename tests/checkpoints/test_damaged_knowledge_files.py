"""Is a knowledge store never read or saved in part, whatever happened to its files or to the disk?"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoints import newest_checkpoint
from engine.errors import RunError
from tests.checkpoints.knowledge_keeper import Keeper, newest, pieces


def flip_a_bit(path: Path) -> None:
    """Damage a file, and only under this name: those of other checkpoints may be the same file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("spoil", [flip_a_bit, Path.unlink, lambda path: path.write_bytes(b"")])
def test_with_a_damaged_piece_the_checkpoint_is_skipped_and_named(spoil: Any, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.save(2, *range(40))
    path = keeper.save(4, 1, 50)
    spoil(path / "network.knowledge-000004.safetensors")
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 2
    assert len(found.states["network"].knowledge["rows"]) == 40
    assert len(skipped) == 1
    assert skipped[0].startswith(f"{path}: damaged, skipped: network.knowledge-000004.safetensors ")


def _remove(path: Path) -> None:
    shutil.rmtree(path)


def _without_manifest(path: Path) -> None:
    (path / "MANIFEST.json").unlink()


def _torn_manifest(path: Path) -> None:
    (path / "MANIFEST.json").write_bytes(b"\xff{")


def _null_manifest(path: Path) -> None:
    (path / "MANIFEST.json").write_text("null")


def _empty_manifest(path: Path) -> None:
    (path / "MANIFEST.json").write_text("{}")


def _without_first_piece(path: Path) -> None:
    (path / "network.knowledge-000002.safetensors").unlink()


def _shorter_first_piece(path: Path) -> None:
    piece = path / "network.knowledge-000002.safetensors"
    piece.write_bytes(piece.read_bytes()[:-3])


def _flipped_first_piece(path: Path) -> None:
    flip_a_bit(path / "network.knowledge-000002.safetensors")


MANIFESTS = [_without_manifest, _torn_manifest, _null_manifest, _empty_manifest]
GONE = [_remove, *MANIFESTS, _without_first_piece, _shorter_first_piece]


@pytest.mark.parametrize(
    ("spoil", "images"),
    [
        *((spoil, [1]) for spoil in GONE),
        # All pieces become one, which reads them.
        *((spoil, range(60)) for spoil in (*GONE, _flipped_first_piece)),
    ],
)
def test_a_store_is_never_saved_in_part(spoil: Any, images: Any, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    before = keeper.save(2, *range(40))
    spoil(before)
    with pytest.raises(
        RunError, match=r"step-000002: .* cannot be read any more .*leave checkpoints in place"
    ) as found:
        keeper.save(4, *images)
    assert "Start the same command again" in str(found.value)
    assert [path.name for path in tmp_path.iterdir()] in ([], [before.name])


@pytest.mark.parametrize("fails_at", range(5))
def test_a_full_disk_leaves_nothing_behind(fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper(tmp_path)
    before = keeper.save(2, *range(40))
    names = sorted(path.name for path in before.iterdir())
    syncs, sync = 0, os.fsync

    def full(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="the disk is full"):
        keeper.save(4, 1, 50)
    assert [path.name for path in tmp_path.iterdir()] == [before.name]
    assert sorted(path.name for path in before.iterdir()) == names
    assert newest(tmp_path)[0] == 2
    assert pieces(before)["000002"].st_nlink == 1

"""Does a checkpoint hold the whole knowledge store, though only what changed is written?"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from engine.checkpoints import LearnerState, newest_checkpoint, save_checkpoint
from engine.knowledge import KnowledgeStore
from engine.streams import generator
from tests.checkpoints.knowledge_keeper import CLASSES, IMAGES, Keeper, assert_restored, newest, pieces
from tests.checkpoints.small_checkpoints import COUNTERS, VALUES


def test_what_changed_is_written_and_the_rest_linked(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    first, second, third = (
        keeper.save(2, *range(40)),
        keeper.save(4, 1, 50),
        keeper.save(6, 1, 51, 52),
    )
    assert [list(pieces(path)) for path in (first, second, third)] == [
        ["000002"],
        ["000002", "000004"],
        ["000002", "000004", "000006"],
    ]
    for name, shared in (("000002", 3), ("000004", 2), ("000006", 1)):
        found = pieces(third)[name]
        assert found.st_nlink == shared
    assert len({pieces(path)["000002"].st_ino for path in (first, second, third)}) == 1
    assert pieces(second)["000004"].st_ino == pieces(third)["000004"].st_ino
    step, rows = newest(tmp_path)
    assert step == 6
    assert_restored(keeper, rows)


def test_every_checkpoint_holds_the_store_of_its_step(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    held: dict[int, Tensor] = {}
    random = generator("images")
    for step in range(1, 10):
        keeper.save(step, *torch.randperm(IMAGES, generator=random)[: 3 * step].tolist())
        held[step] = keeper.store.recall(0, np.arange(IMAGES))
    for step, expected in held.items():
        alone = tmp_path / "alone" / str(step)
        shutil.copytree(tmp_path / f"step-{step:06d}", alone / f"step-{step:06d}")
        fresh = KnowledgeStore(IMAGES, CLASSES, groups=1, averaging_weight=0.5)
        fresh.load(newest(alone)[1])
        assert np.array_equal(fresh.recall(0, np.arange(IMAGES)).numpy(), expected.numpy(), equal_nan=True)


def test_the_manifest_states_each_piece(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.save(2, *range(40))
    path = keeper.save(4, 1, 50)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    for name, rows in (("000002", 40), ("000004", 2)):
        content = (path / f"network.knowledge-{name}.safetensors").read_bytes()
        assert manifest[f"network.knowledge-{name}.safetensors"] == {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "rows": rows,
        }
        assert len(safetensors.torch.load(content)["rows"]) == rows


def test_later_pieces_with_more_rows_than_the_first_become_one_with_it(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.save(1, *range(10))
    assert len(pieces(keeper.save(2, *range(6)))) == 2
    # 6 + 4 rows are as many as the first piece has, 6 + 4 + 1 are more.
    assert list(pieces(keeper.save(3, *range(20, 24)))) == ["000001", "000002", "000003"]
    last = keeper.save(4, 30)
    assert {name: found.st_nlink for name, found in pieces(last).items()} == {"000004": 1}
    manifest = json.loads((last / "MANIFEST.json").read_text())
    assert manifest["network.knowledge-000004.safetensors"]["rows"] == 15
    assert_restored(keeper, newest(tmp_path)[1])


def test_without_changes_nothing_is_written(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    first, second = keeper.save(1, 3, 4), keeper.save(2)
    assert {name: found.st_ino for name, found in pieces(second).items()} == {
        name: found.st_ino for name, found in pieces(first).items()
    }
    assert_restored(keeper, newest(tmp_path)[1])


def test_a_store_that_knows_nothing_is_one_too(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.save(1)
    assert_restored(keeper, newest(tmp_path)[1])
    keeper.save(2)
    keeper.save(3, 5, 7)
    assert list(pieces(tmp_path / "step-000003")) == ["000003"]
    assert_restored(keeper, newest(tmp_path)[1])


def test_a_learner_without_a_store_has_no_pieces(tmp_path: Path) -> None:
    states = {
        "network": LearnerState({"body.a": torch.ones(1)}, {"steps": 1, **COUNTERS}),
        "store0": Keeper(tmp_path, "store0").state(1),
    }
    save_checkpoint(tmp_path, 1, states, VALUES, 1)
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.states["network"].knowledge == {}
    assert len(found.states["store0"].knowledge["rows"]) == 0


@pytest.mark.parametrize("changed", [1, 5, 30])
def test_what_is_written_and_held_is_a_small_multiple_of_what_changed(changed: int, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, keep=1)
    random = generator("images", changed)
    written, seen = 0, set()
    for step in range(1, 40):
        path = keeper.save(step, *torch.randperm(IMAGES, generator=random)[:changed].tolist())
        manifest = json.loads((path / "MANIFEST.json").read_text())
        rows = {name: entry["rows"] for name, entry in manifest.items() if "rows" in entry}
        written += sum(count for name, count in rows.items() if name not in seen)
        seen |= rows.keys()
        # A merge writes the rows of the first piece, too, which are fewer than those of the later ones.
        assert written <= 3 * step * changed
        assert sum(rows.values()) <= 2 * keeper.store.known
        for name, entry in manifest.items():
            assert (path / name).stat().st_size == entry["bytes"]
    assert_restored(keeper, newest(tmp_path)[1])


def test_checkpoints_that_are_removed_are_not_missed(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, keep=1)
    for step, images in ((2, range(40)), (4, range(3)), (6, range(50, 55))):
        keeper.save(step, *images)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000006"]
    assert {name: found.st_nlink for name, found in pieces(tmp_path / "step-000006").items()} == {
        "000002": 1,
        "000004": 1,
        "000006": 1,
    }
    assert_restored(keeper, newest(tmp_path)[1])


def test_pieces_are_ordered_by_step_not_by_name(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.save(999_998, *range(40))
    keeper.save(999_999, 1, 2)
    keeper.save(1_000_000, 1, 2)
    assert_restored(keeper, newest(tmp_path)[1])
    keeper.save(1_000_001, *range(1, 50, 2))
    keeper.save(1_000_002, *range(0, 50, 2))
    assert_restored(keeper, newest(tmp_path)[1])


def test_learners_whose_names_begin_alike_have_pieces_of_their_own(tmp_path: Path) -> None:
    keepers = [Keeper(tmp_path, name) for name in ("store1", "store10", "store")]
    for step in (1, 2):
        for place, keeper in enumerate(keepers):
            keeper.remember(step, *range(20 * place // step, 20))
        save_checkpoint(tmp_path, step, {keeper.name: keeper.state(step) for keeper in keepers}, VALUES, 9)
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None
    for keeper in keepers:
        assert_restored(keeper, found.states[keeper.name].knowledge)


def test_without_hard_links_pieces_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    keeper = Keeper(tmp_path)
    keeper.save(2, *range(40))
    path = keeper.save(4, 1)
    assert {name: found.st_nlink for name, found in pieces(path).items()} == {"000002": 1, "000004": 1}
    assert_restored(keeper, newest(tmp_path)[1])

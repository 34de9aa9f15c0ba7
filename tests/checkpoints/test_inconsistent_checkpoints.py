"""Is a checkpoint that matches its manifest, but contradicts itself or leads elsewhere, skipped and named?"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from engine.checkpoints import LearnerState, newest_checkpoint, save_checkpoint
from tests.checkpoints.small_checkpoints import COUNTERS, VALUES, _save


def test_a_pickle_in_the_place_of_tensors_is_damage(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    content = pickle.dumps({"body.a": [1.0]})
    (path / "segment0.safetensors").write_bytes(content)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest["segment0.safetensors"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    found, skipped = newest_checkpoint(tmp_path)
    assert found is None
    assert len(skipped) == 1


def _rewritten(checkpoint: Path, name: str, content: bytes) -> None:
    """Put other content into a file of a checkpoint, and its sha256 into the manifest: nothing looks damaged."""
    (checkpoint / name).write_bytes(content)
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    manifest[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))


def _with_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def rewrite(checkpoint: Path) -> None:
        document = json.loads((checkpoint / "state.json").read_text())
        change(document)
        _rewritten(checkpoint, "state.json", json.dumps(document).encode())

    return rewrite


def _with_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def rewrite(checkpoint: Path) -> None:
        name = "segment0.safetensors"
        tensors = safetensors.torch.load((checkpoint / name).read_bytes())
        change(tensors)
        _rewritten(checkpoint, name, safetensors.torch.save(tensors))

    return rewrite


def _rename_learner(checkpoint: Path) -> None:
    _with_state(lambda document: document["learners"].update(other=document["learners"].pop("segment1")))(checkpoint)
    _with_state(lambda document: document["tensors"].update(other=document["tensors"].pop("segment1")))(checkpoint)
    content = (checkpoint / "segment1.safetensors").read_bytes()
    _rewritten(checkpoint, "other.safetensors", content)
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    del manifest["segment1.safetensors"]
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))


SLOT = "optimizer.body.a.momentum_buffer"
CONTRADICTIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another step": (_with_state(lambda document: document.update(step=7)), "state.json is of step 7"),
    "a step that is none": (_with_state(lambda document: document.update(step="8")), "state.json: is not what"),
    "no recipe": (_with_state(lambda document: document.pop("recipe")), "recipe: Field required"),
    "facts of nothing": (_with_state(lambda document: document.update(facts={})), "state.json, facts: is not"),
    "more classes than names": (_with_state(lambda document: document["facts"].update(num_classes=9)), "9 classes"),
    "scores of text": (_with_state(lambda document: document.update(latest={"a": "b"})), "latest.a"),
    "absences of nothing": (
        _with_state(lambda document: document.update(absences=[{"since": 3}])),
        "absences.0.network",
    ),
    "more steps than the run": (
        _with_state(lambda document: document["learners"]["segment0"].update(steps=9)),
        "learners.segment0.steps: found 9 after step 8",
    ),
    "no counters": (_with_state(lambda document: document["learners"]["segment1"].clear()), "learners.segment1"),
    "a learner without a file": (
        _with_state(lambda document: document["learners"].update(segment9={})),
        "segment9.safetensors is missing in the manifest",
    ),
    "a file without a learner": (
        _with_state(lambda document: document["learners"].pop("segment1")),
        "segment1.safetensors belongs to no learner",
    ),
    "no slots": (_with_tensors(lambda tensors: tensors.pop(SLOT)), "segment0.safetensors holds 1 tensors"),
    "slots of nothing": (
        _with_tensors(lambda tensors: tensors.update({SLOT.replace(".a.", ".b."): tensors.pop(SLOT)})),
        "belongs to no parameter",
    ),
    "slots of another shape": (
        _with_tensors(lambda tensors: tensors.update({SLOT: torch.zeros(4)})),
        "of shape (4,) belongs to no parameter",
    ),
    "another learner": (_rename_learner, "holds the learners segment0, other, expected segment0, segment1"),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_one_whose_parts_contradict_one_another_is_skipped_and_named(contradiction: str, tmp_path: Path) -> None:
    change, reason = CONTRADICTIONS[contradiction]
    newest = _save(tmp_path, 4, 8)
    change(newest)
    found, skipped = newest_checkpoint(tmp_path, ("segment0", "segment1"))
    assert found is not None
    assert (found.step, len(skipped)) == (4, 1)
    assert skipped[0].startswith(f"{newest}: damaged, skipped: ")
    assert reason in skipped[0]


def test_slots_that_only_some_parameters_lack_are_missed(tmp_path: Path) -> None:
    states = {"one": LearnerState({"body.a": torch.ones(2), "body.b": torch.ones(3)}, {"steps": 1, **COUNTERS})}
    for slot in ("a.exp_avg", "a.exp_avg_sq", "b.exp_avg"):
        states["one"].tensors[f"optimizer.body.{slot}"] = torch.zeros_like(states["one"].tensors[f"body.{slot[0]}"])
    save_checkpoint(tmp_path, 1, states, VALUES, keep=1)
    assert "the optimizer's exp_avg_sq of body.b is missing" in newest_checkpoint(tmp_path)[1][0]


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "..", ".hidden", "a\0b", "", "é"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    path = _save(tmp_path / "run", 4)
    outside = tmp_path / "run" / "outside"
    outside.write_bytes(b"mine")
    _rewritten(path, "state.json", (path / "state.json").read_bytes())
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest[name] = {"sha256": hashlib.sha256(b"mine").hexdigest(), "bytes": 4}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    found, (line,) = newest_checkpoint(tmp_path / "run")
    assert found is None
    assert "MANIFEST.json: is" in line


def test_one_that_was_written_before_tensors_were_counted_is_read(tmp_path: Path) -> None:
    path = _save(tmp_path, 4)
    _with_state(lambda document: document.pop("tensors"))(path)
    found, skipped = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.values, skipped) == (4, VALUES, [])

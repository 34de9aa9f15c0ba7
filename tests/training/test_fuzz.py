"""Does any damage to a run folder end with the right weights, or with one clear error, and touch nothing outside?"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import engine
from engine import backbones
from engine.errors import EngineError, InputError
from engine.methods import weights_sha256
from engine.recipes import Backbone, Recipe
from engine.tracking import read_metrics
from engine.training import load

pytestmark = pytest.mark.slow

PLAN = engine.Plan(executor="process", checkpoint_every_steps=2, keep_checkpoints=9)
FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


class Runs:
    """An interrupted and a finished run of one recipe, copied before each damage."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe, self.outside = folder, recipe, folder / "outside"
        engine.train(recipe, PLAN, folder / "interrupted", until_step=4)
        self.right = engine.train(recipe, PLAN, folder / "finished").weights_sha256
        shutil.copytree(folder / "finished", folder / "other")
        self.steps: dict[int, str] = {}
        for step in (8, 6, 4, 2):
            self.steps[step] = self.digest(folder / "other")
            shutil.rmtree(folder / "other" / "checkpoints" / f"step-{step:06d}")
        assert self.steps[8] == self.right

    def digest(self, run: Path) -> str:
        return weights_sha256(load(run).network().state_dict())

    def copy(self, which: str) -> Path:
        target = self.folder / "copy"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder / which, target)
        self.outside.write_text("mine")
        self.outside.chmod(0o600)
        return target

    def check(self, run: Path, *, exact: bool) -> None:
        """Read the run, then train it to its end."""
        with contextlib.suppress(InputError):
            opened = load(run)
            found = weights_sha256(opened.network().state_dict())
            assert not exact or found == self.steps[opened.checkpoint.step]
        with contextlib.suppress(InputError):
            read_metrics(run)
        with contextlib.suppress(EngineError):
            result = engine.train(self.recipe, PLAN, run)
            assert result.status == "finished"
            assert not exact or result.weights_sha256 == self.right
        assert self.outside.read_text() == "mine"
        assert self.outside.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def runs(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> Runs:
    return Runs(tmp_path, tiny_recipe())


def _flip(path: Path, place: float, bit: int) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[int(place * len(content))] ^= 1 << bit
        path.write_bytes(bytes(content))


def _replace(path: Path, make: Callable[[Path], Any]) -> None:
    path.unlink()
    make(path)


def _damages(runs: Runs) -> dict[str, Callable[[Path, float, Any], Any]]:
    return {
        "flip": lambda path, place, _: _flip(path, place, int(place * 997) % 8),
        "cut off": lambda path, place, _: os.truncate(path, int(place * path.stat().st_size)),
        "lengthen": lambda path, place, _: os.truncate(path, path.stat().st_size + 1 + int(place * 2**34)),
        "remove": lambda path, _, __: path.unlink(),
        "json": lambda path, _, value: path.write_text(json.dumps(value)),
        "deep": lambda path, _, __: path.write_bytes(b"[" * 100_000),
        "pipe": lambda path, _, __: _replace(path, os.mkfifo),
        "folder": lambda path, _, __: _replace(path, Path.mkdir),
        "link": lambda path, _, __: _replace(path, lambda place: place.symlink_to(runs.outside)),
    }


FILES = st.floats(0, 1, exclude_max=True)


@seed(20)
@FUZZ
@given(
    which=st.sampled_from(["interrupted", "finished"]),
    file=FILES,
    damage=st.sampled_from(sorted(_damages(None))),  # type: ignore[arg-type]
    place=FILES,
    value=JSON,
)
def test_any_damage_to_a_run_folder(which: str, file: float, damage: str, place: float, value: Any, runs: Runs) -> None:
    run = runs.copy(which)
    files = sorted(path for path in run.rglob("*") if path.is_file() and "tfevents" not in path.name)
    _damages(runs)[damage](files[int(file * len(files))], place, value)
    runs.check(run, exact=True)


def _paths(values: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [prefix] if prefix else []
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for name, value in pairs:
        found += _paths(value, (*prefix, name))
    return found


@seed(20)
@FUZZ
@given(
    document=st.sampled_from(["state.json", "MANIFEST.json", "summary.json", "recipe.json"]),
    field=FILES,
    change=st.sampled_from(["value", "remove", "rename"]),
    value=JSON,
    name=st.sampled_from(["../../../outside", "/etc/hostname", "x", "", "step-²", "a" * 300]),
)
def test_any_value_in_a_document_with_the_right_sha256(
    document: str, field: float, change: str, value: Any, name: str, runs: Runs
) -> None:
    run = runs.copy("finished")
    checkpoint = run / "checkpoints" / "step-000008"
    path = (checkpoint if document in ("state.json", "MANIFEST.json") else run) / document
    values = json.loads(path.read_text())
    places = _paths(values)
    *parents, last = places[int(field * len(places))]
    inner = values
    for parent in parents:
        inner = inner[parent]
    if change == "value":
        inner[last] = value
    elif change == "remove":
        del inner[last]
    elif isinstance(inner, dict):
        inner[name] = inner.pop(last)
    path.write_text(json.dumps(values))
    if document == "state.json":
        manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
        content = path.read_bytes()
        manifest["state.json"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))
    runs.check(run, exact=False)


@seed(20)
@settings(FUZZ, max_examples=150)
@given(suffix=st.sampled_from([".safetensors", ".pth"]), damage=st.data(), place=FILES)
def test_any_damage_to_a_file_of_weights(suffix: str, damage: st.DataObject, place: float, tmp_path: Path) -> None:
    """Flipped numbers cannot be told from others; all else is the right network or one clear error."""
    settings_of = Backbone(name="resnet8", widths=(2, 2, 2))
    state = backbones.plain_state(backbones.build(settings_of, 3, (1, 8, 8), seed=1), "resnet8")
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    start = int(place * len(content))
    piece = damage.draw(st.binary(max_size=12))
    kind = damage.draw(st.sampled_from(["replace", "insert", "cut off"]))
    rest = content[start + len(piece) :] if kind == "replace" else content[start:] if kind == "insert" else b""
    path.write_bytes(content[:start] + piece + rest)
    given_weights = dataclasses.replace(settings_of, weights=str(path))
    with contextlib.suppress(InputError):
        network = backbones.build(given_weights, 3, (1, 8, 8), seed=2)
        assert {name: value.shape for name, value in backbones.plain_state(network, "resnet8").items()} == {
            name: value.shape for name, value in state.items()
        }

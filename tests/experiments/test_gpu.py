"""Does the script that makes all tables of a GPU work, but for the GPU?"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from engine.errors import PlanError
from engine.recipes import shipped_recipes
from experiments import gpu
from experiments.benchmarks import gpu_ways
from experiments.benchmarks.gpu_ways import Figures, Way

GIB = 1 << 30


def test_ways_take_turns_and_what_has_no_figure_says_why(tmp_path: Path) -> None:
    order: list[str] = []

    def taking(name: str, seconds: float, peak: int) -> Way:
        def measured(steps: int, folder: Path) -> Figures:
            order.append(name)
            return Figures(seconds * steps, peak)

        return Way(name, "network", measured, 2 * GIB, "9 GB", "1.1")

    def refused(steps: int, folder: Path) -> Figures:
        raise PlanError("there is no such link")

    ways = [taking("whole", 1.0, 2 * GIB), taking("cut", 1.5, GIB), Way("linked", "network", refused)]
    found, failed = gpu.measure(ways, 2, 2, time.monotonic() + 100, tmp_path)
    assert order == ["whole", "cut", "whole", "cut"]
    assert failed == {"linked": "there is no such link"}
    lines = gpu.lines_of("memory", ways, found, failed)
    assert lines[5] == "| cut | 2.000 | 1.000 | 0.50 | 0.50 | 9 GB | 3000.0 | 1.50 (1.50-1.50) | 1.1 |"
    assert lines[6].startswith("| linked | there is no such link |")
    assert lines[8] == "2 to 2 rounds."
    late, why = gpu.measure(ways[:2], 2, 2, time.monotonic() - 1, tmp_path)
    assert late == {"whole": [], "cut": []}
    assert set(why.values()) == {"not measured: time was up"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tables", "memory,link"], "--tables link: there is no such table; there is memory, methods, links,"),
        (["--device", "cuda"], "torch sees no GPU here; `--device cpu --shrink 128` rehearses on the CPU"),
    ],
)
def test_bad_words(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as refused:
        gpu.main(words)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_without_ray_its_tables_are_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert gpu.main(["--device", "cpu", "--tables", "links,replicas", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("Left out: Ray is not installed here.") == 2


def test_every_recipe_is_shipped() -> None:
    published = [recipe for rows in gpu_ways.PUBLISHED.values() for _, recipe, _, _ in rows]
    assert {*published, *gpu_ways.METHODS} <= set(shipped_recipes())


@pytest.mark.slow
def test_all_tables_with_small_batches_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One network for each size of images.
    for network in ("ResNet-110, 96 x 96", "ResNet-152, 224 x 224"):
        monkeypatch.delitem(gpu_ways.PUBLISHED, network)
    words = ["--device", "cpu", "--shrink", "512", "--rounds", "1", "--steps", "1", "--folder", str(tmp_path)]
    assert gpu.main(words) == 0
    tables = json.loads((tmp_path / "gpu.json").read_text())
    assert list(tables) == ["memory", "methods", "links", "replicas"]
    for ways in tables.values():
        for name, figures in ways.items():
            assert figures["failed"] is None, name
            assert figures["seconds"][0] > 0
    memory = {name: figures["peak_bytes"][0] for name, figures in tables["memory"].items()}
    whole, *_, two, three, four = (memory[name] for name in memory if name.startswith("ResNet-110"))
    assert whole > two > three > four
    for ways in (tables["memory"], tables["methods"]):
        for name, figures in ways.items():
            if "checkpointing" not in name:
                # What learners count is less than all, but takes gradients and activations to be there at once.
                assert 0.6 <= figures["peak_bytes"][0] / figures["planned_bytes"] <= 1.25, name
    assert "| ResNet-110, 32 x 32, batch 4, end to end | " in (tmp_path / "gpu.md").read_text()

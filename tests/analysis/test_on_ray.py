"""Does every analysis find the same numbers on Ray, bit for bit, and do errors keep their words?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.analysis import ANALYSES, Settings, analyse
from engine.analysis.running import Work, measured_there
from engine.errors import RunError
from engine.recipes import Plan
from engine.runtimes.ray.tasks import RayTasks

RAY_CPUS = 2
ON_IMAGES = [name for name, analysis in ANALYSES.items() if analysis.looks_at_images]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def _numbers(folder: Path) -> Any:
    return {path.parent.name: json.loads(path.read_text())["rows"] for path in folder.rglob("numbers.json")}


def test_numbers_are_those_of_one_process(run_of: Any) -> None:
    names, settings = list(ON_IMAGES), Settings(images=12, probe_epochs=1)
    here, there = run_of("infopro", "here/run"), run_of("infopro", "there/run")
    analyse([here], names, settings)
    told: list[str] = []
    analyse([there], names, settings, on="ray", tell=told.append)
    assert _numbers(there / "analysis") == _numbers(here / "analysis")
    assert _numbers(here / "analysis").keys() == set(names)
    assert sum(line.startswith("similarity: ") for line in told) == 3


def test_an_error_of_a_task_is_that_of_the_engine(tmp_path: Path) -> None:
    gone = Work("posterior", 0, str(tmp_path / "gone"), Settings(), "network", "")
    with RayTasks(Plan()) as tasks, pytest.raises(RunError, match="gone: is no run folder"):
        list(tasks.run(measured_there, [gone]))

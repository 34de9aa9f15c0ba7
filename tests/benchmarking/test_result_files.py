"""Do a measurement's files hold what was measured, under the names that they always had?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from engine.benchmarking import Measurement, write_measurement
from engine.benchmarking.case_results import CaseResult
from engine.benchmarking.cases import Case, Machine
from engine.benchmarking.machine_load import Load
from engine.benchmarking.settings_search import Attempt, Search
from engine.benchmarking.simulation import simulate
from engine.benchmarking.timeline import Call
from engine.recipes import Recipe


def test_table_numbers_pictures_and_timelines_are_written(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    whole = CaseResult(
        Case("end to end", "end_to_end", 1, 1), [2.0, 2.0], 2 * [{"network": 2.0}], loads=[Load(0.0, 0.0)]
    )
    calls = {"segment0": [Call("forward", 0, 10.0, 10.5)], "segment1": [Call("forward", 0, 10.5, 11.0)]}
    cut = CaseResult(Case("cut", "process", 1, 1, 2), [3.0, 1.0], 2 * [{"segment0": 1.0, "segment1": 0.5}], calls=calls)
    cut.loads.append(Load(0.5, 0.0))
    whole.loads += [Load(0.0, 0.0), Load(0.4, 0.0)]
    machine, simulated = Machine(cores=2, gpus=0), simulate(whole, [cut], {1: [1.0, 0.5, 0.1], 2: [0.6, 0.3, 0.1]})
    settings = {"schedule": "1f1b", "micro_batches": 2, "bounds": [0, 1, 3]}
    tried = [
        Attempt(settings, 2.0, [3.0, 3.0], others=[0.0, None, 0.2]),
        Attempt({**settings, "bounds": [0, 2, 3]}, 4.0, others=[0.01]),
    ]
    search = Search("1F1B, 2 workers", tried, tried[0], 9.0, False)
    pipeline = CaseResult(
        Case("1F1B", "1f1b", 2, 1, None, 2, settings, chosen="2 micro-batches"), [3.0, 3.0], loads=[Load(0.0, 0.0)]
    )
    found = Measurement(
        tiny_recipe(),
        "images",
        12,
        machine,
        1,
        [whole, cut, pipeline],
        whole,
        simulated,
        {"DDP": "a reason"},
        [search],
        ["stem", "middle", "classifier"],
        {1: [1.0, 0.5, 0.1]},
        0.3,
    )
    told: list[str] = []
    made = write_measurement(found, tmp_path / "out", told.append)
    assert not told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(made)
    assert {"measure.md", "measure.json", "measure.png", "timeline.json", "timeline.png"} == set(made)
    written = json.loads((tmp_path / "out" / "measure.json").read_text())
    assert written["baseline"] == "end to end"
    assert [way["name"] for way in written["ways"]] == ["end to end", "cut", "1F1B"]
    assert written["ways"][2]["settings"] == written["searches"][0]["chosen"] == settings
    assert "settings" not in written["ways"][0]
    assert [each["milliseconds"] for each in written["searches"][0]["attempts"]] == [2000.0, 4000.0]
    assert written["searches"][0]["attempts"][0]["final_milliseconds"] == [3000.0, 3000.0]
    assert written["blocks"][1] == "middle" and written["block_milliseconds"] == {"1": [1000.0, 500.0, 100.0]}
    assert written["searches"][0]["attempts"][0]["others_cores"] == [0.0, None, 0.2]
    assert written["block_others_cores"] == 0.3
    assert set(written["simulated"][0]["pipelines"]) == {"2"}
    assert written["ways"][1]["times_end_to_end"] == {"median": 4 / 3, "low": 2 / 3, "high": 2.0}
    table = (tmp_path / "out" / "measure.md").read_text()
    assert "left out: DDP: a reason" in table and "more than 5% of a core beside 1 of 3 cases" in table
    assert "core in single rounds of 2 (end to end, round 3: 40%)" in table
    assert "core beside 2 of the runs before the rounds (most: 30% beside the timing of the blocks)" in table
    assert "1F1B, 2 workers: 2 micro-batches, stage 1 begins at middle (1 of 2 that were run for 9 s and took" in table

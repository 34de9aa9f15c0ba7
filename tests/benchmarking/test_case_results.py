"""Does the arithmetic of a measurement say what was measured?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.benchmarking.case_results import CaseResult, Spread, best_of, efficiency, faster
from engine.benchmarking.cases import Case
from engine.benchmarking.report import shown_name, simulated_lines, waits_unequally
from engine.benchmarking.simulation import pipeline_step, simulate


def row(name: str, family: Any, seconds: list[float], **more: Any) -> CaseResult:
    workers, threads = more.pop("workers", 1), more.pop("threads", 1)
    case = Case(name, family, workers, threads, more.pop("num_segments", None), more.pop("variant", None))
    return CaseResult(case, seconds, **more)


def test_ratios_are_formed_round_by_round() -> None:
    # The machine was twice as slow in the second round: the ratio of medians would hide that nothing changed.
    assert faster(row("a", "ray", [1.0, 2.0]), row("b", "ddp", [3.0, 6.0])) == Spread(3.0, 3.0, 3.0)


def test_two_workers_that_never_wait_are_fully_efficient() -> None:
    alone = row("in process", "process", [3.0], busy=[{"segment0": 1.5, "segment1": 1.5}])
    assert efficiency(row("on Ray", "ray", [1.5], workers=2), alone, units=2) == 1.0
    assert efficiency(row("on Ray", "ray", [3.0], workers=2), alone, units=2) == 0.5


def test_workers_that_share_cores_are_judged_by_the_cores() -> None:
    alone = row("in process", "process", [4.0], busy=[{str(index): 1.0 for index in range(4)}])
    assert efficiency(row("on Ray", "ray", [2.0], workers=4), alone, units=2) == 1.0


def test_of_micro_batches_the_fastest_is_shown_and_of_checkpointing_the_leanest_too() -> None:
    def kept(count: int) -> dict[str, dict[str, int]]:
        return {"network": {"saved_activations": count}}

    rows = [
        row("e", "end_to_end", [1.0]),
        row("c2", "checkpoint", [1.2], variant=2, memory=kept(50)),
        row("c4", "checkpoint", [1.3], variant=4, memory=kept(30)),
        row("c8", "checkpoint", [1.4], variant=8, memory=kept(40)),
        # Two threads are faster, and say nothing of what one takes.
        row("c2 of 2", "checkpoint", [0.7], variant=2, threads=2, memory=kept(50)),
        row("c8 of 2", "checkpoint", [0.8], variant=8, threads=2, memory=kept(60)),
        row("g2", "gpipe", [0.9], workers=2, variant=2),
        row("g4", "gpipe", [0.8], workers=2, variant=4),
        row("g4 of 4", "gpipe", [0.9], workers=4, variant=4),
    ]
    assert [each.case.name for each in best_of(rows)] == ["e", "c2", "c4", "c2 of 2", "g4", "g4 of 4"]
    found: Any = SimpleNamespace(rows=rows)
    assert shown_name(found, rows[1]) == "c2 (fastest)" and shown_name(found, rows[2]) == "c4 (least memory)"


@pytest.mark.parametrize(("stages", "parts", "times"), [(1, 8, 1.0), (2, 8, 16 / 9), (4, 8, 32 / 11), (8, 8, 64 / 15)])
def test_a_pipeline_loses_its_bubble(stages: int, parts: int, times: float) -> None:
    """Share (K - 1) / (M + K - 1) of the time, measurements of the bubble in GPipe (Huang et al. 2019), section 2.3."""
    bubble = (stages - 1) / (parts + stages - 1)
    alone = parts * stages * 1.0
    speedup = alone / pipeline_step([1.0] * stages, parts)
    assert speedup == pytest.approx(times) == pytest.approx(stages * (1 - bubble))


def test_a_pipeline_is_as_slow_as_its_slowest_stage() -> None:
    # Forward and backward of the first micro-batch through all stages, then the slowest stage again and again.
    assert pipeline_step([1.0, 3.0, 2.0], 4) == 6.0 + 3 * 3.0


def test_a_device_for_each_segment_is_as_fast_as_the_slowest_segment() -> None:
    whole = row("e", "end_to_end", [1.0], busy=[{"segment0": 0.8}, {"segment0": 1.2}, {"segment0": 1.0}])
    busy = [{f"segment{index}": seconds for index, seconds in enumerate((0.2, 0.25, 0.3, 0.28))}] * 3
    cut = row("K = 4", "process", [1.1] * 3, num_segments=4, busy=busy)
    (found,) = simulate(whole, [cut], {})
    assert found.step == 0.3
    assert found.times_end_to_end == pytest.approx(1 / 0.3)
    assert found.pipelines == {} and found.best_micro_batches is None


def test_simulated_1f1b_has_its_best_cut_and_the_real_speed_of_its_micro_batches() -> None:
    whole = row("e", "end_to_end", [1.0], busy=[{"network": 1.0}])
    cut = row("K = 2", "process", [1.0], num_segments=2, busy=[{"segment0": 0.5, "segment1": 0.5}])
    # Of a batch, and of micro-batches of a half and of an eighth, which are slower per image the smaller they are.
    blocks = {1: [0.6, 0.2, 0.1, 0.1], 2: [0.3, 0.1, 0.06, 0.06], 8: [0.1, 0.05, 0.05, 0.05]}
    (found,) = simulate(whole, [cut], blocks)
    assert found.pipeline_cuts == {2: [0, 1, 4], 8: [0, 1, 4]}
    assert found.pipeline_stages[2] == pytest.approx([0.3, 0.22])
    assert found.pipelines[2] == pytest.approx(1.0 / (0.52 + 0.3))
    assert found.pipelines[8] == pytest.approx(1.0 / (0.25 + 7 * 0.15))
    assert found.best_micro_batches == 2
    assert found.against_pipelines[2] == pytest.approx(2.0 * (0.52 + 0.3))
    measured: Any = SimpleNamespace(simulated=[found])
    said = simulated_lines(measured)[0]
    assert "the sum of its blocks' times (no stage was timed as a whole)" in said


@pytest.mark.parametrize(
    ("family", "waiting", "unequal"),
    [
        ("ray", [[0.2, 0.02], [0.18, 0.0]], True),
        ("ray", [[0.08, 0.02], [0.05, 0.0]], False),
        ("gpipe", [[0.4, 0.1]], False),
        # Peers of two segments each: whose cut is to blame cannot be told from this.
        ("ray", [[0.4, 0.1, 0.4, 0.1]], False),
    ],
)
def test_segments_that_wait_longer_than_others_are_noticed(family: str, waiting: Any, unequal: bool) -> None:
    assert waits_unequally(row("K = 2", family, [1.0], workers=2, num_segments=2, waiting=waiting)) == unequal


def test_learners_that_keep_their_graphs_at_once_are_added_up() -> None:
    memory = {"a": {"saved_activations": 3}, "b": {"saved_activations": 5}, "c": {"saved_activations": 7}}
    assert row("on Ray", "ray", [1.0], memory=memory).saved_activations == 7
    assert row("in process", "process", [1.0], memory=memory, together=[["a", "b"], ["c"]]).saved_activations == 8

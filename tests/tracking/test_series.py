"""From records to lines: who belongs to which network, who has left, epochs, means of many points."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from engine.tasks import ACCURACY
from engine.tracking import Record
from engine.tracking.figures import INK, colours
from engine.tracking.records import learners_by_network
from engine.tracking.series import RunSeries, steps_per_epoch

MadeUp = Callable[..., list[Record]]


@pytest.mark.parametrize(
    ("names", "networks"),
    [
        ([], {}),
        (["segment0", "segment1"], {"segment0": ["segment0"], "segment1": ["segment1"]}),
        (["peer0", "ensemble", "peer1", "peer0"], {"peer0": ["peer0"], "peer1": ["peer1"]}),
        (
            ["peer0_segment0", "peer1_segment0", "peer0_segment1", "peer1_segment1", "peer0", "ensemble", "peer1"],
            {"peer0": ["peer0_segment0", "peer0_segment1"], "peer1": ["peer1_segment0", "peer1_segment1"]},
        ),
        (["teacher", "student"], {"teacher": ["teacher"], "student": ["student"]}),
    ],
)
def test_learners_belong_to_networks(names: list[str], networks: dict[str, list[str]]) -> None:
    assert learners_by_network(names) == networks
    assert list(learners_by_network(names)) == list(networks)


def test_a_chain_is_no_cohort_and_nobody_leaves_it(made_up_run: MadeUp) -> None:
    run = RunSeries(made_up_run(2), ACCURACY)
    assert not run.is_cohort and run.left == {}
    assert run.colours == {**colours(["segment0", "segment1"]), "ensemble": INK, None: INK}


def test_a_network_leaves_with_the_first_of_its_learners(made_up_cohort: MadeUp) -> None:
    run = RunSeries(made_up_cohort(2, segments=2, epochs=4, peer1_segment1=10), ACCURACY)
    assert run.is_cohort and run.left == {"peer1": 2.0}
    lengths = {series.learner: len(series.values) for series in run.series("accuracy", "test")}
    assert lengths == {"peer0": 4, "peer1": 2, "ensemble": 4}
    trained = {series.learner: len(series.values) for series in run.series("loss/total")}
    assert trained == {"peer0_segment0": 20, "peer0_segment1": 20, "peer1_segment0": 20, "peer1_segment1": 10}


def test_a_peer_that_never_trained_has_no_line(made_up_cohort: MadeUp) -> None:
    run = RunSeries(made_up_cohort(2, peer1=0), ACCURACY)
    assert run.left == {"peer1": 0.0}
    assert [series.learner for series in run.series("accuracy", "test")] == ["peer0", "ensemble"]


@pytest.mark.parametrize("first_epoch", [0, 1])
def test_steps_become_epochs_however_epochs_are_counted(first_epoch: int) -> None:
    def at(epoch: int, step: int) -> Record:
        return Record(0.0, epoch + first_epoch, step, None, "train", "accuracy", 0.0)

    assert steps_per_epoch([at(0, 5), at(0, 10), at(1, 15), at(1, 20), at(2, 23)]) == 10.0
    assert steps_per_epoch([at(0, 0)]) == 1.0
    assert steps_per_epoch([]) == 1.0


def test_long_series_are_thinned_to_means() -> None:
    records = [Record(0.0, 0, s, "a", "train", "loss/total", math.nan if s == 7 else s % 2) for s in range(1, 10_001)]
    (series,) = RunSeries(records, ACCURACY).series("loss/total")
    epochs, values = series.thinned()
    assert len(epochs) == 120
    assert epochs == sorted(epochs)
    assert np.allclose(values, 0.5, atol=0.02)


def test_a_total_of_one_term_gets_no_second_panel() -> None:
    same = [Record(0.0, 0, 1, "a", "train", name, 1.0) for name in ("loss/cross_entropy", "loss/total")]
    assert RunSeries(same, ACCURACY).losses() == ["loss/cross_entropy"]
    other = [*same, Record(0.0, 0, 2, "a", "train", "loss/total", 2.0)]
    assert RunSeries(other, ACCURACY).losses() == ["loss/total", "loss/cross_entropy"]

"""Do meters report means over images, and only of the time that training took?"""

from __future__ import annotations

import json

import pytest
import torch

from engine.learners import meters
from engine.learners.meters import Meters
from engine.streams import generator


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(meters, "time", made)
    return made


def test_means_are_over_images_not_over_batches(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0, "b": 4.0}, 10, 5)
    found.add({"a": 3.0, "b": 0.0}, 30, 27)
    clock.now += 4
    values = found.report()
    assert values["loss/a"] == pytest.approx(2.5)
    assert values["loss/b"] == pytest.approx(1.0)
    assert values["accuracy"] == 32 / 40
    assert values["images_per_second"] == 10
    assert set(values) == {"loss/a", "loss/b", "accuracy", "images_per_second", "waiting_share"}


def test_a_learner_without_logits_has_no_accuracy(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0}, 10, None)
    assert "accuracy" not in found.report()


def test_what_waits_on_a_device_is_added_up_as_numbers_are(clock: Clock) -> None:
    numbers, tensors = Meters(), Meters()
    for step in range(5):
        loss, hits = torch.rand((), generator=generator("loss", step)), torch.tensor(step)
        numbers.add({"a": loss.item(), "b": 2.0}, 10, step, 7, {"b"})
        tensors.add({"a": loss, "b": 2.0}, 10, hits, torch.tensor(7), {"b"})
        numbers.observe({"a": loss.item()} if step % 2 else {})
        tensors.observe({"a": loss} if step % 2 else {})
    assert numbers.state() == tensors.state() and numbers.state()["scored"] == 35
    json.dumps(tensors.state())
    clock.now += 1
    assert numbers.report() == tensors.report()


def test_no_more_waits_than_can_be_held(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "_MOST_WAITING", 5)
    found = Meters()
    for _ in range(9):
        found.add({"a": torch.tensor(1.0)}, 1, 1)
        assert len(found._seen) < 2
    clock.now += 1
    assert found.report()["loss/a"] == 1.0


def test_accuracy_is_over_the_images_that_were_scored(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0}, 10, None)
    found.add({"a": 1.0}, 20, 5)
    assert found.report()["accuracy"] == 0.25


def test_no_hits_are_an_accuracy_of_zero(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0}, 10, 0)
    assert found.report()["accuracy"] == 0


def test_a_report_starts_anew(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0}, 10, 10)
    found.work(1)
    clock.now += 2
    found.report()
    assert found.report() == {}
    found.add({"b": 2.0}, 5, 0)
    clock.now += 5
    assert found.report() == {"loss/b": 2.0, "accuracy": 0.0, "images_per_second": 1.0, "waiting_share": 1.0}


def test_nothing_seen_is_nothing_reported() -> None:
    assert Meters().report() == {}


def test_waiting_is_the_time_without_work(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0}, 1, None)
    found.work(0.5)
    found.work(0.5)
    clock.now += 4
    assert found.report()["waiting_share"] == pytest.approx(0.75)


def test_waiting_is_never_negative(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0}, 1, None)
    found.work(5)
    clock.now += 4
    assert found.report()["waiting_share"] == 0


def test_an_evaluation_stops_the_clock(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0}, 10, None)
    clock.now += 2
    found.pause()
    clock.now += 50
    found.pause()
    clock.now += 50
    found.resume()
    found.resume()
    found.work(1)
    clock.now += 3
    values = found.report()
    assert values["images_per_second"] == pytest.approx(2)
    assert values["waiting_share"] == pytest.approx(0.8)


def test_work_in_an_evaluation_is_not_work_in_training(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0}, 10, None)
    clock.now += 2
    found.pause()
    found.work(40)
    clock.now += 40
    found.resume()
    clock.now += 2
    assert found.report()["waiting_share"] == pytest.approx(1)


def test_the_state_goes_on_where_it_was_saved(clock: Clock) -> None:
    whole, first = Meters(), Meters()
    batches = [({"a": 0.1, "b": 3.0}, 7, 3), ({"a": 0.3, "b": 1.0}, 9, None), ({"a": 0.7, "b": 0.0}, 4, 4)]
    for batch in batches:
        whole.add(*batch)
    for batch in batches[:2]:
        first.add(*batch)
    second = Meters()
    second.load_state(json.loads(json.dumps(first.state())))
    second.add(*batches[2])
    clock.now += 1
    assert second.report() == whole.report()


def test_the_state_is_a_copy(clock: Clock) -> None:
    found = Meters()
    found.add({"a": 1.0}, 1, 1)
    state = found.state()
    before = json.dumps(state)
    found.add({"a": 1.0}, 1, 1)
    assert json.dumps(state) == before
    other = Meters()
    other.load_state(state)
    other.add({"a": 5.0}, 1, 1)
    assert json.dumps(state) == before


def test_times_are_no_part_of_the_state(clock: Clock) -> None:
    one, other = Meters(), Meters()
    for found, seconds in ((one, 1.0), (other, 9.0)):
        found.add({"a": 1.0}, 3, 1)
        found.work(seconds)
        clock.now += seconds
    assert one.state() == other.state()


def test_what_was_observed_is_a_mean_over_the_steps_that_observed_it(clock: Clock) -> None:
    found = Meters()
    for step, values in enumerate(({"fraction/exact": 1.0}, {}, {"fraction/exact": 4.0, "fraction/keep": 0.5})):
        # Neither the number of images nor the steps in between count.
        found.add({"total": 1.0}, 10 * (step + 1), None)
        found.observe(values)
    clock.now += 1
    values = found.report()
    assert (values["fraction/exact"], values["fraction/keep"]) == (2.5, 0.5)


def test_what_was_observed_is_reported_once(clock: Clock) -> None:
    found = Meters()
    found.add({"total": 1.0}, 10, None)
    found.observe({"fraction/exact": 1.0})
    clock.now += 1
    assert "fraction/exact" in found.report()
    found.add({"total": 1.0}, 10, None)
    clock.now += 1
    assert "fraction/exact" not in found.report()


def test_what_was_observed_goes_on_where_it_was_saved(clock: Clock) -> None:
    whole, first, second = Meters(), Meters(), Meters()
    for found in (whole, first):
        found.add({"total": 1.0}, 10, None)
        found.observe({"a": 0.1, "b": 7.0})
    state = first.state()
    before = json.dumps(state)
    first.observe({"a": 9.0})
    assert json.dumps(state) == before
    second.load_state(json.loads(before))
    for found in (whole, second):
        found.observe({"a": 0.3})
    assert json.dumps(state) == before
    clock.now += 1
    assert second.report() == whole.report()
    assert whole.state()["observed"] == {}

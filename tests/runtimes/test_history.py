"""Is all kept that a lost learner has to be told again, and nothing beyond what there is room for?"""

from __future__ import annotations

import torch

from engine.checkpoints import KNOWLEDGE_FOLLOWS, LearnerState
from engine.methods import Team
from engine.program import BATCH, NEXT, SOURCE, Call, Message, Program
from engine.recipes import Plan
from engine.runtimes.ray.history import Asked, Given, History, history_bytes, store_bytes_for_history
from engine.runtimes.ray.placement import choose_store

STATES = {"segment0": LearnerState({"weight": torch.ones(2)}, {})}


def _asked(number: int) -> Asked:
    return Asked("segment0", number, lambda: [f"reference {number}"], (Given(),))


def _numbers(history: History) -> list[int]:
    return [asked.number for asked in history]


def test_what_was_asked_is_asked_again_with_new_references() -> None:
    asked = _asked(3)
    asked.ask()
    assert asked.given[0].reference == "reference 3"
    asked.given[0].reference = None
    asked.ask()
    assert asked.given[0].reference == "reference 3"


def test_it_begins_at_the_newest_states_that_are_known() -> None:
    history = History(1000, {})
    history.add([_asked(0)], 10, 1)
    history.add([_asked(1)], 0, 0)
    told = history.asked_for_states()
    history.add([_asked(2)], 10, 1)
    assert _numbers(history) == [0, 1, 2], "nobody has said yet what the states were"
    assert (history.states, history.steps) == ({}, 2)
    told(STATES)
    assert _numbers(history) == [2]
    assert (history.states, history.steps) == (STATES, 1)


def test_a_later_answer_lets_go_of_all_before_it() -> None:
    history = History(1000, {})
    first = history.asked_for_states()
    history.add([_asked(0)], 10, 1)
    second = history.asked_for_states()
    history.add([_asked(1)], 10, 1)
    second(STATES)
    assert _numbers(history) == [1]
    first({})
    assert history.states is STATES, "an answer that comes late is of no use any more"


def test_it_is_full_in_time_for_answers_that_come_late() -> None:
    """They are there when the steps in flight are done, which are a quarter at most; states may cost much."""
    history = History(100, {})
    asked_for, kept = {}, []
    for step in range(40):
        history.add([_asked(step)], 5, 1)
        if history.is_full:
            asked_for[step] = history.asked_for_states()
        if step - 5 in asked_for:
            asked_for[step - 5](STATES)
        kept.append(history.states is not None)
    assert all(kept)
    assert list(asked_for) == [10, 21, 32]


def test_beyond_its_bytes_the_oldest_is_let_go_until_states_are_known_again() -> None:
    history = History(100, {})
    for step in range(3):
        history.add([_asked(step)], 40, 1)
    assert history.states is None
    assert _numbers(history) == []
    history.add([_asked(3)], 1, 1)
    assert _numbers(history) == [], "it would not be all"
    assert history.is_full
    told = history.asked_for_states()
    assert not history.is_full
    history.add([_asked(4)], 40, 1)
    assert history.states is None
    told(STATES)
    assert (history.states, _numbers(history)) == (STATES, [4])


def test_a_team_whose_states_are_changes_is_not_kept() -> None:
    history = History(100, {})
    # Also where nothing has changed: it is not all that is known.
    changed = LearnerState({}, {KNOWLEDGE_FOLLOWS: 4})
    history.asked_for_states()({"store": changed})
    history.add([_asked(0)], 90, 1)
    assert history.states is None
    assert not history.is_full, "asking again would help nobody"
    history.asked_for_states()({"store": changed})
    assert history.states is None


def test_room_of_some_windows_or_none() -> None:
    sizes = {BATCH: 150, "labels": 50}
    calls = tuple(Call(SOURCE, NEXT, gives=(name,)) for name in sizes)
    program = Program(calls, {name: Message(name, (((size,), "uint8"),)) for name, size in sizes.items()}, "training")
    team = Team((), (program,), program, {})
    plan = Plan(window=5)
    assert history_bytes(team, plan, 10**6) == 5 * 10**5
    # 5 steps of 200 bytes are a quarter of half of it.
    assert history_bytes(team, plan, 8000) == 4000
    assert history_bytes(team, plan, 7990) == 0
    assert history_bytes(team, plan, -5) == 0
    assert store_bytes_for_history(team, plan) == 8000
    store = choose_store(plan, 0, 2**40, "object_store", 2**31)
    assert store.bytes == choose_store(plan, 0, 2**40, "object_store").bytes + 2**31 - 2**29
    small = choose_store(plan, 0, 2**31, "object_store")
    assert choose_store(plan, 0, 2**31, "object_store", 2**30).bytes == small.bytes, "more than half of shared memory"

"""Is a learner's work done in the order of its numbers, in one thread, and forgotten after it?"""

from __future__ import annotations

import gc
import random
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from engine.runtimes.ray.ordered_execution import OrderedExecution


def test_work_is_done_by_number_in_whatever_order_it_is_asked_for() -> None:
    turns = OrderedExecution()
    done: list[int] = []
    numbers = list(range(16))
    random.Random(0).shuffle(numbers)
    with ThreadPoolExecutor(len(numbers)) as callers:
        asked = [
            callers.submit(turns.do_in_turn, number, lambda number=number: done.append(number)) for number in numbers
        ]
        for future in asked:
            future.result(timeout=30)
    assert done == sorted(numbers)


def test_all_work_is_done_in_one_thread() -> None:
    turns = OrderedExecution()
    with ThreadPoolExecutor(4) as callers:
        threads = {callers.submit(turns.do_in_turn, number, threading.get_ident).result() for number in range(4)}
    threads.add(turns.do(threading.get_ident))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_what_goes_wrong_is_told_to_whoever_asked_and_the_next_turn_comes() -> None:
    turns = OrderedExecution()

    def fail() -> None:
        raise ZeroDivisionError("this one")

    with pytest.raises(ZeroDivisionError, match="this one"):
        turns.do_in_turn(0, fail)
    assert turns.do_in_turn(1, lambda: "next") == "next"


def test_nothing_of_done_work_is_kept() -> None:
    """Else an actor would hold the features of its last call until the next one comes."""
    turns = OrderedExecution()
    features = torch.zeros(4)
    seen = weakref.ref(features)
    assert turns.do_in_turn(0, lambda features=features: float(features.sum())) == 0
    del features
    gc.collect()
    assert seen() is None

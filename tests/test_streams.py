"""Is every draw a function of its key alone, today and in every later version?"""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import engine
from engine.streams import Key, generator, seeded, stream_seed

# Runs made with one version must be repeatable with every later one, so these never change.
PINNED: list[tuple[tuple[Key, ...], int, list[int]]] = [
    ((0,), 3581690635855307741, [1610343946, 498935356, 1920206175]),
    (("0",), 5199204929721980132, [2017883379, 943708047, 299721753]),
    ((0, "segment0", 1, 2), 123180802947323245, [1402364011, 2047044124, 1490828775]),
    ((2**31 - 1, "augmentation", 159, 48), 1987028002606166685, [890313473, 1460153289, 759157793]),
    ((0, "backbone", 0), 6988816573088932611, [552790610, 1856830163, 1140131618]),
]


@pytest.mark.parametrize(("key", "seed", "draws"), PINNED)
def test_known_streams_never_change(key: tuple[Key, ...], seed: int, draws: list[int]) -> None:
    assert stream_seed(*key) == seed
    assert torch.randint(0, 2**31, (3,), generator=generator(*key)).tolist() == draws
    with seeded(*key):
        assert torch.randint(0, 2**31, (3,)).tolist() == draws


KEYS = [(), (0,), (1,), ("0",), ("a",), ("a", "b"), ("ab",), ("b", "a"), (1, 2), (12,), (0, 0), (0, "", 0), (-1,)]


@pytest.mark.parametrize(("one", "other"), combinations(KEYS, 2))
def test_other_keys_have_other_streams(one: tuple[Key, ...], other: tuple[Key, ...]) -> None:
    assert stream_seed(*one) != stream_seed(*other)
    assert not torch.equal(torch.rand(8, generator=generator(*one)), torch.rand(8, generator=generator(*other)))


def test_neighbouring_steps_are_unrelated() -> None:
    draws = torch.stack([torch.rand(500, generator=generator(0, "s", step)) for step in range(40)])
    related = torch.corrcoef(draws) - torch.eye(40)
    assert related.abs().max() < 0.25
    assert all(abs(one - other) > 2**32 for one, other in pairwise(stream_seed(0, "s", step) for step in range(99)))


keys = st.lists(st.one_of(st.integers(0, 2**40), st.text("abc01", max_size=5)), max_size=5)


@given(keys)
def test_a_seed_fits_into_63_bits_and_repeats(key: list[Key]) -> None:
    assert 0 <= stream_seed(*key) < 2**63
    assert stream_seed(*key) == stream_seed(*key)


@given(keys, keys)
def test_seeds_collide_only_for_equal_keys(one: list[Key], other: list[Key]) -> None:
    assert (stream_seed(*one) == stream_seed(*other)) == (one == other)


def test_the_same_key_gives_the_same_numbers() -> None:
    assert torch.equal(torch.randn(100, generator=generator(3, "x")), torch.randn(100, generator=generator(3, "x")))


def states() -> tuple[torch.Tensor, object, object]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]


def unchanged(before: tuple[torch.Tensor, object, object]) -> bool:
    after = states()
    return torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_a_generator_leaves_global_state_alone() -> None:
    before = states()
    torch.rand(10, generator=generator(1, "a"))
    stream_seed(1, "a")
    assert unchanged(before)


def test_a_seeded_block_restores_global_state() -> None:
    before = states()
    with seeded(1, "a"):
        torch.rand(10)
    assert unchanged(before)


def test_a_seeded_block_restores_global_state_after_an_error() -> None:
    before = states()

    def draw_and_fail() -> None:
        with seeded(1, "a"):
            torch.rand(10)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        draw_and_fail()
    assert unchanged(before)


def test_a_seeded_block_does_not_depend_on_what_was_drawn_before() -> None:
    with seeded(1, "a"):
        first = torch.rand(5)
    torch.rand(17)
    with seeded(1, "a"):
        assert torch.equal(torch.rand(5), first)


def test_seeded_blocks_can_be_nested() -> None:
    with seeded(1, "outer"):
        whole = torch.rand(6)
    with seeded(1, "outer"):
        head = torch.rand(3)
        with seeded(1, "inner"):
            torch.rand(50)
        assert torch.equal(torch.cat([head, torch.rand(3)]), whole)


def test_initial_weights_and_dropout_follow_the_stream() -> None:
    def made() -> tuple[torch.Tensor, torch.Tensor]:
        with seeded(5, "weights"):
            weight = torch.nn.Linear(4, 4).weight.detach()
        with seeded(5, "dropout"):
            return weight, torch.nn.functional.dropout(torch.ones(64), 0.5)

    one, other = made(), made()
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert 0 < (one[1] == 0).sum() < 64


def test_seeds_are_the_same_in_another_process_and_need_no_torch() -> None:
    code = (
        "import sys; from engine.streams import stream_seed; "
        "print(stream_seed(0, 'segment0', 1, 2), 'torch' in sys.modules)"
    )
    root = Path(engine.__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == [str(PINNED[2][1]), "False"]

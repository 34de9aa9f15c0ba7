"""Is it known before anything starts who gives whom what on direct links, and how much memory that takes?"""

from __future__ import annotations

import pytest

from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message
from engine.recipes import Plan
from engine.runtimes.ray.links import Route, routes_of, takers_of
from engine.runtimes.ray.transport import choose_transport, choose_way

NEXT = Call(SOURCE, "next", (), (BATCH,))


def _program(rows: int, *calls: Call) -> Program:
    given = [name for call in calls for name in call.gives]
    return Program(
        (NEXT, *calls),
        {BATCH: batch_message(rows, (1, 8, 8))} | {name: Message(name, (((rows, 10), "float32"),)) for name in given},
        f"{rows} images",
    )


TRAINING = _program(
    50,
    Call("a", "forward", (BATCH,), ("features", "said_a")),
    Call("b", "forward", (BATCH, "features"), ("said_b",)),
    Call("a", "update", ("said_b",)),
    Call("b", "update", ("said_a",)),
)
EVALUATION = _program(
    100,
    Call("a", "infer", (BATCH,), ("features",)),
    Call("b", "score", (BATCH, "features"), ("predictions",)),
    Call("b", "score_together", (BATCH, "predictions")),
)


def test_a_pair_has_one_link_with_room_for_the_largest_step_of_any_program() -> None:
    # 50 x 10 numbers are 2,000 bytes, and begin at multiples of 64; two of them fill more than 4,000 of evaluation.
    assert routes_of([TRAINING, EVALUATION]) == (
        Route("a", "b", ("features", "said_a"), 2 * 2048),
        Route("b", "a", ("said_b",), 2048),
    )
    assert routes_of([EVALUATION]) == (Route("a", "b", ("features",), 4032),)


def test_what_a_learner_takes_of_itself_needs_no_link() -> None:
    assert takers_of(EVALUATION) == {"features": ("b",), "predictions": ("b",)}
    assert all(route.giver != route.taker for route in routes_of([EVALUATION]))


def test_a_message_that_nobody_takes_travels_nowhere() -> None:
    assert routes_of([_program(4, Call("a", "forward", (BATCH,), ("features",)))]) == ()


@pytest.mark.parametrize(
    ("transport", "nodes", "on_gpus", "kind"),
    [
        ("auto", 1, False, "direct"),
        ("auto", 2, False, "object_store"),
        ("auto", 2, True, "direct"),
        ("direct", 2, False, "direct"),
        ("direct_host", 2, True, "direct"),
        ("object_store", 1, True, "object_store"),
    ],
)
def test_auto_takes_direct_links_on_one_node_and_between_gpus(
    transport: str, nodes: int, on_gpus: bool, kind: str
) -> None:
    chosen = choose_transport(Plan(transport=transport), nodes, on_gpus)  # type: ignore[arg-type]
    assert chosen.kind == kind
    assert f"plan.transport={transport}" in chosen.describe()


CPU = {"node": "one", "gpu": "", "nccl": True}
GPU = {"node": "one", "gpu": "GPU-a", "nccl": True}
ANOTHER_GPU = GPU | {"gpu": "GPU-b"}
GPU_ELSEWHERE = {"node": "two", "gpu": "GPU-c", "nccl": True}


@pytest.mark.parametrize(
    ("giver", "taker", "way"),
    [
        (CPU, CPU, "memory"),
        (CPU, CPU | {"node": "two"}, "tcp"),
        (GPU, CPU, "memory"),
        (CPU, GPU_ELSEWHERE, "tcp"),
        (GPU, GPU, "gpu_memory"),
        (GPU, ANOTHER_GPU, "nccl"),
        (GPU, GPU_ELSEWHERE, "nccl"),
        (GPU, ANOTHER_GPU | {"nccl": False}, "memory"),
    ],
)
def test_messages_stay_on_gpus_where_both_learners_are_on_one(
    giver: dict[str, object], taker: dict[str, object], way: str
) -> None:
    features, places = Route("a", "b", ("features",), 2**22), {"a": giver, "b": taker}
    assert choose_way(Plan(), features, places) == way
    on_hosts = "memory" if giver["node"] == taker["node"] else "tcp"
    assert choose_way(Plan(transport="direct_host"), features, places) == on_hosts
    # A few probabilities are not worth a group of NCCL.
    small = Route("a", "b", ("probabilities",), 2**15)
    assert choose_way(Plan(), small, places) == (way if way == "gpu_memory" else on_hosts)

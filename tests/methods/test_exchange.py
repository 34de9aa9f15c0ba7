"""Do the learners of a cohort call one another in the right order, and send what the formula says?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from engine import backbones
from engine.data import Facts
from engine.methods import Team, method_of
from engine.program import Program
from engine.recipes import DML, Recipe

# The images of a batch with labels and indices; class logits of float32; features after 4 of 8 blocks.
IMAGES = 12 * (64 + 8 + 8)
PREDICTIONS = 12 * 10 * 4
FEATURES = 12 * 4 * 4 * 4 * 4
FACTS = Facts(
    name="digits",
    num_classes=10,
    class_names=tuple("0123456789"),
    image_shape=(1, 8, 8),
    mean=(0.5,),
    std=(0.5,),
    sizes={"train": 44, "test": 20},
    fingerprint="0" * 64,
)
GRID: dict[str, Any] = {"peer_method": {"kind": "greedy", "num_segments": 2}}
EVERY_THIRD: dict[str, Any] = {"schedule": "codistillation", "exchange_interval": 3}

MakeTeam = Callable[..., Team]


@pytest.fixture
def make_team(tiny_recipe: Callable[..., Recipe]) -> MakeTeam:
    """A function: fields of the method, which it makes a team of."""

    def make(**fields: Any) -> Team:
        method: Any = TypeAdapter(DML).validate_python({"kind": "dml", **fields})
        recipe = tiny_recipe(method=method)
        return method_of(recipe).team(recipe, FACTS)

    return make


def calls(program: Program) -> list[str]:
    return [str(call) for call in program.calls]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


ALONE = """
    source next -> batch
    peer0 forward(batch)
    peer1 forward(batch)
    peer0 update
    peer1 update
"""
SIMULTANEOUS = """
    source next -> batch
    peer0 forward(batch) -> peer0_predictions
    peer1 forward(batch) -> peer1_predictions
    peer2 forward(batch) -> peer2_predictions
    peer0 update(peer1_predictions, peer2_predictions)
    peer1 update(peer0_predictions, peer2_predictions)
    peer2 update(peer0_predictions, peer1_predictions)
"""
SEQUENTIAL = """
    source next -> batch
    peer0 forward(batch) -> peer0_predictions
    peer1 forward(batch) -> peer1_predictions
    peer2 forward(batch) -> peer2_predictions
    peer0 update(peer1_predictions, peer2_predictions)
    peer0 restate(batch) -> peer0_predictions_restated
    peer1 update(peer0_predictions_restated, peer2_predictions)
    peer1 restate(batch) -> peer1_predictions_restated
    peer2 update(peer0_predictions_restated, peer1_predictions_restated)
"""
FEATURES_TOO = """
    source next -> batch
    peer0 forward(batch) -> peer0_predictions, peer0_pooled
    peer1 forward(batch) -> peer1_predictions, peer1_pooled
    peer0 update(peer1_predictions, peer1_pooled)
    peer0 restate(batch) -> peer0_predictions_restated, peer0_pooled_restated
    peer1 update(peer0_predictions_restated, peer0_pooled_restated)
"""
CUT = """
    source next -> batch
    peer0_segment0 forward(batch) -> peer0_segment0_features
    peer1_segment0 forward(batch) -> peer1_segment0_features
    peer0_segment0 update
    peer1_segment0 update
    peer0_segment1 forward(batch, peer0_segment0_features) -> peer0_segment1_predictions
    peer1_segment1 forward(batch, peer1_segment0_features) -> peer1_segment1_predictions
    peer0_segment1 update(peer1_segment1_predictions)
    peer1_segment1 update(peer0_segment1_predictions)
"""
CUT_AND_SEQUENTIAL = """
    source next -> batch
    peer0_segment0 forward(batch) -> peer0_segment0_features, peer0_segment0_predictions
    peer1_segment0 forward(batch) -> peer1_segment0_features, peer1_segment0_predictions
    peer0_segment0 update(peer1_segment0_predictions)
    peer0_segment0 restate(batch) -> peer0_segment0_predictions_restated
    peer1_segment0 update(peer0_segment0_predictions_restated)
    peer0_segment1 forward(batch, peer0_segment0_features) -> peer0_segment1_predictions
    peer1_segment1 forward(batch, peer1_segment0_features) -> peer1_segment1_predictions
    peer0_segment1 update(peer1_segment1_predictions)
    peer0_segment1 restate(batch, peer0_segment0_features) -> peer0_segment1_predictions_restated
    peer1_segment1 update(peer0_segment1_predictions_restated)
"""


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"peers": 3}, SIMULTANEOUS),
        ({"peers": 3, "schedule": "codistillation"}, SIMULTANEOUS),
        ({"peers": 3, "schedule": "sequential"}, SEQUENTIAL),
        ({"feature_weight": 0.5, "schedule": "sequential"}, FEATURES_TOO),
        (GRID, CUT),
        ({**GRID, "local_weight": 0.5, "schedule": "sequential"}, CUT_AND_SEQUENTIAL),
        ({"weight": 0.0}, ALONE),
        ({"weight": 0.0, "schedule": "sequential"}, ALONE),
        ({"weight": 0.0, **EVERY_THIRD}, ALONE),
        ({"weight": 0.0, **EVERY_THIRD, "exchange": "weights"}, ALONE),
    ],
)
def test_the_calls_of_a_step(fields: dict[str, Any], text: str, make_team: MakeTeam) -> None:
    (program,) = make_team(**fields).training
    assert calls(program) == lines(text)


def test_predictions_are_exchanged_in_the_last_of_every_three_steps(make_team: MakeTeam) -> None:
    team = make_team(**EVERY_THIRD)
    assert [calls(team.program(step)) == lines(ALONE) for step in range(7)] == [1, 1, 0, 1, 1, 0, 1]
    assert calls(team.program(5)) == [
        "source next -> batch",
        "peer0 forward(batch) -> peer0_predictions",
        "peer1 forward(batch) -> peer1_predictions",
        "peer0 update(peer1_predictions)",
        "peer1 update(peer0_predictions)",
    ]
    assert [words for _, words in team.training_programs] == ["2 of 3 steps", "1 of 3 steps"]


def test_weights_are_exchanged_before_the_last_of_every_three_steps(make_team: MakeTeam) -> None:
    team = make_team(**EVERY_THIRD, exchange="weights")
    assert [calls(team.program(step)) == lines(ALONE) for step in range(7)] == [1, 1, 0, 1, 1, 0, 1]
    first, *rest = lines(ALONE)
    assert calls(team.program(2)) == [
        first,
        "peer0 publish -> peer0_weights",
        "peer1 publish -> peer1_weights",
        "peer0 adopt(peer1_weights)",
        "peer1 adopt(peer0_weights)",
        *rest,
    ]


def test_features_alone_are_exchanged_at_the_interval_too(make_team: MakeTeam) -> None:
    team = make_team(weight=0.0, feature_weight=0.5, **EVERY_THIRD)
    assert [calls(team.program(step)) == lines(ALONE) for step in range(4)] == [True, True, False, True]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_calls_and_bytes_follow_the_formula(size: int, make_team: MakeTeam, tiny_recipe: Callable[..., Recipe]) -> None:
    """K forwards and K messages; K - 1 more of both where predictions are restated; none for a peer alone."""
    several = size > 1
    weights = sum(
        parameter.numel() for parameter in backbones.build(tiny_recipe().backbone, 10, (1, 8, 8), 0).parameters()
    )
    for fields, restated, sent in (
        ({}, 0, size * PREDICTIONS * several),
        ({"schedule": "sequential"}, size - 1, (2 * size - 1) * PREDICTIONS * several),
        ({"schedule": "codistillation", "exchange": "weights"}, 0, size * 4 * weights * several),
    ):
        (program,) = make_team(peers=size, **fields).training
        phases = Counter(call.phase for call in program.calls)
        assert (phases["forward"], phases["update"], phases["restate"]) == (size, size, restated)
        assert program.bytes_per_step == IMAGES + sent
    (program,) = make_team(peers=size, **GRID, local_weight=0.5).training
    assert program.bytes_per_step == IMAGES + size * (FEATURES + 2 * PREDICTIONS * several)


def test_the_peers_are_scored_one_by_one_and_together(make_team: MakeTeam) -> None:
    team = make_team(**GRID)
    assert calls(team.evaluation) == lines("""
        source next -> batch
        peer0_segment0 infer(batch) -> peer0_segment0_features
        peer0_segment1 score(batch, peer0_segment0_features) -> peer0_segment1_predictions
        peer1_segment0 infer(batch) -> peer1_segment0_features
        peer1_segment1 score(batch, peer1_segment0_features) -> peer1_segment1_predictions
        peer0_segment1 score_together(batch, peer0_segment1_predictions, peer1_segment1_predictions)
    """)
    assert {name: network.learners for name, network in team.networks.items()} == {
        "peer0": ("peer0_segment0", "peer0_segment1"),
        "peer1": ("peer1_segment0", "peer1_segment1"),
    }
    assert calls(make_team(peers=1).evaluation) == ["source next -> batch", "peer0 score(batch)"]

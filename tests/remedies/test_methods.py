"""Does what a refusal of a method says lead to a training?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

Words = list[str]
Prose = list[tuple[str, str]]

CODISTILLATION = "method.kind=dml method.exchange=weights method.schedule=codistillation"
CUT_PEERS = "method.kind=dml method.peer_method.kind=infopro"
PREDSIM_PEERS = "method.kind=dml method.peer_method.kind=predsim"
INCEPTION = "backbone.name=inception_v1 backbone.auxiliary_heads=true backbone.widths=null"
# Words that are refused, and what remedies in prose mean.
CASES: list[tuple[str, Prose]] = [
    ("method.kind=dhm method.measure_gradients_every=2 method.branch_learners=true", []),
    ("method.kind=dhm task.kind=segmentation", []),
    ("method.kind=dsn method.forks=nothing", [(r"Blocks are (\w+)", "method.forks={0}")]),
    ("method.kind=dhm method.num_branches=5", [(r"Expected 1 to (\d+)", "method.num_branches={0}")]),
    (
        "method.head=contrastive data.labelled_fraction=0.5",
        [("another method", "method.kind=dgl"), ("or head", "method.head=softmax")],
    ),
    (
        "method.kind=dml method.peer_method.kind=greedy method.peer_method.head=contrastive data.labelled_fraction=0.5",
        [],
    ),
    (
        "method.kind=dml method.feature_weight=1 method.peers=resnet14,mobilenet_v1_025 backbone.widths=null",
        [("set it to 0", "method.feature_weight=0"), ("backbones of one width", "method.peers=resnet14,resnet20")],
    ),
    (
        'method.kind=dml method.peers=[{"seed":1},{"seed":1}]',
        [("another seed", 'method.peers=[{{"seed":1}},{{"seed":2}}]'), ("leave the seeds out", "method.peers=2")],
    ),
    ("method.kind=dml method.exchange_interval=4", []),
    ("method.kind=dml method.exchange=weights", []),
    (f"{CODISTILLATION} method.peer_method.kind=infopro", []),
    (f"{CODISTILLATION} method.feature_weight=1", []),
    ("method.kind=dml method.local_weight=1", []),
    ("method.kind=dml method.local_weight=1 method.peer_method.kind=infopro method.peer_method.head=contrastive", []),
    (f"{CUT_PEERS} method.peer_method.classification_weight=0,1 method.local_weight=0.5", []),
    (f"{PREDSIM_PEERS} method.peer_method.similarity_weight=1 method.local_weight=0.5", []),
    (
        "method.reconstruction_weight=0 method.classification_weight=0",
        [("first and last value", "method.classification_weight=0.5,1")],
    ),
    ("method.kind=predsim method.prediction_features=2", [(r"at least (\d+)", "method.prediction_features={0}")]),
    ("method.kind=gkt method.top_k=20", [(r"expected 1 to (\d+)", "method.top_k={0}")]),
    (
        "method.kind=gkt method.knowledge_folder=/nowhere/at/all",
        [("can be written to", "method.knowledge_folder=/tmp"), ("or none", "method.knowledge_folder=null")],
    ),
    ("method.kind=gkt method.every_group=true method.store_learners=1", []),
    ("method.kind=mkf method.every_group=true method.measure_fraction_every=1", []),
    (
        "method.kind=st method.stage_choices=9,9",
        [(r"at most \((\d+), (\d+), (\d+)\)", "method.stage_choices={0},{1},{2}")],
    ),
    ("method.num_segments=99", [(r"use 1\.\.(\d+)", "method.num_segments={0}")]),
    ("method.cuts=layer1_0", [("name so many", "method.cuts=layer1_0,layer2_0")]),
    ("method.cuts=layer1_0,layer1_0", [("2 different ones", "method.cuts=layer1_0,layer1_1")]),
    ("method.cuts=layer2_0,layer1_0", []),
    ("method.cuts=layer1_0,classifier", [(r"Nearest: (\w+)", "method.cuts=layer1_0,{0}")]),
    ("method.cuts=balanced", [(r"balanced: (\w+)", "method.cuts={0}"), (r"(balanced_memory)", "method.cuts={0}")]),
    ("method.cuts=published", [("balanced_memory", "method.cuts=balanced_memory")]),
    ("method.kind=lwr plan.replicas=2", []),
    ("method.head=contrastive plan.replicas=2 plan.executor=ray", []),
    ("plan.replicas=2", []),
    (
        "plan.replicas=30",
        [
            ("lower plan.replicas", "plan.replicas=1"),
            ("change data.batch_size", "data.batch_size=44 plan.replicas=22 plan.executor=ray"),
        ],
    ),
    ("method.kind=dml plan.replicas=2 plan.executor=ray", []),
    ("data.labelled_fraction=0.5 plan.replicas=2 plan.executor=ray", []),
    ("numerics.device=cuda", []),
    ("numerics.precision=float16", []),
]
# The same, of networks that take a second to build.
LARGE: list[tuple[str, Prose]] = [
    (
        "method.kind=dhm method.measure_gradients_every=2 numerics.compile=true",
        [("set it to 0", "method.measure_gradients_every=0 numerics.compile=false")],
    ),
    ("method.branches.kind=dsl method.branches.branch_learners=true", []),
    ("method.kind=dml method.peer_method.kind=dhm method.peer_method.branch_learners=true", []),
    (f"{CUT_PEERS} method.peer_method.branches.kind=dhm method.peer_method.branches.branch_learners=true", []),
    (f"method.kind=dhm method.branch_learners=true {INCEPTION}", []),
    (f"method.kind=ps_kd {INCEPTION}", [("dml", "method.kind=dml"), ("one that cuts", "method.kind=greedy")]),
]
ROWS = [pytest.param(words.split(), prose, id=words) for words, prose in CASES]
LARGE_ROWS = [pytest.param(words.split(), prose, id=words) for words, prose in LARGE]


@pytest.mark.parametrize(("words", "prose"), ROWS)
def test_it_is_accepted(words: Words, prose: Prose, follow: Callable[..., None], start: Callable[..., None]) -> None:
    follow(start, words, prose)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "prose"), ROWS + LARGE_ROWS)
def test_it_trains(words: Words, prose: Prose, follow: Callable[..., None], train: Callable[..., None]) -> None:
    follow(train, words, prose)

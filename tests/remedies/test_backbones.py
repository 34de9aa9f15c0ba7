"""Does what a refusal of a network says lead to a training?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine import backbones
from engine.recipes import Backbone

Words = list[str]
Prose = list[tuple[str, str]]

PLAIN = "backbone.widths=null"
CASES: list[tuple[str, Prose]] = [
    ("backbone.name=resnt14", [(r"Nearest: (\w+)", "backbone.name={0}")]),
    ("backbone.name=resnet15", [(r"Nearest: (\w+), (\w+)", "backbone.name={0}"), (r", (\w+)\.$", "backbone.name={0}")]),
    (f"backbone.name=wrn_12_2 {PLAIN}", [(r"Nearest: (\w+)", "backbone.name={0}")]),
    (f"backbone.name=densenet_bc_9_12 {PLAIN}", [(r"Nearest: (\w+)", "backbone.name={0}")]),
    ("backbone.widths=4,4", [(r"\((\d+), (\d+), (\d+)\)\.$", "backbone.widths={0},{1},{2}")]),
    ("backbone.widths=8,4,4 backbone.shortcut=identity", [("do not shrink", "backbone.widths=4,4,8")]),
    ("backbone.dropout=0.5", []),
    ('backbone.options={"a":1}', []),
    (
        f"backbone.name=mobilenet_v1_025 {PLAIN} backbone.strides=1,2",
        [("or one of: (three), four", "backbone.strides={0}")],
    ),
    ("backbone.name=FILE:flat method.kind=greedy", []),
    (f"backbone.name=FILE:flatt {PLAIN}", [(r"Nearest: (\w+)", "backbone.name=FILE:{0} method.kind=greedy")]),
    (f"backbone.name=FILE {PLAIN}", [("file.py:function", "backbone.name=FILE:conv method.num_segments=2")]),
    (f"backbone.name=FILE:flat {PLAIN}", [("takes maps", "backbone.name=FILE:conv method.num_segments=2")]),
    (
        f"backbone.name=FILE:tokens {PLAIN} method.kind=greedy",
        [(r"\((\w+)\), or", "method.cuts={0} method.num_segments=2")],
    ),
    (f"backbone.name=FILE:tokens {PLAIN} method.kind=dsn", [(r"\((\w+)\), or", "method.forks={0}")]),
    (f"backbone.name=FILE:tokens {PLAIN} method.kind=dsl method.shape=linear method.num_branches=1", []),
    (f"backbone.name=FILE:tokens {PLAIN} method.kind=one", [("such as (\\w+)", "backbone.name={0}")]),
    (f"backbone.name=FILE:conv {PLAIN} method.kind=one", [("such as (\\w+)", "backbone.name={0}")]),
    (f"backbone.name=FILE:conv {PLAIN} method.kind=gkt", [("a deeper one", "backbone.name=wrn_16_1")]),
    (f"backbone.name=FILE:conv {PLAIN} method.kind=dhm", [(r"Expected 1 to (\d)", "method.num_branches={0}")]),
    (
        f"backbone.name=FILE:all_convolutions {PLAIN} method.kind=dml method.feature_weight=1",
        [("set it to 0", "method.feature_weight=0"), ("another backbone", "backbone.name=resnet14")],
    ),
    (
        f"backbone.name=FILE:all_convolutions {PLAIN} method.kind=dml method.distance_weight=1",
        [
            (r"^(method.distance_weight) compares .* set it to 0", "{0}=0"),
            ("another backbone", "backbone.name=resnet14"),
        ],
    ),
    (
        f"backbone.name=FILE:all_convolutions {PLAIN} method.kind=dml method.distance_weight=1 method.feature_weight=1",
        [(r"^(\S+) and (\S+) compare .* set both to 0", "{0}=0 {1}=0")],
    ),
    (
        f'backbone.name=FILE:conv {PLAIN} method.num_segments=2 backbone.options={{"size":3}}',
        [("or backbone.options", 'backbone.options={{"width":3}}')],
    ),
]
ROWS = [pytest.param(words.split(), prose, id=words) for words, prose in CASES]

FILE = """
from collections import OrderedDict
from torch import nn


def flat(num_classes, image_shape):
    pixels = image_shape[0] * image_shape[1] * image_shape[2]
    first = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 4), nn.ReLU())
    second, third = (nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2))
    return nn.Sequential(OrderedDict(first=first, second=second, third=third, end=nn.Linear(4, num_classes)))


def conv(num_classes, image_shape, width=4):
    first = nn.Sequential(nn.Conv2d(image_shape[0], width, 3, padding=1), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
    return nn.Sequential(OrderedDict(first=first, second=second, end=end))


def tokens(num_classes, image_shape):
    first = nn.Sequential(nn.Conv2d(image_shape[0], 4, 3, padding=1), nn.ReLU())
    second, third, fourth = nn.Flatten(2), nn.Linear(64, 8), nn.LayerNorm(8)
    end = nn.Sequential(nn.Flatten(), nn.Linear(32, num_classes))
    return nn.Sequential(OrderedDict(first=first, second=second, third=third, fourth=fourth, end=end))


def all_convolutions(num_classes, image_shape):
    first = nn.Sequential(nn.Conv2d(image_shape[0], 4, 3, padding=1), nn.ReLU())
    end = nn.Sequential(nn.Conv2d(4, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(first=first, end=end))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of networks of the user's own."""
    path = tmp_path / "networks.py"
    path.write_text(FILE)
    return path


def placed(words: Words, prose: Prose, file: Path) -> tuple[Words, Prose]:
    """Put the file's path where FILE stands."""
    inside = [word.replace("FILE", str(file)) for word in words]
    return inside, [(pattern, meant.replace("FILE", str(file))) for pattern, meant in prose]


@pytest.mark.parametrize(("words", "prose"), ROWS)
def test_it_is_accepted(
    words: Words, prose: Prose, file: Path, follow: Callable[..., None], start: Callable[..., None]
) -> None:
    follow(start, *placed(words, prose, file))


@pytest.mark.slow
@pytest.mark.parametrize(("words", "prose"), ROWS)
def test_it_trains(
    words: Words, prose: Prose, file: Path, follow: Callable[..., None], train: Callable[..., None]
) -> None:
    follow(train, *placed(words, prose, file))


def test_equal_weights_of_peers(tmp_path: Path, follow: Callable[..., None], start: Callable[..., None]) -> None:
    weights = tmp_path / "weights.pth"
    network = backbones.build(Backbone(name="resnet14", widths=(4, 4, 4)), 10, (1, 8, 8), 1)
    torch.save(backbones.plain_state(network, "resnet14"), weights)
    words = ["method.kind=dml", f"backbone.weights={weights}"]
    other = 'method.peers=[{{}},{{"optimizer":{{"kind":"sgd","learning_rate":0.1}}}}]'
    follow(start, words, [("leave backbone.weights out", "backbone.weights=null"), ("another backbone or opt", other)])

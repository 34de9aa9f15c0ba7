"""Does what a refusal of a network of one's own, or of its structure, says lead to a training?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import make_label_maps

Words = list[str]
Prose = list[tuple[str, str]]

WHOLE = "backbone.widths=null method.kind=end_to_end"
BRANCHED = "backbone.widths=null method.kind=dhm method.num_branches=1"
PLAIN = "backbone.name=FILE:conv"
ANOTHER = "backbone.name=resnet14"
CASES: list[tuple[str, Prose]] = [
    (
        f"backbone.name=FILE:needs_width {WHOLE}",
        [("Correct the file", PLAIN), (r"or (backbone\.options)\.$", '{0}={{"width":4}}')],
    ),
    (f"backbone.name=FILE:module {WHOLE}", [("Expected a torch.nn.Sequential itself", PLAIN)]),
    (f"backbone.name=FILE:single {WHOLE}", [("Expected at least 2", PLAIN)]),
    (
        f"backbone.name=FILE:shared {WHOLE}",
        [("make one for each", PLAIN), ("or put both into one child", "backbone.name=FILE:joined")],
    ),
    (f"backbone.name=FILE:outputs {WHOLE}", [("let the function use its num_classes", PLAIN)]),
    (
        f"backbone.name=FILE:last {WHOLE}",
        [
            (r"set feature_layout = \"(\w+)\" on it", 'backbone.options={{"stated":"{0}"}}'),
            (r"or let it give maps \[C, H, W\]", PLAIN),
        ],
    ),
    (
        f'backbone.name=FILE:last backbone.options={{"stated":"height_first"}} {WHOLE}',
        [(r"expected one of .*(channels_last)", 'backbone.options={{"stated":"{0}"}}')],
    ),
    (
        f'backbone.name=FILE:last backbone.options={{"stated":"tokens"}} {WHOLE}',
        [("correct feature_layout of the block", 'backbone.options={{"stated":"channels_last"}}')],
    ),
    (
        f'backbone.name=FILE:tokens backbone.options={{"before":3}} {WHOLE}',
        [(r"expected prefix_tokens \+ height \* width; correct them", 'backbone.options={{"before":0}}')],
    ),
    (
        f"backbone.name=FILE:one_size data.image_size=16 {WHOLE}",
        [("Choose another backbone", PLAIN), ("or image size", "data.image_size=8")],
    ),
    (f"backbone.name=FILE:pair {WHOLE}", [("Expected one tensor", PLAIN)]),
    (
        f"backbone.name=FILE:flat_end backbone.neck=batch_norm {WHOLE}",
        [("or choose another backbone", ANOTHER)],
    ),
    (
        f"backbone.name=FILE:one_block {BRANCHED}",
        [("divide it into more children", PLAIN), ("or choose another backbone", ANOTHER)],
    ),
    (f"backbone.name=FILE:scaled {BRANCHED}", [("or choose another backbone", ANOTHER)]),
    (f"backbone.name=FILE:residual {BRANCHED}", [("or choose another backbone", ANOTHER)]),
    (
        "backbone.name=FILE:conv backbone.widths=null method.kind=stochastic_depth",
        [
            ("choose a ResNet", ANOTHER),
            ("a wide ResNet", "backbone.name=wrn_16_1"),
            ("or set bypassable = True on such blocks", "backbone.name=FILE:ended"),
        ],
    ),
    (
        "method.cuts=published",
        [(r"balanced_layers, (\w+) or", "method.cuts={0}"), (r" or (balanced_time)\.", "method.cuts={0}")],
    ),
    (
        "backbone.name=FILE:pooled backbone.widths=null method.kind=dhm",
        [("let the last child pool and flatten what it gets", "backbone.name=FILE:pooled_last")],
    ),
    ("backbone.name=resnet18 backbone.stem=deep method.kind=end_to_end backbone.widths=null", []),
    (
        "backbone.widths=1000000000000000,4,4 method.kind=end_to_end",
        [("choose a smaller network", "backbone.widths=4,4,4")],
    ),
]
ROWS = [pytest.param(words.split(), prose, id=words) for words, prose in CASES]

FILE = """
from collections import OrderedDict

import torch
from torch import nn


def sequence(num_classes, first, second, width=4):
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
    return nn.Sequential(OrderedDict(first=first, second=second, end=end))


def block(channels, width=4):
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())


def conv(num_classes, image_shape):
    return sequence(num_classes, block(image_shape[0]), block(4))


def needs_width(num_classes, image_shape, width):
    return sequence(num_classes, block(image_shape[0], width), block(width, width), width)


def module(num_classes, image_shape):
    return nn.Linear(4, num_classes)


def single(num_classes, image_shape):
    return nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes)))


def shared(num_classes, image_shape):
    one = block(1)
    return sequence(num_classes, one, nn.Sequential(nn.Conv2d(4, 1, 1), one))


def joined(num_classes, image_shape):
    one = block(1)
    return sequence(num_classes, nn.Sequential(one, nn.Conv2d(4, 1, 1), one), block(4))


def outputs(num_classes, image_shape):
    return conv(num_classes + 1, image_shape)


class Moved(nn.Module):
    def __init__(self, *axes):
        super().__init__()
        self.axes = axes

    def forward(self, features):
        return features.permute(0, *self.axes)


def last(num_classes, image_shape, stated=None):
    first = nn.Sequential(block(image_shape[0]), Moved(2, 3, 1))
    if stated is not None:
        first.feature_layout = stated
    return sequence(num_classes, first, nn.Sequential(Moved(3, 1, 2), block(4)))


def tokens(num_classes, image_shape, before):
    first = nn.Sequential(block(image_shape[0]), nn.Flatten(2), Moved(2, 1))
    first.feature_layout, first.token_grid, first.prefix_tokens = "tokens", image_shape[1:], before
    return sequence(num_classes, first, nn.Sequential(Moved(2, 1), nn.Unflatten(2, image_shape[1:])))


def one_size(num_classes, image_shape):
    second = nn.Sequential(nn.Flatten(), nn.Linear(4 * 64, 4), nn.Unflatten(1, (4, 1, 1)))
    return sequence(num_classes, block(image_shape[0]), second)


class Pair(nn.Module):
    def forward(self, features):
        return features, features


def pair(num_classes, image_shape):
    return sequence(num_classes, nn.Sequential(block(image_shape[0]), Pair()), block(4))


def flat_end(num_classes, image_shape):
    end = nn.Sequential(nn.Conv2d(4, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(first=block(image_shape[0]), second=block(4), end=end))


def one_block(num_classes, image_shape):
    whole = sequence(num_classes, block(image_shape[0]), block(4))
    return nn.Sequential(OrderedDict(first=whole.first, end=whole.end))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, features):
        return features * self.scale


def scaled(num_classes, image_shape):
    return sequence(num_classes, block(image_shape[0]), nn.Sequential(nn.MaxPool2d(2), block(4), Scaled()))


class Residual(nn.Sequential):
    def forward(self, features):
        return features + super().forward(features)


def residual(num_classes, image_shape):
    return sequence(num_classes, block(image_shape[0]), nn.Sequential(nn.MaxPool2d(2), Residual(block(4))))

def pooled(num_classes, image_shape, last=False):
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    blocks = [block(image_shape[0]), *(nn.Sequential(nn.MaxPool2d(2), block(4)) for _ in range(2)), block(4)]
    blocks += [nn.Sequential(block(4), *([] if last else pool))]
    blocks += [nn.Sequential(*(pool if last else []), nn.Linear(4, num_classes))]
    return nn.Sequential(OrderedDict(zip(("first", "second", "third", "more", "fifth", "end"), blocks)))


def pooled_last(num_classes, image_shape):
    return pooled(num_classes, image_shape, last=True)


class Bypassed(Residual):
    bypassable = True


class Ended(Bypassed):
    @property
    def branch_end(self):
        return self[-1]


def bypassed(num_classes, image_shape, kind=Bypassed):
    return sequence(num_classes, block(image_shape[0]), kind(block(4)))


def ended(num_classes, image_shape):
    return bypassed(num_classes, image_shape, Ended)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of networks of the user's own."""
    path = tmp_path / "networks.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(("words", "prose"), ROWS)
def test_it_is_accepted(
    words: Words, prose: Prose, file: Path, follow: Callable[..., None], start: Callable[..., None]
) -> None:
    inside = [word.replace("FILE", str(file)) for word in words]
    follow(start, inside, [(pattern, meant.replace("FILE", str(file))) for pattern, meant in prose])


def test_blocks_whose_branch_is_scaled(file: Path, follow: Callable[..., None], train: Callable[..., None]) -> None:
    words = [f"backbone.name={file}:bypassed", "backbone.widths=null", "method.kind=stochastic_depth"]
    follow(train, words, [("Define a property branch_end of the block", f"backbone.name={file}:ended")])


def _peers(*strides: int) -> str:
    backbones = [f'{{"backbone":{{"name":"fcn_resnet18","output_stride":{stride}}}}}' for stride in strides]
    return f"method.peers=[{','.join(backbones)}]"


def _label_maps(root: Path) -> Words:
    made = make_label_maps(root, {"train": 4, "val": 1})
    words = ["data.name=label_maps", f"data.root={made}", "data.train_limit=null", "data.test_limit=null"]
    words += ["data.batch_size=2", "data.augmentation.crop_padding=0", "task.kind=segmentation"]
    return [*words, "backbone.name=fcn_resnet18", "backbone.widths=null", "method.kind=dml", _peers(8, 16)]


ALIKE = _peers(16, 16).replace("{", "{{").replace("}", "}}")


@pytest.mark.slow
def test_peers_that_predict_at_other_positions(
    tmp_path: Path, follow: Callable[..., None], start: Callable[..., None]
) -> None:
    prose = [(r"^method\.weight=1.0 compares .* as with the same backbone\.output_stride, or set", ALIKE)]
    follow(start, _label_maps(tmp_path / "maps"), prose)


@pytest.mark.slow
def test_peers_whose_local_heads_predict_at_other_positions(
    tmp_path: Path, follow: Callable[..., None], start: Callable[..., None]
) -> None:
    cut = ["method.peer_method.kind=greedy", "method.peer_method.cuts=layer3_0", "method.local_weight=1"]
    prose = [
        (r"^method\.local_weight=1.0 compares .* as with the same backbone\.output_stride, or set", ALIKE),
        (r"or set (method\.peer_method\.cuts) to blocks whose maps have one size", "{0}=layer2_0"),
    ]
    follow(start, [*_label_maps(tmp_path / "maps"), *cut, "method.weight=0"], prose)

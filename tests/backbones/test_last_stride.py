"""Does a ResNet whose last stage has stride 1 differ from the published one in the size of its last maps only?"""

from __future__ import annotations

import pytest

from engine import backbones
from engine.errors import RecipeError
from engine.recipes import Backbone

IMAGE = (3, 256, 128)


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 512), ("resnet50", 2048), ("resnext50_32x4d", 2048)])
def test_only_the_last_maps_are_larger(name: str, channels: int) -> None:
    published = backbones.build(Backbone(name=name), 7, IMAGE, seed=0)
    kept = backbones.build(Backbone(name=name, last_stride=1), 7, IMAGE, seed=0)
    shapes, larger = (backbones.feature_shapes(network, IMAGE) for network in (published, kept))
    assert shapes[-2] == (channels, 8, 4)
    assert larger[-2] == (channels, 16, 8)
    assert shapes[-1] == larger[-1] == (7,)
    before, after = published.state_dict(), kept.state_dict()
    assert before.keys() == after.keys()
    assert all(before[key].equal(after[key]) for key in before)
    same = backbones.build(Backbone(name=name, last_stride=2), 7, IMAGE, seed=0)
    assert backbones.feature_shapes(same, IMAGE) == shapes


def test_families_without_it_refuse_it() -> None:
    with pytest.raises(RecipeError, match="last_stride"):
        backbones.build(Backbone(name="resnet32", last_stride=1), 7, (3, 32, 32), seed=0)

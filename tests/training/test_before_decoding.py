"""Is a cut that cannot be refused before pictures are decoded?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import engine
from engine.recipes import DML, Backbone, Data, Greedy, Peer, Recipe

IN_PROCESS = engine.Plan(executor="process")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    for split, number in (("train", 6), ("test", 4)):
        for kind in ("cat", "dog"):
            (tmp_path / "root" / split / kind).mkdir(parents=True)
            for index in range(number):
                image = Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                image.save(tmp_path / "root" / split / kind / f"{index}.png")
    return tmp_path / "root"


def make(root: Path, **changes: Any) -> Recipe:
    data = Data(name="folder", root=str(root), batch_size=4, image_size=8)
    fields: dict[str, Any] = {
        "name": "tiny",
        "method": Greedy(num_segments=2),
        "backbone": Backbone(name="resnet14", widths=(4, 4, 4)),
        "data": data,
        "epochs": 1,
    }
    return Recipe(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": Greedy(num_segments=99)}, "method.num_segments=99"),
        ({"method": Greedy(num_segments=2, cuts=("layer9_9",))}, "cannot be cut after 'layer9_9'"),
        ({"method": DML(peers=(Peer(), Peer()), peer_method=Greedy(num_segments=99))}, "num_segments=99"),
    ],
)
def test_a_cut_that_cannot_be(
    changes: dict[str, Any], said: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: Any) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr("engine.data.storing.decoded", decode)
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "cache"))
    with pytest.raises(engine.RecipeError, match=said):
        engine.train(make(pictures, **changes), IN_PROCESS, tmp_path / "run")
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "run").exists()


def test_what_can_be_cut_trains(pictures: Path, tmp_path: Path) -> None:
    assert engine.train(make(pictures), IN_PROCESS, tmp_path / "run").status == "finished"

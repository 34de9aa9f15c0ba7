"""Do errors say the same after they have come from another process?"""

from __future__ import annotations

import pickle

import pytest

import engine.errors
from engine.backbones.layouts import LayoutError, feature_layout
from engine.data.pictures.picture_limits import PictureError
from engine.errors import EngineError, LearnerError, RayEnded

_CLASSES = [cls for cls in vars(engine.errors).values() if isinstance(cls, type) and issubclass(cls, EngineError)]
_OTHERS = [
    RayEnded("its raylet died", "try again"),
    PictureError("a.png", "is damaged", "make it anew"),
    LayoutError(feature_layout((3, 8, 8)), "the linear head", (type(feature_layout((8,))),)),
]


def _made(cls: type[EngineError]) -> EngineError:
    return cls("segment0", "it died", "a traceback") if issubclass(cls, LearnerError) else cls("what happened")


@pytest.mark.parametrize("error", [*map(_made, _CLASSES), *_OTHERS], ids=lambda error: type(error).__name__)
def test_an_error_says_the_same_in_another_process(error: EngineError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)

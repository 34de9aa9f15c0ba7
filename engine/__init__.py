"""An engine for parallel local learning: networks cut into segments that learn on devices of their own.

    import engine

    recipe = engine.load_recipe("infopro_digits")
    result = engine.train(recipe, engine.Plan(executor="process"))
    network = engine.load(result.run_dir).network()

Names are imported when they are first used, so that `import engine` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "engine.recipes": (
        "Augmentation",
        "Backbone",
        "Data",
        "Numerics",
        "Plan",
        "Recipe",
        "Recovery",
        "apply_overrides",
        "load_recipe",
    ),
    "engine.training": ("Result", "Run", "evaluate", "load", "train"),
    "engine.comparison": ("Comparison", "compare"),
    "engine.search": ("Sweep", "SweepResult", "load_sweep", "sweep"),
    "engine.errors": (
        "DataError",
        "DriverPreempted",
        "EngineError",
        "FolderHeld",
        "InputError",
        "LearnerError",
        "NotRecovered",
        "PlanError",
        "RayEnded",
        "RecipeError",
        "RunError",
        "VersionError",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Augmentation",
    "Backbone",
    "Comparison",
    "Data",
    "DataError",
    "DriverPreempted",
    "EngineError",
    "FolderHeld",
    "InputError",
    "LearnerError",
    "NotRecovered",
    "Numerics",
    "Plan",
    "PlanError",
    "RayEnded",
    "Recipe",
    "RecipeError",
    "Recovery",
    "Result",
    "Run",
    "RunError",
    "Sweep",
    "SweepResult",
    "VersionError",
    "apply_overrides",
    "compare",
    "evaluate",
    "load",
    "load_recipe",
    "load_sweep",
    "sweep",
    "train",
]

if TYPE_CHECKING:
    from engine.comparison import Comparison, compare
    from engine.errors import (
        DataError,
        DriverPreempted,
        EngineError,
        FolderHeld,
        InputError,
        LearnerError,
        NotRecovered,
        PlanError,
        RayEnded,
        RecipeError,
        RunError,
        VersionError,
    )
    from engine.recipes import (
        Augmentation,
        Backbone,
        Data,
        Numerics,
        Plan,
        Recipe,
        Recovery,
        apply_overrides,
        load_recipe,
    )
    from engine.search import Sweep, SweepResult, load_sweep, sweep
    from engine.training import Result, Run, evaluate, load, train


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Can a second task be added by a file of one's own, short, and without touching the engine?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import engine
from engine.data import open_source
from engine.errors import PlanError, RecipeError
from engine.methods import method_of
from engine.recipes import (
    DML,
    Adam,
    Augmentation,
    Backbone,
    EndToEnd,
    Greedy,
    InfoPro,
    OwnTask,
    Peer,
    Recipe,
)
from engine.runtimes.replicated import check_replicable
from engine.tasks import task_of

RAY_CPUS = 2

TOY = Path(__file__).with_name("toy_task.py")
PLAIN = Augmentation(crop_padding=0, flip=False)

TinyRecipe = Callable[..., Recipe]


def toy(tiny_recipe: TinyRecipe, **changes: Any) -> Recipe:
    return tiny_recipe(task=OwnTask(kind=f"{TOY}:Regression"), **changes)


def test_the_toy_task_and_its_method_are_short() -> None:
    code = [line for line in TOY.read_text().splitlines() if line.strip()]
    assert len(code) < 60


@pytest.mark.parametrize(
    ("method", "losses"),
    [
        (Greedy(num_segments=3), {"total", "squared_error"}),
        (f"{TOY}:Weighed", {"total", "squared_error"}),
        pytest.param(EndToEnd(), {"total", "squared_error"}, marks=pytest.mark.slow),
        pytest.param(
            InfoPro(num_segments=2, head="softmax"),
            {"total", "squared_error", "reconstruction"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_it_trains_with_heads_of_its_own_and_is_scored_by_its_headline(
    method: Any, losses: set[str], tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    recipe = toy(
        tiny_recipe,
        method={"kind": method} if isinstance(method, str) else method,
        backbone=Backbone(name="resnet8", widths=(8, 8, 8)),
        data={"train_limit": 300, "test_limit": 100, "augmentation": PLAIN},
        optimizer=Adam(learning_rate=0.01),
        epochs=6,
    )
    result = engine.train(recipe, engine.Plan(executor="process"), tmp_path / "run")
    assert set(result.metrics) == {"test/mean_absolute_error", "test/images"}
    # Digits 0 to 9: whoever always says 4.5 is 2.5 off, and who says 0, as an untrained network nearly does, 4.5.
    assert result.metrics["test/mean_absolute_error"] < 2.2
    run = engine.load(result.run_dir)
    assert engine.evaluate(run) == result.metrics
    assert run.network()[-1][-1].out_features == 1
    recorded = {record.name for record in run.metrics()}
    assert {name.removeprefix("loss/") for name in recorded if name.startswith("loss/")} == losses
    assert "accuracy" not in recorded


@pytest.mark.slow
def test_ray_gives_the_same_weights(tiny_recipe: TinyRecipe, tmp_path: Path, local_ray: None) -> None:
    words = [f"method.kind={TOY}:Weighed", "method.num_segments=2", "method.local_weight=0.25"]
    recipe, _ = engine.apply_overrides(toy(tiny_recipe, epochs=1), engine.Plan(), words)
    alone = engine.train(recipe, engine.Plan(executor="process"), tmp_path / "process")
    on_ray = engine.train(recipe, engine.Plan(executor="ray"), tmp_path / "ray")
    assert alone.weights_sha256 == on_ray.weights_sha256
    assert alone.metrics == on_ray.metrics


def test_peers_of_a_task_without_classes_learn_alone_or_from_features_only(tiny_recipe: TinyRecipe) -> None:
    source = open_source(tiny_recipe().data, 0)
    peers = (Peer(), Peer())
    with pytest.raises(RecipeError, match=r"method\.weight compares distributions, but .*: set method\.weight=0"):
        method_of(recipe := toy(tiny_recipe, method=DML(peers=peers))).team(recipe, source.facts)
    recipe = toy(tiny_recipe, method=DML(peers=peers, weight=0.0, feature_weight=1.0))
    team = method_of(recipe).team(recipe, source.facts)
    assert [name for name in team.training[0].messages if "predictions" in name] == []
    # Regression has no common score.
    assert "score_together" not in {call.phase for call in team.evaluation.calls}


def test_what_a_file_makes_beside_its_task_has_values_wherever_it_is_read_first(
    tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom engine.tasks import ClassificationTask\nWEIGHTS = torch.linspace(0, 1, 3)\n"
        "class Mine(ClassificationTask):\n    weights, half = WEIGHTS, WEIGHTS[1].item()"
    )
    recipe = tiny_recipe(task=OwnTask(kind=f"{path}:Mine"))
    facts = open_source(recipe.data, 0).facts
    with torch.device("meta"):
        assert task_of(recipe, facts).half == 0.5  # type: ignore[attr-defined]
    assert task_of(recipe, facts).weights.tolist() == [0.0, 0.5, 1.0]  # type: ignore[attr-defined]


def test_replicas_of_a_task_with_further_terms_are_refused_by_what_the_task_has(
    tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from engine.objectives import ConfidencePenalty\nfrom engine.tasks import ClassificationTask\n"
        "class Mine(ClassificationTask):\n    def further_terms(self):\n"
        "        return {'confidence_penalty': (ConfidencePenalty(), 0.1)}"
    )
    recipe = tiny_recipe(task=OwnTask(kind=f"{path}:Mine"), method=Greedy(num_segments=2))
    facts = open_source(recipe.data, 0).facts
    with pytest.raises(PlanError) as caught:
        check_replicable(recipe, facts, engine.Plan(replicas=2))
    assert f"task.kind={path}:Mine (confidence_penalty) may compare all images of a batch" in str(caught.value)
    assert str(caught.value).endswith("; set plan.replicas=1")
    check_replicable(recipe, facts, engine.Plan(replicas=1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("class Mine: pass", "Mine is no task; expected a subclass of engine.tasks.Task"),
        (
            "from engine.tasks import Task\nclass Mine(Task):\n    outputs = 1",
            "does not say what a task must: define final_term, local_term, score, headline",
        ),
        (
            "from engine.tasks import ClassificationTask\nclass Mine(ClassificationTask):\n"
            "    def __init__(self, settings, facts):\n        self.scale = settings.options['scale']",
            "Mine(settings, facts) failed with KeyError: 'scale'; correct the file, or task.options={}",
        ),
    ],
)
def test_what_is_no_task_is_refused(content: str, message: str, tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(content)
    recipe = tiny_recipe(task=OwnTask(kind=f"{path}:Mine"))
    with pytest.raises(RecipeError) as caught:
        task_of(recipe, open_source(recipe.data, 0).facts)
    assert str(caught.value).startswith(f"task.kind={path}:Mine: ")
    assert message in str(caught.value)

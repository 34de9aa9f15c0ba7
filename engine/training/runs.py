"""Opens a run folder again: its recipe, its metrics, its network, and its score."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from engine.checkpoints import Checkpoint, read_checkpoint, require_checkpoint
from engine.data import Facts
from engine.errors import RecipeError, RunError
from engine.methods import Network, assemble, trained_team
from engine.paths import absolute, check_target
from engine.reading import naming
from engine.recipes import Numerics, Plan, Recipe, apply_overrides, load_recipe, weights_identity, with_absolute_paths
from engine.recipes.arguments import check_argument, check_place
from engine.tasks import task_of
from engine.tracking import Record, read_metrics
from engine.training.environment import changed_files
from engine.training.features import Features, draw_queries_of, write_features
from engine.training.reports import score_name, scores_by_network
from engine.training.session import Session


# Two are the same where they are one: of tensors nobody can say in a word whether they are equal.
@dataclass(frozen=True, eq=False)
class Run:
    """A finished or interrupted run.

    Attributes:
        path: the run folder.
        recipe: what was trained.
        checkpoint: the newest complete one, or the one that was chosen.
        facts: what is known of the images that it was trained on.
    """

    path: Path
    recipe: Recipe
    checkpoint: Checkpoint
    facts: Facts

    @property
    def networks(self) -> Mapping[str, Network]:
        """The deployed networks, by name."""
        return trained_team(self.recipe, self.facts).networks

    @property
    def warnings(self) -> list[str]:
        """Which of the user's own files have changed since the checkpoint was written, in words: a line for each."""
        return [
            f"{self.path}: {change} since step {self.checkpoint.step:,}, whose weights are taken with the file of now: "
            "bring it back as it was, or train anew"
            for change in changed_files(self.checkpoint.values.get("environment"), self.recipe)
        ]

    @property
    def numerics_here(self) -> Numerics:
        """How its networks are scored on this machine, wherever they were trained.

        On what is here, not compiled, and in float32 where float16 has no GPU.
        """
        found = dataclasses.replace(self.recipe.numerics, device="auto", compile=False)
        no_float16 = found.precision == "float16" and not torch.cuda.is_available()
        return dataclasses.replace(found, precision="float32") if no_float16 else found

    @property
    def diverged(self) -> dict[str, str]:
        """Why learners have left their cohort, by name."""
        found = {name: state.extra.get("diverged") for name, state in self.checkpoint.states.items()}
        return {name: reason for name, reason in found.items() if reason is not None}

    def deployed(self, name: str | None = None) -> Network:
        """Return what a deployed network is made of.

        Args:
            name: which of several, such as ``peer1``; need not be given where there is one.

        Raises:
            RunError: there is no network of this name.
        """
        networks = self.networks
        if name is None and len(networks) == 1:
            name = next(iter(networks))
        if name is None:
            raise RunError(f"{self.path}: has several networks, {', '.join(networks)}: say which, as in --peer 0")
        if name not in networks:
            raise RunError(f"{self.path}: has no network {name!r}; expected one of {', '.join(networks)}")
        return networks[name]

    def network(self, name: str | None = None) -> nn.Sequential:
        """Return a deployed network, in evaluation mode on the CPU, with neither heads nor decoders; as `deployed`."""
        return assemble(self.deployed(name), self.facts, self.checkpoint.states)

    def metrics(self) -> list[Record]:
        """Return all records of the run, in the order of their writing."""
        return read_metrics(self.path)


def load(run_dir: str | Path) -> Run:
    """Open a run folder, or one of its checkpoints; also while the run still trains.

    Args:
        run_dir: a run folder, of which the newest complete checkpoint is taken; or one of its checkpoints, such as
            ``RUN/checkpoints/step-000123``.

    Raises:
        RunError: it is neither, or holds no complete checkpoint; or the checkpoint is damaged, or not there.
        VersionError: a newer engine has written it.
    """
    check_place("run_dir", run_dir, RunError)
    path = absolute(run_dir, "run_dir", RunError)
    # The folder itself first: runs may lie in a folder that somebody has called checkpoints.
    places = [path, path.parents[1]] if path.parent.name == "checkpoints" else [path]
    folder = next((place for place in places if _is_run_folder(place)), None)
    if folder is None:
        raise RunError(
            f"{path}: is no run folder: there is no recipe.json in {' or '.join(['it', *map(str, places[1:])])}; give "
            "the folder of a training, or one of its checkpoints"
        )
    recipe = load_recipe(folder / "recipe.json")
    checkpoint = require_checkpoint(folder / "checkpoints") if folder == path else read_checkpoint(path)
    return Run(folder, recipe, checkpoint, Facts.from_json(checkpoint.values["facts"]))


def check_run(run: object) -> None:
    """Refuse what is no run, such as the path of one; RunError says how to open it."""
    which = os.fspath(run) if isinstance(run, str | os.PathLike) else "runs/NAME"
    check_argument("run", run, Run, RunError, f"engine.load({which!r}) gives one")


def _is_run_folder(path: Path) -> bool:
    with naming(path, RunError):
        try:
            os.lstat(path / "recipe.json")
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def evaluate(
    run: Run,
    data_root: str | None = None,
    changes: Sequence[str] = (),
    save_features: str | Path | None = None,
    draw_queries: str | Path | None = None,
) -> dict[str, float]:
    """Score a run's networks on all of its evaluation images, as training does, but as `Run.numerics_here` computes.

    The checkpoint is enough: what the training started from or learned from need not exist any more.

    Args:
        run: what to evaluate.
        data_root: where the images lie now; where the recipe says unless given.
        changes: ``field=value`` of fields that have no influence on the weights, such as
            ``task.evaluation_flip=true``.
        save_features: a .parquet file for the features that the task compares; see `engine.training.features`.
        draw_queries: a .png file with some queries of the test split, and the first ten pictures that each network
            finds for them; of several networks, the first one's.

    Returns:
        values such as ``test/accuracy`` (0 to 1) and ``test/loss`` (nats).

    Raises:
        DataError: the images are missing; RunError: they are not those of the run, or the task compares no features.
        RecipeError: there is no such field, or another network would have been trained with it.
    """
    check_run(run)
    saved, drawn = _targets(run, save_features, draw_queries)
    recipe = evaluated_recipe(run, changes)
    recipe = dataclasses.replace(recipe, numerics=run.numerics_here)
    if data_root is not None:
        recipe = with_absolute_paths(dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=data_root)))
    with Session(recipe, Plan(executor="process"), trained=True) as session:
        source = session.source
        if source.facts.fingerprint != run.facts.fingerprint:
            raise RunError(
                f"{run.path}: was trained on other images than data.root={recipe.data.root} holds "
                f"({run.facts.describe()} then, {source.facts.describe()} now); give the same images and labels"
            )
        team, runtime = session.team, session.start()
        missing = [name for name in team.names if name not in run.checkpoint.states]
        if missing:
            raise RunError(f"{run.checkpoint.path}: holds no state of {', '.join(missing)}; it is of another recipe")
        # Nothing is learned here, so nothing need be remembered, which may be gigabytes.
        runtime.restore({n: dataclasses.replace(s, knowledge={}) for n, s in run.checkpoint.states.items()})
        scores: dict[str, float] = {}
        features: Features = {}
        session.recalibrate()
        task = task_of(recipe, source.facts)
        for split in task.evaluation_splits:
            if not source.facts.sizes.get(split):
                continue
            for batch in source.evaluation_batches(split):
                for version in task.evaluation_versions(batch):
                    runtime.submit(team.evaluation, version)
            if saved is not None or drawn is not None:
                answers = runtime.ask("features").result()
                features[split] = {name: kept for found in answers.values() for name, kept in found.items()}
            for network, values in scores_by_network(runtime.ask("score").result()).items():
                scores |= {score_name(network, split, name): value for name, value in values.items()}
        if saved is not None:
            write_features(saved, features)
        if drawn is not None:
            draw_queries_of(drawn, run.recipe.name, features["test"], source)
        return scores


def evaluated_recipe(run: Run, changes: Sequence[str]) -> Recipe:
    """Return the recipe of a run with fields that say how it is evaluated.

    Args:
        run: what was trained.
        changes: ``field=value`` each.

    Raises:
        RecipeError: there is no such field, or another network would have been trained with it.
    """
    recipe, plan = apply_overrides(run.recipe, Plan(), changes)
    if weights_identity(recipe) != weights_identity(run.recipe) or plan != Plan():
        also = "".join(f" or task.{name}" for name in run.recipe.task.evaluation_fields[:1])
        raise RecipeError(
            f"{' '.join(changes)}: an evaluation takes only fields that have no influence on the weights, such as "
            f"data.evaluation_batch_size{also}: train anew for other ones"
        )
    return recipe


def _targets(run: Run, save: str | Path | None, draw: str | Path | None) -> tuple[Path | None, Path | None]:
    found: list[Path | None] = []
    for given, suffix, option in ((save, ".parquet", "--save-features"), (draw, ".png", "--draw-queries")):
        if given is None:
            found.append(None)
            continue
        if task_of(run.recipe, run.facts).scored != "features":
            raise RunError(
                f"{option} {given}: task.kind={run.recipe.task.kind} compares no features, so there are none to write; "
                f"leave {option} out"
            )
        found.append(absolute(given, option, RunError))
        check_target(absolute(given, option, RunError), option, (suffix,), RunError)
    return found[0], found[1]

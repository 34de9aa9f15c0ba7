"""A session: the source, the team and the runtime of a recipe, opened in this order and closed in any case."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from engine.data import Facts, Source, open_source
from engine.errors import PlanError
from engine.methods import Team, method_of, trained_team
from engine.recipes import Plan, Recipe, Segmented, recipe_to_dict, with_modelled_cuts, without_files
from engine.recipes.own_files import check_unchanged, own_files
from engine.recipes.own_methods import check_as_made
from engine.runtimes import Reservations, Runtime, open_runtime
from engine.timing import chosen_recipe
from engine.training.matches import check_matches

# Learners draw from torch's own generators and set its threads, of which a process has one each, as of private Rays.
_ALONE = threading.RLock()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep sessions of other threads out; one inside of another takes turns with it."""
    if not _ALONE.acquire(blocking=False):
        raise PlanError(
            "another training, evaluation or preview runs in a thread of this process, and torch's random numbers and "
            "settings, which belong to the whole process, would be mixed: give each a process of its own, as "
            "engine.compare does, or one after the other"
        )
    try:
        yield
    finally:
        _ALONE.release()


class Session:
    """What a recipe is trained, scored or looked at with.

    Entered, it has its images. Learners and programs are planned when they are first asked for, and live from `start`
    on. All that was opened is closed when it is left, by an error too; it is entered once.

    Args:
        recipe: what is trained.
        plan: where its learners live.
        progress: told what is done to prepare the images, and the fraction that is done; nobody unless given.
        check: whether all pictures are looked at first, to find damaged ones; for a training alone.
        trained: whether the weights come from a checkpoint, so that no file is needed from which the training started
            or learned.

    Attributes:
        recipe: as given, until `choose_cuts`; `without_files` if it was trained.
        source: of the images.
        reservations: of its learners, however often they are started.
    """

    source: Source

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        progress: Callable[[str, float], None] | None = None,
        *,
        check: bool = False,
        trained: bool = False,
    ) -> None:
        self.recipe, self.plan = without_files(recipe) if trained else recipe, plan
        self._plan_team = trained_team if trained else _team_to_train
        self.reservations = Reservations()
        self._progress, self._check = progress, check
        self._opened = contextlib.ExitStack()
        self._started = contextlib.ExitStack()
        self._runtime: Runtime | None = None
        self._own_files: dict[str, str] | None = None

    def __enter__(self) -> Session:
        """Open the images.

        Raises:
            RecipeError, DataError: they cannot be used.
            PlanError: a session of another thread is open.
        """
        self._opened.enter_context(_alone())
        try:
            self.source = open_source(
                self.recipe.data,
                self.recipe.seed,
                self._progress,
                paired_images=self.recipe.method.paired_images,
                before_decoding=_network_check(self.recipe),
                check=self._check,
            )
            self._opened.callback(self.source.close)
            self._opened.callback(self._started.close)
            check_matches(self.recipe, self.source)
        except BaseException:
            self._opened.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def choose_cuts(self, tell: Callable[[str], None]) -> list[str]:
        """Put the names of blocks into a recipe whose cuts are to be measured; before the team is planned.

        Args:
            tell: told what is timed and chosen.

        Returns:
            what was told, for a log that does not exist yet.

        Raises:
            RecipeError, PlanError: nothing can be chosen; see `engine.timing.chosen_recipe`.
        """
        told: list[str] = []

        def say(line: str) -> None:
            told.append(line)
            tell(line)

        self.recipe = chosen_recipe(self.recipe, self.source.facts, self.plan, say)
        return told

    @functools.cached_property
    def team(self) -> Team:
        """Learners and programs of the recipe; RecipeError says why there can be none."""
        return self._plan_team(self.recipe, self.source.facts)

    @property
    def runtime(self) -> Runtime:
        """The learners, which `start` has started."""
        assert self._runtime is not None, "the session was not started"
        return self._runtime

    def start(self) -> Runtime:
        """Start the learners, with their initial weights; those of an earlier start are let go first.

        Raises:
            RecipeError, PlanError: there can be no such learners, or not on this machine or cluster; or files of the
                user's own have changed since they were first started.
            LearnerError: one could not be built.
        """
        self._started.close()
        values = recipe_to_dict(self.recipe)
        if self._own_files is None:
            check_as_made(self.recipe.method)
            self._own_files = own_files(values)
        check_unchanged(self._own_files, values)
        self._runtime = open_runtime(
            self.recipe,
            self.source.facts,
            self.team,
            self.source.steps_per_epoch(),
            self.plan,
            self.reservations,
        )
        self._started.callback(self._runtime.close)
        return self._runtime

    def recalibrate(self) -> None:
        """Measure batch-norm statistics anew, for methods whose training leaves others behind.

        Always from the same training images, so that the same weights get the same statistics however often and
        whenever they are scored; training itself uses the statistics of each batch.
        """
        if self.team.recalibration is not None:
            for batch in self.source.recalibration_batches(self.team.recalibration_images):
                self.runtime.submit(self.team.recalibration, batch)


def _team_to_train(recipe: Recipe, facts: Facts) -> Team:
    return method_of(recipe).team(recipe, facts)


def _network_check(recipe: Recipe) -> Callable[[tuple[str, ...], tuple[int, int, int]], None]:
    """Return what builds and cuts a recipe's network, to be called when classes and image shape are known.

    To decode a large set takes minutes, after which a cut that cannot be would have been found. Only methods that cut
    are looked at, since only what they refuse depends on neither the pixels nor the number of images.
    """
    inside = recipe.method.inside
    recipe = with_modelled_cuts(recipe)

    def check(class_names: tuple[str, ...], image_shape: tuple[int, int, int]) -> None:
        if not isinstance(inside, Segmented):
            return
        channels = image_shape[0]
        facts = Facts(
            name=recipe.data.name,
            num_classes=len(class_names),
            class_names=class_names,
            image_shape=image_shape,
            # Not known yet, and without influence on what is built and cut.
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
            sizes={"train": recipe.data.batch_size},
            fingerprint="",
        )
        _team_to_train(recipe, facts)

    return check

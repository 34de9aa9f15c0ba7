"""The errors a user can meet, and the exit code that each one ends with.

Every message names the field or file, what was found, what was expected and the remedy.
"""

from __future__ import annotations

EXIT_SUCCESS = 0
EXIT_BUG = 1
EXIT_BAD_INPUT = 2
EXIT_LEARNER_FAILED = 3
EXIT_INTERRUPTED = 130

GOES_ON = "the newest checkpoint is whole; the same command goes on from it"
"""What an error says, in brackets at its end, that ends a training without fault of the user's."""

BEGINS_AGAIN = "there is no checkpoint yet; the same command begins again"
"""The same, before there is a checkpoint."""

GOES_ON_IF_ANY = "the same command goes on from the newest checkpoint, if there is one"
"""The same, from somebody who knows of no checkpoint."""

NOTHING_TRAINED = "this command has trained nothing; the same command tries again"
"""The same, before a training has begun or gone on."""

LESS_MEMORY = (
    "set numerics.recompute=blocks, with which the run goes on to the same weights; otherwise lower data.batch_size, "
    "or let a method that cuts the network cut it into more segments"
)
"""What can be done about too little memory; first, what costs no run."""


class EngineError(Exception):
    """The root of all errors that the engine raises on purpose."""

    exit_code = EXIT_BUG


class InputError(EngineError):
    """Something the user gave cannot be used as it is."""

    exit_code = EXIT_BAD_INPUT


class RecipeError(InputError):
    """A recipe, or an override of one of its fields, is wrong."""


class NoFolderGiven(RecipeError):
    """Images are read from a folder, and the recipe names none."""


class OwnFileChanged(RecipeError):
    """A file of the user's own is another one than that of which a run's learners were made."""


class PlanError(InputError):
    """A plan asks for something that this machine or cluster does not have."""


class DataError(InputError):
    """A data set is missing, incomplete, damaged, or not what the recipe expects."""


class RunError(InputError):
    """A run folder or checkpoint cannot be used."""


class FolderHeld(RunError):
    """Another process works in the folder: nothing is wrong with it, and it may be had later."""


class NotWritten(RunError):
    """The disk did not take a file of a run; it may yet."""


class VersionError(InputError):
    """A file was written by a newer engine, in a form that this one does not know."""


class LearnerError(EngineError):
    """A learner failed while it worked.

    Attributes:
        learner: name of the learner, such as ``segment0``.
        cause: one line that says what happened.
        details: the traceback of the original error, for the log.
    """

    exit_code = EXIT_LEARNER_FAILED

    def __init__(self, learner: str, cause: str, details: str = "") -> None:
        # All three go to the base class, so the error survives being pickled across processes.
        super().__init__(learner, cause, details)
        self.learner = learner
        self.cause = cause
        self.details = details

    def __str__(self) -> str:
        return f"learner {self.learner}: {self.cause}"


class LearnerDiverged(LearnerError):
    """A loss is no longer finite, and nobody goes on without the learner."""


class LearnerLost(LearnerError):
    """A learner's process or node has ended: nothing is known against what it did, and it may be tried again."""


class LearnersAway(EngineError):
    """Learners are away that an evaluation waits for, and an end is wanted sooner: it is left for another time."""


class LearnerPreempted(LearnerLost):
    """A learner's node is taken away by its cluster, which has given notice of it; what it did may be gone on with."""


class DriverPreempted(EngineError):
    """The node on which the training itself runs is taken away by its cluster; a checkpoint was made before."""

    exit_code = EXIT_LEARNER_FAILED


class RayEnded(EngineError):
    """A private Ray has ended under its training: nothing is known against what the learners did.

    Args:
        what: which of its processes ended, and how.
        goes_on: what the user can do about it.
    """

    exit_code = EXIT_LEARNER_FAILED

    def __init__(self, what: str, goes_on: str = GOES_ON) -> None:
        # Both go to the base class, so that the error survives being pickled across processes.
        super().__init__(what, goes_on)
        self.what = what
        self.goes_on = goes_on

    def __str__(self) -> str:
        return f"the private Ray is gone: {self.what} ({self.goes_on})"


class NotRecovered(EngineError):
    """A team that has lost a learner or its Ray could not be started again in time."""

    exit_code = EXIT_LEARNER_FAILED


class Interrupted(KeyboardInterrupt):
    """A signal that means what Ctrl-C does has come.

    A class of its own, because Python ends with SIGINT rather than with an exit code if a plain KeyboardInterrupt was
    raised inside of exec(), as by an import, also where it was caught.
    """

"""Mirror: a copy of a run folder elsewhere, from which another machine can go on.

The copy is a run folder like any other. What is there is whole at any moment, or can be seen not to be, because files
are sent in this order: recipe.json; a new checkpoint's files; metrics and all others, which so reach at least as far as
any checkpoint; the checkpoint's MANIFEST.json; summary.json. Only then are old checkpoints removed, manifest first.
Object stores show an object when all of it has arrived; in a folder that other machines share, files are renamed into
place. Knowledge that a checkpoint shares with the one before is copied where it is, not sent again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
from pyarrow.fs import LocalFileSystem

from engine.atomic import UNLOCKED_SECONDS, remove_unfinished
from engine.checkpoints.manifests import MANIFEST
from engine.data.remote.fetching import download, fetched_aside
from engine.data.remote.uris import (
    FileTooLargeError,
    Place,
    connect,
    first_words,
    is_uri,
    list_files,
    storage_errors,
    without_secret,
)
from engine.errors import PlanError, RecipeError, RunError, VersionError
from engine.reading import JSON_BYTES
from engine.recipes import Recipe, load_recipe, recipe_identity, with_cuts_of
from engine.training.folder import Resume
from engine.training.mirror_files import (
    CHECKPOINTS,
    Digests,
    Signature,
    checkpoints_in,
    checkpoints_of,
    other_files,
    refuse_links,
    send_file,
    signature_of,
    step_of,
)

_RECIPE, _SUMMARY = "recipe.json", "summary.json"
_PROBE = ".probe"


def open_mirror(
    address: str | None, folder: Path, recipe: Recipe, resume: Resume, tell: Callable[[str], None]
) -> Mirror | None:
    """Return the copy of a run folder; when only the copy has a checkpoint yet, it is fetched first.

    Args:
        address: value of plan.mirror.
        folder: the run folder, which may not exist yet.
        recipe: what is trained.
        resume: ``never`` refuses a copy that holds a run already.
        tell: told what is fetched.

    Returns:
        None when there is no address.

    Raises:
        PlanError: nothing can be written there, or it is no place for a copy.
        RunError: it holds another run, or one that is further than the folder.
    """
    if address is None:
        return None
    with storage_errors("plan.mirror", address, PlanError):
        local = os.path.abspath(os.path.expanduser(address))
        place = connect(address) if is_uri(address) else Place(LocalFileSystem(), local)
        mirror = Mirror(place, folder, without_secret(address), tell)
        mirror.prepare(recipe, resume, tell)
    return mirror


class Mirror:
    """A copy of a run folder at another place.

    Args:
        place: where the copy is.
        folder: the run folder.
        name: how the place is called in messages.
        tell: told what is left out.
    """

    def __init__(self, place: Place, folder: Path, name: str, tell: Callable[[str], None]) -> None:
        self._place, self._folder, self._name, self._tell = place, folder, name, tell
        self._links: set[str] = set()
        self._sent: dict[str, Signature] = {}
        self._whole: dict[str, Digests] = {}
        self._step: int | None = None

    def prepare(self, recipe: Recipe, resume: Resume, tell: Callable[[str], None]) -> None:
        """Find out whether the copy can be written and belongs to the run, and fetch it if the run goes on from it.

        Raises:
            PlanError, RunError: see `open_mirror`.
            OSError, pyarrow.ArrowException: the place cannot be read or written.
        """
        self._refuse_nesting()
        self._probe()
        if not self._place.is_file(_RECIPE):
            if any(not name.startswith(".") for name in self._place.names()):
                raise PlanError(
                    f"plan.mirror={self._name}: holds files but no {_RECIPE}, so it is no copy of a run; give each run "
                    "a place of its own"
                )
            return
        self._check_recipe(recipe)
        if resume == "never":
            raise RunError(
                f"plan.mirror={self._name}: holds a run already, and a new one must not overwrite it; give another "
                "plan.mirror, or --resume auto"
            )
        there = [name for name in self._checkpoints_there() if self._place.is_file(f"{name}/{MANIFEST}")]
        here = list(checkpoints_in(self._folder))
        if not there or (here and step_of(here[-1]) >= step_of(there[-1])):
            return
        if here or (self._folder / _RECIPE).exists():
            raise RunError(
                f"plan.mirror={self._name}: is further ({there[-1]}) than {self._folder} "
                f"({here[-1] if here else 'no checkpoint'}); move that folder away to go on from the mirror, or give "
                "another plan.mirror"
            )
        self._fetch(there, tell)

    def update(self, step: int) -> str | None:
        """Bring the copy up to date after a checkpoint.

        Args:
            step: of the newest checkpoint; later ones are damaged or overtaken.

        Returns:
            a warning if that failed; the next update makes up for it.
        """
        self._step = step
        failure = self._try(step)
        return failure and f"{failure}; the run goes on, and the mirror is tried again after the next checkpoint"

    def finish(self, step: int | None = None) -> str | None:
        """Bring the copy up to date when a run has ended or failed.

        Args:
            step: of its newest checkpoint; that of the last update unless given. Where there is none, nothing is done.

        Returns:
            a warning if that failed.
        """
        self._step = self._step if step is None else step
        failure = self._try(self._step) if self._step is not None else None
        return failure and f"{failure}; give the same command again when the mirror can be reached"

    def _try(self, step: int) -> str | None:
        try:
            self._copy(step)
        except (OSError, RunError, pyarrow.ArrowException) as error:
            return (
                f"plan.mirror={self._name}: lacks what is new at step {step}, which is whole in {self._folder} "
                f"({first_words(error)})"
            )
        return None

    def _copy(self, step: int) -> None:
        self._tidy()
        here, there = checkpoints_in(self._folder, step), self._checkpoints_there()
        others = self._others()
        self._send(_RECIPE)
        # Before metrics that do not reach that far take the place of those that do.
        for name in there:
            if step_of(name) > step:
                self._remove(name)
        self._whole |= {name: digests for name, digests in here.items() if self._has(name)}
        new = [name for name in here if name not in self._whole]
        for name in new:
            self._send_checkpoint(name, here[name])
        for name in others:
            if name != _SUMMARY:
                self._send(name)
        for name in new:
            send_file(self._place, self._folder, f"{name}/{MANIFEST}")
            self._whole[name] = here[name]
        if _SUMMARY in others:
            self._send(_SUMMARY)
        for name in there:
            if not (self._folder / name).exists() and step_of(name) <= step:
                self._remove(name)
        for name in set(self._sent) - set(others):
            self._place.remove_file(name)
            del self._sent[name]

    def _tidy(self) -> None:
        """Remove what processes that were killed while they wrote into a folder left there."""
        if isinstance(self._place.filesystem, LocalFileSystem):
            for folder, _, _ in os.walk(self._place.path):
                remove_unfinished(Path(folder), UNLOCKED_SECONDS)

    def _others(self) -> list[str]:
        """Return the files of the run folder that belong to no checkpoint; of links is told once."""
        files, links = other_files(self._folder)
        for link in links:
            if link not in self._links:
                self._tell(f"plan.mirror={self._name}: leaves out {self._folder / link}, which is a symbolic link")
        self._links.update(links)
        return files

    def _checkpoints_there(self) -> list[str]:
        return checkpoints_of(self._place.names(CHECKPOINTS))

    def _has(self, checkpoint: str) -> bool:
        """Tell whether the copy of a checkpoint is whole: its manifest was the last to be sent."""
        if checkpoint in self._whole:
            return True
        name = f"{checkpoint}/{MANIFEST}"
        here = (self._folder / name).read_bytes()
        with contextlib.suppress(FileTooLargeError):
            return self._place.is_file(name) and self._place.read(name, len(here)) == here
        return False

    def _send_checkpoint(self, checkpoint: str, digests: Digests) -> None:
        held = {digest: f"{name}/{file}" for name, whole in self._whole.items() for file, digest in whole.items()}
        for file, digest in digests.items():
            name = f"{checkpoint}/{file}"
            if digest in held:
                # It may be gone, or too large to be copied in one request.
                with contextlib.suppress(OSError):
                    refuse_links(self._place, Path(name).parent)
                    self._place.copy(held[digest], name)
                    continue
            send_file(self._place, self._folder, name)

    def _send(self, name: str) -> None:
        """Send a file that belongs to no checkpoint, if it has changed since it was sent."""
        signature = signature_of(self._folder / name)
        if self._sent.get(name) != signature:
            send_file(self._place, self._folder, name)
            self._sent[name] = signature

    def _remove(self, checkpoint: str) -> None:
        self._whole.pop(checkpoint, None)
        refuse_links(self._place, Path(checkpoint))
        self._place.remove_file(f"{checkpoint}/{MANIFEST}")
        self._place.remove_folder(checkpoint)

    def _refuse_nesting(self) -> None:
        if isinstance(self._place.filesystem, LocalFileSystem):
            mirror, folder = Path(self._place.path).resolve(), self._folder.resolve()
            if mirror == folder or folder in mirror.parents:
                raise PlanError(
                    f"plan.mirror={self._name}: lies in the run folder {self._folder} itself; give a place outside"
                )

    def _probe(self) -> None:
        """Write and remove a file: better to fail now than after the first hours of training."""
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / _PROBE
            source.write_text("can be written")
            self._place.send(source, _PROBE)
            self._place.remove_file(_PROBE)

    def _check_recipe(self, recipe: Recipe) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / _RECIPE
            try:
                copy.write_bytes(self._place.read(_RECIPE, JSON_BYTES))
                earlier = load_recipe(copy)
            except (FileTooLargeError, RecipeError, VersionError) as error:
                found = str(error).replace(f"{scratch}{os.sep}", "")
                raise RunError(f"plan.mirror={self._name}: its {found}; give another plan.mirror") from error
        if recipe_identity(earlier) != recipe_identity(with_cuts_of(recipe, earlier)):
            raise RunError(
                f"plan.mirror={self._name}: holds a run of another recipe ({earlier.name}); give another plan.mirror"
            )

    def _fetch(self, checkpoints: list[str], tell: Callable[[str], None]) -> None:
        """Fetch the copy into the run folder, which appears whole or not at all."""
        files = [
            file
            for file in list_files(self._place)
            if not file.name.startswith(f"{CHECKPOINTS}/") or file.name.rpartition("/")[0] in checkpoints
        ]
        for file in files:
            refuse_links(self._place, Path(file.name))
        tell(f"fetching {len(files)} files from {self._name}, which goes as far as {checkpoints[-1]}")
        with fetched_aside(self._folder) as aside:
            download(self._place, files, aside, lambda share: None)
            if self._folder.is_dir():
                # What a run left that had not begun yet; see `choose_folder`.
                for path in self._folder.iterdir():
                    path.unlink()
            aside.replace(self._folder)
        self._sent = {name: signature_of(self._folder / name) for name in self._others()}

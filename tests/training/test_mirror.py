"""Does a run go on elsewhere from the copy of its folder, bit for bit, whatever happens while the copy is made?"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.fs
import pytest

import engine
import engine.training.mirror
from engine.checkpoints import newest_checkpoint
from engine.data.fetching import fetched_aside
from engine.data.uris import Place
from engine.recipes import GKT, Recipe
from engine.tracking import read_metrics

TinyRecipe = Callable[..., Recipe]
Interrupt = Callable[[int], None]
SameRun = Callable[[Path, Path], None]

# 8 steps, 4 in an epoch; checkpoints after every second one.
PLAN = engine.Plan(executor="process", report_every_steps=1, checkpoint_every_steps=2)


class Bucket(pyarrow.fs.FileSystemHandler):
    """An object store: no folders, no renames, and an object is there when all of it has arrived.

    `fail` is called with what is about to be done and to which name, and may raise.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.done: list[tuple[str, str]] = []
        self.fail: Callable[[str, str], None] = lambda what, name: None

    def _do(self, what: str, name: str) -> None:
        self.fail(what, name)
        self.done.append((what, name))

    def get_type_name(self) -> str:
        return "bucket"

    def get_file_info(self, paths: list[str]) -> list[pyarrow.fs.FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> pyarrow.fs.FileInfo:
        kind = pyarrow.fs.FileType
        if path in self.objects:
            return pyarrow.fs.FileInfo(path, kind.File, size=len(self.objects[path]))
        below = any(name.startswith(f"{path}/") for name in self.objects)
        return pyarrow.fs.FileInfo(path, kind.Directory if below else kind.NotFound)

    def get_file_info_selector(self, selector: pyarrow.fs.FileSelector) -> list[pyarrow.fs.FileInfo]:
        self._do("list", selector.base_dir)
        prefix = f"{selector.base_dir}/"
        names = [name.removeprefix(prefix) for name in self.objects if name.startswith(prefix)]
        if not selector.recursive:
            names = list(dict.fromkeys(name.partition("/")[0] for name in names))
        return [self._info(prefix + name) for name in names]

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        self._do("read", path)
        return pyarrow.BufferReader(self.objects[path])

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        self._do("write", path)
        bucket = self

        class Upload:
            closed = False

            def __init__(self) -> None:
                self.parts: list[bytes] = []

            def write(self, part: bytes) -> None:
                self.parts.append(bytes(part))

            def writable(self) -> bool:
                return True

            def flush(self) -> None:
                """Nothing is visible yet."""

            def close(self) -> None:
                if not self.closed:
                    bucket.objects[path] = b"".join(self.parts)
                self.closed = True

        return pyarrow.PythonFile(Upload(), mode="w")

    def copy_file(self, source: str, target: str) -> None:
        self._do("copy", target)
        self.objects[target] = self.objects[source]

    def delete_file(self, path: str) -> None:
        self._do("delete", path)
        del self.objects[path]

    def delete_dir(self, path: str) -> None:
        self._do("delete", path)
        below = [name for name in self.objects if name.startswith(f"{path}/")]
        if not below:
            raise FileNotFoundError(path)
        for name in below:
            del self.objects[name]

    def _refuse(self, *arguments: Any) -> None:
        raise NotImplementedError

    open_input_file = open_append_stream = create_dir = move = normalize_path = _refuse
    delete_dir_contents = delete_root_dir_contents = _refuse

    def written(self) -> list[str]:
        return [name.removeprefix("bucket/run/") for what, name in self.done if what == "write"]

    def checkpoints(self) -> set[str]:
        return {name.split("/")[3] for name in self.objects if name.startswith("bucket/run/checkpoints/")}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, under any URI."""
    made = Bucket()
    place = Place(pyarrow.fs.PyFileSystem(made), "bucket/run")
    monkeypatch.setattr(engine.training.mirror, "connect", lambda uri: place)
    return made


@pytest.fixture(params=["folder", "file", "bucket"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of place that a mirror may be at."""
    if request.param == "bucket":
        request.getfixturevalue("bucket")
        return "s3://bucket/run"
    shared = tmp_path / "shared" / "run"
    return str(shared) if request.param == "folder" else shared.as_uri()


def mirrored(address: str, **changes: Any) -> engine.Plan:
    return dataclasses.replace(PLAN, mirror=address, **changes)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def held(bucket: Bucket) -> dict[str, bytes]:
    return {name.removeprefix("bucket/run/"): content for name, content in bucket.objects.items()}


class Told:
    """A console that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: None


def train(recipe: Recipe, plan: engine.Plan, folder: Path, told: Told | None = None, **options: Any) -> engine.Result:
    return engine.train(recipe, plan, folder, console=told, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("stops", [(2,), (3, 5)])
def test_another_machine_goes_on_bit_for_bit(
    stops: tuple[int, ...],
    address: str,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    interrupt_at: Interrupt,
    assert_same_run: SameRun,
) -> None:
    straight = train(tiny_recipe(), PLAN, tmp_path / "straight")
    for machine, stop in enumerate(stops):
        interrupt_at(stop)
        result = train(tiny_recipe(), mirrored(address), tmp_path / f"machine{machine}")
        assert (result.status, result.steps) == ("interrupted", stop)
    interrupt_at(0)
    last = train(tiny_recipe(), mirrored(address), tmp_path / "last")
    assert (last.status, last.weights_sha256) == ("finished", straight.weights_sha256)
    assert last.metrics == straight.metrics
    assert_same_run(tmp_path / "straight", tmp_path / "last")
    # The copy is a run folder itself, and the next machine has nothing left to do.
    again = train(tiny_recipe(), mirrored(address), tmp_path / "again")
    assert again.weights_sha256 == straight.weights_sha256
    assert files(tmp_path / "again") == files(tmp_path / "last")


def test_the_copy_in_a_folder_can_be_opened_and_is_complete(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    train(tiny_recipe(), mirrored(str(tmp_path / "copy")), tmp_path / "run")
    assert files(tmp_path / "copy") == files(tmp_path / "run")
    assert engine.load(tmp_path / "copy").checkpoint.step == 8


@pytest.mark.parametrize("crash", [1, 3, 5, 8])
def test_a_machine_that_is_gone_at_any_step_is_followed_by_another(
    crash: int,
    bucket: Bucket,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    at_step: Callable[[int, Callable[[], None]], None],
    assert_same_run: SameRun,
) -> None:
    train(tiny_recipe(), PLAN, tmp_path / "straight")

    def vanish() -> None:
        def gone(what: str, name: str) -> None:
            raise OSError("this machine is gone")

        bucket.fail = gone
        raise OSError("the power went out")

    at_step(crash, vanish)
    with pytest.raises(Exception, match="the power went out"):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "gone")
    bucket.fail = lambda what, name: None
    at_step(0, vanish)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "next")
    assert_same_run(tmp_path / "straight", tmp_path / "next")


def repeatable(folder: Path, last: int) -> list[tuple[Any, ...]]:
    """Return all records until a step; times and what follows from them differ between two runs, not in a copy."""
    return [(r.step, r.learner, r.split, r.name, r.value) for r in read_metrics(folder) if r.step <= last]


def test_after_every_single_write_or_removal_the_copy_is_whole_or_seen_not_to_be(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    """Keeps the bucket as it is before each change to it, which is what a machine leaves that is lost just then."""
    states: list[dict[str, bytes]] = []

    def note(what: str, name: str) -> None:
        if what in ("write", "copy", "delete"):
            states.append(held(bucket))

    bucket.fail = note
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    steps = []
    for number, state in enumerate([*states, held(bucket)]):
        folder = tmp_path / f"state{number}"
        for name, content in state.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        checkpoint, skipped = newest_checkpoint(folder / "checkpoints")
        assert all("has no MANIFEST.json, so it was never finished" in line for line in skipped)
        steps.append(checkpoint.step if checkpoint is not None else 0)
        if checkpoint is not None:
            assert engine.load(folder).recipe == tiny_recipe()
            assert repeatable(folder, checkpoint.step) == repeatable(tmp_path / "run", checkpoint.step)
        if (folder / "summary.json").exists():
            assert steps[-1] == 8
    assert steps == sorted(steps)
    assert set(steps) == {0, 2, 4, 6, 8}


def test_a_manifest_is_the_last_of_its_checkpoint_and_metrics_come_before_it(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    written = bucket.written()
    assert written[:2] == [".probe", "recipe.json"]
    for step in (2, 4, 6, 8):
        folder = f"checkpoints/step-{step:06d}/"
        places = [place for place, name in enumerate(written) if name.startswith(folder)]
        assert written[places[-1]] == f"{folder}MANIFEST.json"
        assert "metrics.jsonl" in written[places[0] : places[-1]]
    assert "summary.json" in written[places[-1] :]
    # Nothing is sent again that has not changed.
    assert written.count("environment.json") == written.count("recipe.json") == 1
    assert len([name for name in written if name.startswith("checkpoints/")]) == 4 * len(
        [name for name in written if name.startswith("checkpoints/step-000002/")]
    )


def test_checkpoints_that_are_removed_here_are_removed_there(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    train(tiny_recipe(), mirrored("s3://bucket/run", keep_checkpoints=1), tmp_path / "run")
    assert bucket.checkpoints() == {"step-000008"}
    assert held(bucket) == files(tmp_path / "run")
    deleted = [name.removeprefix("bucket/run/") for what, name in bucket.done if what == "delete"]
    assert deleted[1:3] == ["checkpoints/step-000002/MANIFEST.json", "checkpoints/step-000002"]


def test_a_mirror_that_fails_for_a_while_is_told_and_made_up_for(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, at_step: Callable[[int, Callable[[], None]], None]
) -> None:
    def refuse(what: str, name: str) -> None:
        if what == "write" and "step-000004" in name:
            bucket.fail = lambda what, name: None
            raise OSError("SLOW_DOWN: please reduce your request rate")

    bucket.fail = refuse
    told = Told()
    result = train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run", told)
    assert result.status == "finished"
    warnings = [line for line in told.lines if "plan.mirror" in line]
    assert len(warnings) == 1
    assert "lacks what is new at step 4" in warnings[0]
    assert "SLOW_DOWN" in warnings[0]
    assert "tried again after the next checkpoint" in warnings[0]
    assert warnings[0] in (tmp_path / "run" / "log.txt").read_text()
    assert held(bucket).keys() == files(tmp_path / "run").keys()
    assert bucket.checkpoints() == {"step-000006", "step-000008"}


def test_what_a_mirror_lacks_at_the_end_is_sent_when_the_command_is_given_again(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    def refuse(what: str, name: str) -> None:
        if name != "bucket/run/.probe" and what != "list":
            raise OSError("no route to host")

    bucket.fail = refuse
    told = Told()
    assert train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run", told).status == "finished"
    assert "no route to host); give the same command again when the mirror can be reached" in told.lines[-1]
    assert held(bucket) == {}
    bucket.fail = lambda what, name: None
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    assert held(bucket) == files(tmp_path / "run")


def test_a_failed_run_leaves_its_log_in_the_mirror(
    bucket: Bucket,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    at_step: Callable[[int, Callable[[], None]], None],
) -> None:
    def fail() -> None:
        raise engine.LearnerError("segment0", "is out of memory")

    at_step(6, fail)
    with pytest.raises(engine.LearnerError):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    assert b"failed: learner segment0: is out of memory" in held(bucket)["log.txt"]


def test_a_store_that_a_checkpoint_shares_with_the_one_before_is_copied_where_it_is(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt, assert_same_run: SameRun
) -> None:
    recipe = tiny_recipe(method=GKT())
    train(recipe, PLAN, tmp_path / "straight")
    interrupt_at(7)
    train(recipe, mirrored("s3://bucket/run"), tmp_path / "first")
    copied = [name for what, name in bucket.done if what == "copy"]
    assert copied
    assert all(".knowledge-" in name for name in copied)
    interrupt_at(0)
    train(recipe, mirrored("s3://bucket/run"), tmp_path / "second")
    assert_same_run(tmp_path / "straight", tmp_path / "second")


def test_later_checkpoints_of_the_mirror_go_before_metrics_that_do_not_reach_them(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt, assert_same_run: SameRun
) -> None:
    train(tiny_recipe(), PLAN, tmp_path / "straight")
    interrupt_at(6)
    train(tiny_recipe(), mirrored("s3://bucket/run", keep_checkpoints=9), tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-000006" / "segment1.safetensors").write_bytes(b"torn")
    bucket.done.clear()
    interrupt_at(5)
    train(tiny_recipe(), mirrored("s3://bucket/run", keep_checkpoints=9), tmp_path / "run")
    deeds = [(what, name.removeprefix("bucket/run/")) for what, name in bucket.done]
    assert deeds.index(("delete", "checkpoints/step-000006")) < deeds.index(("write", "metrics.jsonl"))
    interrupt_at(0)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "next")
    assert "(step 5 of 8)" in (tmp_path / "next" / "log.txt").read_text()
    assert_same_run(tmp_path / "straight", tmp_path / "next")


def test_an_interrupted_fetch_leaves_no_run_folder(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(3)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first")

    def refuse(what: str, name: str) -> None:
        if what == "read" and name.endswith("segment1.safetensors"):
            raise OSError("connection reset by peer")

    bucket.fail = refuse
    interrupt_at(0)
    with pytest.raises(engine.PlanError, match=r"^plan.mirror=s3://bucket/run: connection reset by peer; check"):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "second")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    bucket.fail = lambda what, name: None
    assert train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "second").status == "finished"


def test_a_mirror_that_cannot_be_written_ends_the_run_before_it_begins(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    def refuse(what: str, name: str) -> None:
        if what == "write":
            raise PermissionError("AWS Error ACCESS_DENIED during PutObject operation")

    bucket.fail = refuse
    with pytest.raises(engine.PlanError, match=r"^plan.mirror=s3://bucket/run: .*ACCESS_DENIED.*credentials"):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        engine.PlanError, match=r"^plan.mirror=/.*/file/run: .*Not a directory.*; check that the folder"
    ):
        train(tiny_recipe(), mirrored(str(tmp_path / "file" / "run")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host/run", "Unrecognized filesystem type.*expected a URI that begins with one of s3://"),
        ("s3://key:geheim@bucket/run", "s3://bucket/run: holds a password"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(
    address: str, said: str, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    with pytest.raises(engine.PlanError, match=f"(?s)^plan.mirror=.*{said}") as refused:
        train(tiny_recipe(), mirrored(address), tmp_path / "run")
    assert "geheim" not in str(refused.value)


def test_a_mirror_inside_its_run_folder_is_refused(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    for place in (tmp_path / "run", tmp_path / "run" / "copy"):
        for address in (str(place), place.as_uri()):
            with pytest.raises(engine.PlanError, match="lies in the run folder"):
                train(tiny_recipe(), mirrored(address), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_place_of_another_run_or_of_other_files_is_refused(
    address: str, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(2)
    train(tiny_recipe(), mirrored(address), tmp_path / "run")
    interrupt_at(0)
    with pytest.raises(engine.RunError, match=r"holds a run of another recipe \(tiny\); give another plan.mirror"):
        train(tiny_recipe(seed=1), mirrored(address), tmp_path / "other")
    with pytest.raises(engine.RunError, match="holds a run already, and a new one must not overwrite it"):
        train(tiny_recipe(), mirrored(address), tmp_path / "other", resume="never")
    assert not (tmp_path / "other").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(engine.PlanError, match="holds files but no recipe.json"):
        engine.training.mirror.open_mirror(
            str(tmp_path / "mine"), tmp_path / "run", tiny_recipe(), "auto", lambda text: None
        )


def test_a_mirror_whose_recipe_cannot_be_read_is_refused(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "recipe.json").write_text("{")
    with pytest.raises(engine.RunError, match=r"^plan.mirror=/.*/copy: its recipe.json: is damaged: "):
        train(tiny_recipe(), mirrored(str(tmp_path / "copy")), tmp_path / "run")


def test_a_folder_that_is_behind_its_mirror_is_named(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(3)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first")
    interrupt_at(5)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "second")
    before = held(bucket)
    with pytest.raises(engine.RunError, match=r"is further \(checkpoints/step-000005\) than .*first \(.*step-000003\)"):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first")
    assert held(bucket) == before
    shutil.rmtree(tmp_path / "first")
    assert train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first").status == "finished"


def test_the_same_machine_goes_on_and_sends_only_what_the_mirror_lacks(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(4)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    bucket.done.clear()
    interrupt_at(0)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    assert not [name for name in bucket.written() if "step-000002" in name or "step-000004" in name]
    assert held(bucket) == files(tmp_path / "run")


def test_a_run_without_a_mirror_is_the_same_run(
    tmp_path: Path, tiny_recipe: TinyRecipe, assert_same_run: SameRun
) -> None:
    train(tiny_recipe(), PLAN, tmp_path / "plain")
    train(tiny_recipe(), mirrored(str(tmp_path / "copy")), tmp_path / "mirrored")
    assert_same_run(tmp_path / "plain", tmp_path / "mirrored")
    assert len(read_metrics(tmp_path / "copy")) == len(read_metrics(tmp_path / "plain"))


def test_no_manifest_leads_out_of_the_mirror(tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt) -> None:
    """A name with ../ would overwrite a file outside, and open it to all."""
    run, outside = tmp_path / "run", tmp_path / "outside.safetensors"
    interrupt_at(2)
    engine.train(tiny_recipe(), PLAN, run)
    (checkpoint,) = (run / "checkpoints").iterdir()
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    content = (checkpoint / "state.json").read_bytes()
    for name in ("../../../outside.safetensors", str(outside)):
        (checkpoint / name).write_bytes(content)
        manifest[name] = manifest["state.json"]
    outside.write_text("mine")
    outside.chmod(0o600)
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))
    interrupt_at(0)
    mirrored = dataclasses.replace(PLAN, mirror=str(tmp_path / "mirror"))
    assert engine.train(tiny_recipe(), mirrored, run).status == "finished"
    assert (outside.read_text(), outside.stat().st_mode & 0o777) == ("mine", 0o600)
    assert engine.load(tmp_path / "mirror").checkpoint.step == 8


def test_no_link_is_followed_into_or_out_of_a_mirror(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    run, mirror, outside = tmp_path / "run", tmp_path / "mirror", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("mine")
    mirrored = dataclasses.replace(PLAN, mirror=str(mirror))
    engine.train(tiny_recipe(epochs=1), mirrored, run)
    (run / "secret").symlink_to(outside / "secret")
    (run / "more").symlink_to(outside)
    for path in (run / "summary.json", mirror / "summary.json"):
        path.unlink()
    shutil.rmtree(mirror / "checkpoints")
    (mirror / "checkpoints").symlink_to(outside)
    told = Told()
    train(tiny_recipe(epochs=1), mirrored, run, told)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not (mirror / "secret").exists() and not (mirror / "more").exists()
    assert f"plan.mirror={mirror}: leaves out {run}/secret, which is a symbolic link" in told.lines
    assert any("checkpoints is a symbolic link, which may lead anywhere; remove it" in line for line in told.lines)


def test_what_a_killed_fetch_left_is_removed_by_the_next_one(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(3)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first")
    left, held_by_another, of_another = (
        tmp_path / name for name in (".second.123.fetched", ".second.124.fetched", ".second.b.125.fetched")
    )
    for folder in (left, held_by_another, of_another):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "part").write_bytes(b"part")
    descriptor = os.open(held_by_another, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        interrupt_at(0)
        assert train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "second").status == "finished"
    finally:
        os.close(descriptor)
    assert not left.exists()
    assert (held_by_another / "checkpoints" / "part").exists()
    assert (of_another / "checkpoints" / "part").exists()


def test_a_fetch_locks_what_it_writes(tmp_path: Path) -> None:
    """So that no other process takes it for left behind."""
    with fetched_aside(tmp_path / "run") as aside:
        (aside / "part").touch()
        other = os.open(aside, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)
    assert list(tmp_path.iterdir()) == []


def test_files_that_were_being_sent_when_a_run_was_killed_are_removed(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    mirror = tmp_path / "mirror"
    interrupt_at(2)
    train(tiny_recipe(), mirrored(str(mirror)), tmp_path / "run")
    left = [mirror / ".metrics.jsonl.99999999.tmp", mirror / "checkpoints" / "step-000002" / ".a.99999999.tmp"]
    for path in left:
        path.write_bytes(b"part")
        os.utime(path, (1, 1))
    interrupt_at(0)
    train(tiny_recipe(), mirrored(str(mirror)), tmp_path / "run")
    assert not [path for path in left if path.exists()]


def test_files_of_a_mirror_that_are_larger_than_any_are_not_read(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    mirror = tmp_path / "mirror"
    interrupt_at(2)
    train(tiny_recipe(), mirrored(str(mirror), keep_checkpoints=9), tmp_path / "run")
    manifest = mirror / "checkpoints" / "step-000002" / "MANIFEST.json"
    whole = manifest.read_bytes()
    for path in (manifest, mirror / "recipe.json"):
        os.truncate(path, 20 * 2**30)
    with pytest.raises(
        engine.RunError,
        match=r"^plan.mirror=/.*/mirror: its recipe.json has more than 67,108,864 bytes, .*give another plan.mirror$",
    ):
        train(tiny_recipe(), mirrored(str(mirror), keep_checkpoints=9), tmp_path / "run")
    (mirror / "recipe.json").write_bytes((tmp_path / "run" / "recipe.json").read_bytes())
    interrupt_at(0)
    assert train(tiny_recipe(), mirrored(str(mirror), keep_checkpoints=9), tmp_path / "run").status == "finished"
    assert manifest.read_bytes() == whole

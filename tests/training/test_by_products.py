"""Does a training end with its result when a picture, TensorBoard's copy, the Parquet copy or the mirror fails?"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.recipes import Recipe
from engine.tracking import read_metrics, spared
from engine.training import load

TinyRecipe = Callable[..., Recipe]
IN_PROCESS = engine.Plan(executor="process", report_every_steps=2)

FAILURES: dict[str, BaseException] = {
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "value": ValueError("Key backend: 'module://x' is not a valid value"),
    "missing": ImportError("No module named 'tensorboard'"),
    "memory": MemoryError("Unable to allocate 9 GiB"),
}
MOMENTS = {
    "opening": "engine.training.by_products.TensorBoardLog",
    "writing": "engine.tracking.tensorboard.TensorBoardLog.write",
    "settings": "engine.tracking.tensorboard.TensorBoardLog.write_hparams",
    "closing": "engine.tracking.tensorboard.TensorBoardLog.close",
    "parquet": "engine.tracking.metrics._write_parquet",
    "picture": "engine.training.by_products.plot_curves",
    "best epoch": "engine.training.run_record.read_metrics",
}


def fail(error: BaseException) -> Callable[..., Any]:
    def failing(*_: Any, **__: Any) -> Any:
        raise error

    return failing


@pytest.mark.parametrize(
    ("moment", "failure"),
    [
        *((moment, "disk") for moment in MOMENTS),
        ("opening", "missing"),
        ("picture", "missing"),
        ("picture", "value"),
        ("picture", "memory"),
    ],
)
def test_a_by_product_that_fails_is_a_warning(
    moment: str,
    failure: str,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(MOMENTS[moment], fail(FAILURES[failure]))
    result = engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path / "run")
    assert result.status == "finished"
    assert result.test_score is not None
    (warning,) = result.warnings
    assert type(FAILURES[failure]).__name__ in warning
    assert capsys.readouterr().err.count(warning) == 1
    assert warning in (tmp_path / "run" / "log.txt").read_text()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"] == [warning]
    assert load(tmp_path / "run").checkpoint.step == 4
    assert {record.step for record in read_metrics(tmp_path / "run")} == {2, 4}
    # The same command returns the same result, warning and all.
    assert engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path / "run").warnings == (warning,)


def test_all_fail_at_once(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for moment in ("writing", "parquet", "picture"):
        monkeypatch.setattr(MOMENTS[moment], fail(RuntimeError(moment)))
    monkeypatch.setattr("engine.training.mirror.Mirror.finish", fail(RuntimeError("mirror")))
    monkeypatch.setattr("engine.training.mirror.Mirror.update", fail(RuntimeError("mirror")))
    plan = engine.Plan(executor="process", mirror=str(tmp_path / "mirror"))
    result = engine.train(tiny_recipe(epochs=1), plan, tmp_path / "run")
    assert [word for word in ("writing", "mirror", "parquet", "picture") if word in " ".join(result.warnings)] == [
        "writing",
        "mirror",
        "parquet",
        "picture",
    ]
    assert len(result.warnings) == 4
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"] == list(result.warnings)


def test_a_mirror_that_fails_at_the_very_end_is_in_the_summary_too(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.mirror.Mirror.finish", lambda *_: "plan.mirror: nobody listens")
    plan = engine.Plan(executor="process", mirror=str(tmp_path / "mirror"))
    result = engine.train(tiny_recipe(epochs=1), plan, tmp_path / "run")
    assert result.warnings == ("plan.mirror: nobody listens",)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"] == list(result.warnings)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_warning(error: type[BaseException]) -> None:
    said: list[str] = []
    with pytest.raises(error), spared("curves.png", said.append):
        raise error
    assert said == []


def test_the_same_weights_with_and_without_a_warning(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path / "straight")
    monkeypatch.setattr(MOMENTS["writing"], fail(OSError("gone")))
    assert engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path / "run").weights_sha256 == straight.weights_sha256
    assert straight.warnings == ()


def test_the_record_is_no_by_product_also_before_the_first_step(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("engine.training.run_record.MetricsLog", fail(FAILURES["disk"]))
        with pytest.raises(engine.RunError, match=f"{tmp_path}.*the disk is full"):
            engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path / "run")
    assert engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path / "run").status == "finished"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path, until_step=4)
    left = [tmp_path / f".{name}.4711.tmp" for name in ("metrics.parquet", "summary.json", "curves.png")]
    for path in left:
        path.write_bytes(b"half")
    own = tmp_path / ".notes.tmp"
    own.write_text("the user's")
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert not any(path.exists() for path in left)
    assert own.read_text() == "the user's"


class _Away:
    """Does something to the run folder while its second epoch is trained."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do = do

    def start(self, *_: Any) -> None: ...
    def message(self, text: str) -> None: ...
    def finish(self, *_: Any) -> None: ...
    def close(self) -> None: ...

    def update(self, step: int, epoch: int, records: Any) -> None:
        if epoch == 2 and self._do is not None:
            self._do()
            self._do = lambda: None


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced"])
def test_a_run_folder_that_goes_away(how: str, tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    """One error, nothing made anew in its place, and the same command trains afterwards."""
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"

    def act() -> None:
        if how == "deleted":
            shutil.rmtree(folder)
        else:
            os.rename(folder, elsewhere)
        if how == "replaced":
            folder.mkdir()

    console: Any = _Away(act)
    with pytest.raises(engine.RunError, match="moved or deleted") as caught:
        engine.train(tiny_recipe(), IN_PROCESS, folder, console=console)
    assert str(folder) in str(caught.value)
    assert not folder.exists()
    if how != "deleted":
        # As the message says.
        assert load(elsewhere).checkpoint.step == 4
        assert engine.train(tiny_recipe(), IN_PROCESS, elsewhere).status == "finished"
    assert engine.train(tiny_recipe(), IN_PROCESS, folder).status == "finished"

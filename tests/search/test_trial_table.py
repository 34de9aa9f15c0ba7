"""Does trials.parquet hold all that is known of the trials of a search?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from engine.errors import RunError
from engine.search import Sweep, Trial
from engine.search.folder import SweepFolder


@pytest.fixture
def folder(make_sweep: Callable[..., Sweep], tmp_path: Path) -> Iterator[SweepFolder]:
    sweep = make_sweep()
    opened = SweepFolder(sweep, sweep.base(), tmp_path / "s", "auto")
    yield opened
    opened.close()


def test_the_table_has_a_row_for_each_trial_and_a_column_for_each_field(folder: SweepFolder) -> None:
    trials = [
        Trial(
            0, {"seed": 3, "weight": 1, "root": None}, "finished", 3, {"validation/accuracy": 0.5, "memory_bytes": 8}
        ),
        Trial(1, {"seed": 4, "weight": 0.25, "root": "a,b"}, "pruned", 1, {"validation/accuracy": math.nan}),
        Trial(2, {"seed": 5, "weight": 1e-9, "root": [1, True]}, "failed", 0, {}, "Boom"),
    ]
    table = pyarrow.parquet.read_table(folder.write_table(trials))
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "trial": "int64",
        "status": "string",
        "epochs": "int64",
        "run_dir": "string",
        "error": "string",
        "seed": "double",
        "weight": "double",
        "root": "string",
        "memory_bytes": "double",
        "validation/accuracy": "double",
    }
    columns = table.to_pydict()
    assert columns["trial"] == [0, 1, 2] and columns["epochs"] == [3, 1, 0]
    assert columns["status"] == ["finished", "pruned", "failed"]
    assert columns["run_dir"] == [str(folder.run_dir(trial)) for trial in trials]
    assert columns["error"] == [None, None, "Boom"]
    assert columns["seed"] == [3, 4, 5] and columns["weight"] == [1, 0.25, 1e-9]
    assert [json.loads(text) for text in columns["root"]] == [None, "a,b", [1, True]]
    np.testing.assert_array_equal(columns["validation/accuracy"], [0.5, math.nan, math.nan])
    np.testing.assert_array_equal(columns["memory_bytes"], [8, math.nan, math.nan])


def test_truth_values_are_no_numbers_in_the_table(folder: SweepFolder) -> None:
    trials = [Trial(0, {"flip": True}), Trial(1, {"flip": False})]
    assert pyarrow.parquet.read_table(folder.write_table(trials)).to_pydict()["flip"] == ["true", "false"]


def test_a_searched_field_does_not_hide_what_is_known_of_a_trial(folder: SweepFolder) -> None:
    """`epochs` is a field of the recipe, too."""
    trials = [Trial(0, {"epochs": 9}, "pruned", 2), Trial(1, {"epochs": 7}, "finished", 7)]
    columns = pyarrow.parquet.read_table(folder.write_table(trials)).to_pydict()
    assert sorted(value for values in columns.values() for value in values if value in (2, 7, 9)) == [2, 7, 7, 9]


def test_a_failure_while_the_table_is_written_leaves_the_old_one(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def _fails(table: Any, aside: Path) -> None:
        aside.write_bytes(b"half of it")
        raise OSError("No space left on device")

    path = folder.write_table([Trial(0, {})])
    before = path.read_bytes()
    monkeypatch.setattr(pyarrow.parquet, "write_table", _fails)
    with pytest.raises((OSError, RunError)):
        folder.write_table([Trial(0, {}), Trial(1, {})])
    assert path.read_bytes() == before

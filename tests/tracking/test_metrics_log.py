"""Metrics survive: round trips, kills in the middle of a line, resuming."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from engine.errors import NotWritten, RunError
from engine.tracking import MetricsLog, Record, read_metrics
from engine.tracking.metrics import mend_parquet

FIELDS = ("time", "epoch", "step", "learner", "split", "name", "value")


def record(step: int, value: float = 0.5, learner: str | None = "segment0", name: str = "loss/total") -> Record:
    return Record(1.7e9 + step / 3, step // 4, step, learner, "train", name, value)


def rows_of(records: list[Record]) -> list[str]:
    """As text, so that NaN equals NaN."""
    return [repr([getattr(found, field) for field in FIELDS]) for found in records]


def test_jsonl_and_parquet_hold_the_very_numbers_that_were_written(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1e-300, -1.5e300, math.nan, math.inf, -math.inf, 0.0, 123456789012345.0]
    written = [record(step, value) for step, value in enumerate(values, start=1)]
    written += [record(9, learner=None), record(9, learner='odd "name"\nö', name="a\tb")]
    log = MetricsLog(tmp_path / "run", None)
    log.write(written[:3])
    log.write([])
    log.write(written[3:])
    log.close()
    log.close()
    assert rows_of(read_metrics(tmp_path / "run")) == rows_of(written)
    table = pyarrow.parquet.read_table(tmp_path / "run" / "metrics.parquet")
    assert table.column_names == list(FIELDS)
    assert rows_of([Record(**row) for row in table.to_pylist()]) == rows_of(written)
    assert (
        pyarrow.parquet.ParquetFile(tmp_path / "run" / "metrics.parquet").metadata.row_group(0).column(0).compression
        == "ZSTD"
    )


def test_parquet_written_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.tracking.metrics._ROWS_AT_ONCE", 4)
    log = MetricsLog(tmp_path, None)
    log.write([record(step) for step in range(1, 12)])
    log.close()
    assert pyarrow.parquet.read_table(tmp_path / "metrics.parquet")["step"].to_pylist() == list(range(1, 12))


def test_every_line_is_standard_json(tmp_path: Path) -> None:
    MetricsLog(tmp_path, None).write([record(1, math.nan), record(2, math.inf), record(3, 1.0)])

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse)["value"] for line in lines] == [None, None, 1.0]


def test_records_are_readable_while_the_run_lives(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, None)
    assert read_metrics(tmp_path) == []
    log.write([record(1)])
    assert read_metrics(tmp_path) == [record(1)]
    assert not (tmp_path / "metrics.parquet").exists()


def test_a_run_without_records_still_closes(tmp_path: Path) -> None:
    MetricsLog(tmp_path, None).close()
    assert read_metrics(tmp_path) == []
    assert pyarrow.parquet.read_table(tmp_path / "metrics.parquet").num_rows == 0


def test_a_last_line_torn_anywhere_costs_that_line_only(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, None)
    log.write([record(1), record(2), record(3)])
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    third = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for end in range(third, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert read_metrics(tmp_path) == [record(1), record(2)], end
        resumed = MetricsLog(tmp_path, 10)
        resumed.write([record(4)])
        resumed.close()
        assert read_metrics(tmp_path) == [record(1), record(2), record(4)], end
    # Only the newline is missing: the record is whole.
    path.write_bytes(whole[:-1])
    resumed = MetricsLog(tmp_path, 10)
    resumed.write([record(4)])
    assert read_metrics(tmp_path) == [record(1), record(2), record(3), record(4)]


def test_resuming_gives_each_step_once(tmp_path: Path) -> None:
    straight = [record(step, learner=learner) for step in range(1, 9) for learner in ("segment0", "segment1", None)]
    log = MetricsLog(tmp_path, None)
    log.write([found for found in straight if found.step <= 6])
    log.close()
    resumed = MetricsLog(tmp_path, 4)
    assert not (tmp_path / "metrics.parquet").exists(), "it would hold steps that are about to be done again"
    resumed.write([found for found in straight if found.step > 4])
    resumed.close()
    assert read_metrics(tmp_path) == straight
    assert pyarrow.parquet.read_table(tmp_path / "metrics.parquet").num_rows == len(straight)


def test_a_disk_that_takes_nothing_where_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MetricsLog(tmp_path, None).write([record(1), record(2)])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NotWritten, match=r"metrics\.jsonl: the disk is full"):
            MetricsLog(tmp_path, 1)
    assert read_metrics(tmp_path) == [record(1), record(2)]
    MetricsLog(tmp_path, 1)
    assert read_metrics(tmp_path) == [record(1)]


def test_starting_from_nothing_drops_an_earlier_attempt_even_if_damaged(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"not json\n")
    log = MetricsLog(tmp_path, None)
    log.write([record(1)])
    assert read_metrics(tmp_path) == [record(1)]


@pytest.mark.parametrize("damage", [b"\x00\x00\n", b"{}\n", b"[1]\n", b'{"value": 1}\n', b"nul\xff\n"])
def test_damage_inside_the_file_is_an_error_that_names_the_line(tmp_path: Path, damage: bytes) -> None:
    log = MetricsLog(tmp_path, None)
    log.write([record(1)])
    log.close()
    path = tmp_path / "metrics.jsonl"
    damaged = path.read_bytes() + damage + path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(RunError, match="line 2"):
        read_metrics(tmp_path)
    with pytest.raises(RunError, match="line 2"):
        MetricsLog(tmp_path, 5)
    assert path.read_bytes() == damaged
    assert list(tmp_path.glob(".*")) == [], "no temporary file is left"


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="metrics.jsonl does not exist"):
        read_metrics(tmp_path)


def test_a_parquet_whose_footer_has_any_stated_length_is_written_anew(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, None)
    log.write([record(1), record(2)])
    log.close()
    path = tmp_path / "metrics.parquet"
    whole = path.read_bytes()
    os.truncate(path, 200 * 2**20)
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write((199 * 2**20).to_bytes(4, "little") + b"PAR1")
    before = pyarrow.default_memory_pool()
    pool = pyarrow.proxy_memory_pool(before)
    pyarrow.set_memory_pool(pool)
    try:
        told = mend_parquet(tmp_path)
    finally:
        pyarrow.set_memory_pool(before)
    assert told is not None
    assert "its footer has 208,666,624 bytes, expected at most 134,217,728" in told
    assert told.endswith("it was written anew from metrics.jsonl")
    assert path.read_bytes() == whole
    assert pool.max_memory() < 20 * 2**20

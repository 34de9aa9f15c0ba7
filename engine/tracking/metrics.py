"""The numbers of a run on disk: metrics.jsonl while it lives, metrics.parquet when it has ended."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from engine.atomic import AppendedFile, replacing, write_error
from engine.errors import RunError
from engine.reading import first_line, open_regular
from engine.tracking.records import Record

JSONL_NAME = "metrics.jsonl"
PARQUET_NAME = "metrics.parquet"

_ROWS_AT_ONCE = 65_536
_NOT_FINITE = "not_finite"
_LONGEST_LINE = 1 << 16

_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Row(TypedDict):
    """A line of metrics.jsonl; ``value`` is null where ``not_finite`` says which value JSON has no word for."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[misc]

    time: float
    epoch: _Count
    step: _Count
    learner: str | None
    split: str
    name: str
    value: float | None
    not_finite: NotRequired[Literal["nan", "inf", "-inf"]]


_ROW = TypeAdapter(_Row)


class MetricsLog:
    """Appends records to metrics.jsonl, one JSON object a line, so that a killed run keeps them.

    Args:
        folder: the run's folder; made if it does not exist.
        resume_step: the step that the run goes on from. Records of later steps are dropped, so that a resumed run
            has each step once. None starts from nothing: records of an earlier attempt are dropped.
        is_scored: False where the scores after that step are dropped, too, because they are made again.

    Raises:
        RunError: an earlier metrics.jsonl is damaged elsewhere than in a torn last line.
        NotWritten: the disk is full or cannot be written to; an earlier metrics.jsonl is whole.
    """

    def __init__(self, folder: Path, resume_step: int | None, is_scored: bool = True) -> None:
        self._jsonl = folder / JSONL_NAME
        self._parquet = folder / PARQUET_NAME
        try:
            self._begin(resume_step, is_scored)
            self._file = AppendedFile(self._jsonl.open("ab", buffering=0))
        except OSError as error:
            raise write_error(self._jsonl, error) from error

    def _begin(self, resume_step: int | None, is_scored: bool) -> None:
        with replacing(self._jsonl) as temporary, temporary.open("wb") as kept:
            if resume_step is not None and self._jsonl.exists():
                kept.writelines(
                    _line(record)
                    for record in _records(self._jsonl)
                    if record.step < resume_step
                    or (record.step == resume_step and (is_scored or record.split == "train"))
                )
        # It would disagree with metrics.jsonl from the next record on.
        self._parquet.unlink(missing_ok=True)

    def write(self, records: Sequence[Record]) -> None:
        """Append the records and hand them to the operating system before returning.

        Raises:
            RunError: it did not take them; they come before those of the next call.
        """
        try:
            self._file.write(b"".join(map(_line, records)))
        except OSError as error:
            raise write_error(self._jsonl, error) from error

    def close(self) -> None:
        """Write metrics.parquet with the numbers of metrics.jsonl; a second call does nothing."""
        if self._file.closed:
            return
        self._file.close()
        if not self._jsonl.exists():
            return  # The folder has been moved or deleted, and must not be made anew.
        with replacing(self._parquet) as temporary:
            _write_parquet(_records(self._jsonl), temporary)


def read_metrics(folder: Path) -> list[Record]:
    """Read all records of a run, also of one that still runs or was killed.

    Raises:
        RunError: the folder has no metrics.jsonl, or the file is damaged elsewhere than in a torn last line.
    """
    path = folder / JSONL_NAME
    if not os.path.lexists(path):
        raise RunError(f"{path} does not exist: expected the folder of a run; check the name of the run")
    return list(_records(path))


def mend_parquet(folder: Path) -> str | None:
    """Write metrics.parquet of a run that has ended anew where it does not hold the rows of metrics.jsonl.

    Returns:
        what was damaged and what became of it, in a line; None where all is well or there are no metrics at all.
    """
    source, path = folder / JSONL_NAME, folder / PARQUET_NAME
    if not os.path.lexists(source):
        return None
    import pyarrow.parquet

    from engine.data.readers.parquet_footer import check_footer

    try:
        rows = sum(1 for _ in _records(source))
        items = check_footer(path, RunError)
        with open_regular(path, RunError) as file:
            held = pyarrow.parquet.ParquetFile(file, thrift_container_size_limit=items).metadata.num_rows
        if held == rows:
            return None
        if held > rows:
            # The source has lost its end: what is whole must not be lost for it.
            return f"{source}: is cut off after {rows:,} rows; {path} holds all {held:,}"
        damage = f"{path}: has not the {rows:,} rows of {JSONL_NAME}"
    except (RunError, OSError, pyarrow.ArrowException) as error:
        damage = str(error) if str(error).startswith(str(folder)) else f"{path}: is damaged: {first_line(error)}"
    try:
        with replacing(path) as temporary:
            _write_parquet(_records(source), temporary)
    except (RunError, OSError, pyarrow.ArrowException) as error:
        return f"{damage}; it could not be written anew: {first_line(error)}"
    return f"{damage}; it was written anew from {JSONL_NAME}"


def _line(record: Record) -> bytes:
    row: dict[str, Any] = {
        "time": float(record.time),
        "epoch": int(record.epoch),
        "step": int(record.step),
        "learner": record.learner,
        "split": record.split,
        "name": record.name,
        "value": float(record.value),
    }
    if not math.isfinite(row["value"]):
        # JSON has no word for these; readers that know nothing of the extra key see a missing value.
        row[_NOT_FINITE] = str(row["value"])
        row["value"] = None
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def _record(line: bytes) -> Record:
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"it is longer than {_LONGEST_LINE:,} bytes")
    row = _ROW.validate_python(json.loads(line))
    value, not_finite = row["value"], row.get(_NOT_FINITE)
    if (value is None) == (not_finite is None):
        raise ValueError("it has no value, or two")
    number = float(str(not_finite)) if value is None else float(value)
    return Record(row["time"], row["epoch"], row["step"], row["learner"], row["split"], row["name"], number)


def _records(path: Path) -> Iterator[Record]:
    with open_regular(path, RunError) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            try:
                record = _record(line)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                if not line.endswith(b"\n") and len(line) <= _LONGEST_LINE:
                    return  # The writer was killed, or still writes, in the middle of the last line.
                raise RunError(
                    f"{path}, line {number}: expected one JSON object with the fields of a record, found {line[:80]!r} "
                    f"({first_line(error)}); remove that line; the run goes on without it"
                ) from error
            yield record


def _write_parquet(records: Iterator[Record], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        [
            ("time", pyarrow.float64()),
            ("epoch", pyarrow.int64()),
            ("step", pyarrow.int64()),
            ("learner", pyarrow.string()),
            ("split", pyarrow.string()),
            ("name", pyarrow.string()),
            ("value", pyarrow.float64()),
        ]
    )
    # Opened here, because Arrow takes no name that is no UTF-8.
    with path.open("wb") as file, pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        # In parts, because the records of a long run are many times larger in memory than on disk.
        while part := list(islice(records, _ROWS_AT_ONCE)):
            columns = [[getattr(record, name) for record in part] for name in schema.names]
            writer.write_table(pyarrow.table(columns, schema=schema))

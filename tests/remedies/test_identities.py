"""Does what a refusal of identities, in a table or in Parquet files, says lead to a training on all that is left?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.remedies.coloured_pictures import picture

Remedy = tuple[str, str, int]
"""What the message says, a command of the shell or words that do it ("{0}" is its first group), training images."""

HEADER = ("image", "unique", "identity", "camera", "split")
ROWS = [
    ("a.png", "p1", "tom", "left", "train"),
    ("b.png", "p1", "tom", "right", "train"),
    ("c.png", "p2", "ann", "left", "train"),
    ("d.png", "p2", "ann", "right", "train"),
    ("e.png", "p3", "zoe", "left", "query"),
    ("f.png", "p3", "zoe", "right", "gallery"),
    ("g.png", "p3", "zoe", "left", "gallery"),
    ("h.png", "p4", "kim", "left", "gallery"),
    ("i.png", "p4", "kim", "right", "query"),
]


def line(command: str) -> str:
    """Return what changes the line of the row whose number a message names; the header is a line, too."""
    return f'sed -i "$(({{0}} + 1)){command}" people.csv'


# What a shell does to people.csv.
TABLES: list[tuple[str, list[Remedy]]] = [
    (
        "cp people.csv more.csv",
        [(r"tables, (\S+), (\S+): keep one", f"rm {name}", 4) for name in ("{0}", "{1}")],
    ),
    (
        "cp .parquet/whole/* .",
        [
            (r"tables, \S+, (\S+): keep one .csv file", "rm {0}", 4),
            (r"tables, (\S+), \S+: .* or Parquet files, and no others", "rm {0}", 4),
        ],
    ),
    ("mv people.csv people.txt", [(r"expected one (\.csv) file with the columns", "mv people.txt people{0}", 4)]),
    ("mkdir deep; mv *.png people.csv deep", [(r"Correct (data\.root)", "{0}={root}/deep", 4)]),
    (
        "sed -i /query$/d people.csv",
        [
            (r"expected train with (\w+) and gallery", "echo e.png,p3,zoe,left,{0} >> people.csv", 4),
            (r"or train with (\w+),", "sed -i s/gallery$/{0}/ people.csv", 4),
        ],
    ),
    (
        "sed -i 8s/gallery/test/ people.csv",
        [
            (r"Rename them to (\w+) or", "sed -i s/test$/{0}/ people.csv", 4),
            (r"Rename them to \w+ or (\w+)", "sed -i s/test$/{0}/ people.csv", 4),
            (r"or give nothing but train and (\w+)", "sed -i 's/query$/{0}/; s/gallery$/{0}/' people.csv", 4),
        ],
    ),
    ("sed -i 3s/,train$// people.csv", [(r"row (\d+): has 4 fields, expected 5; correct it", line("s/$/,train/"), 4)]),
    (
        "sed -i 3s/tom// people.csv",
        [
            (r"row (\d+): column identity is empty; fill it", line("s/,,/,tom,/"), 4),
            (r"row (\d+): column identity is empty; .* or remove the row", line("d"), 3),
        ],
    ),
    (
        "mkdir deep; mv a.png deep",
        [
            (r"the first in row (\d+): .* correct them", line("s#^#deep/#"), 4),
            (r"the first in row \d+: (\S+), .* bring back the pictures", "cp .whole/{0} {0}", 4),
            (r"the first in row (\d+): .* or remove the rows", line("d"), 3),
        ],
    ),
    (
        "sed -i 2s/train/training/ people.csv",
        [(r"row (\d+): column split holds 'training', expected one of (train)", line("s/training/{1}/"), 4)],
    ),
    (
        "sed -i 1s/identity/person/ people.csv",
        [
            (r"no column (\w+), .* correct the columns", "sed -i 1s/person/{0}/ people.csv", 4),
            (r"or set (data\.label_column) to another one", "{0}=person", 4),
        ],
    ),
    (
        "sed -i 1s/image/file/ people.csv",
        [
            (r"no column (\w+), .* correct the columns", "sed -i 1s/file/{0}/ people.csv", 4),
            (r"or set (data\.image_column) to another one", "{0}=file", 4),
        ],
    ),
    (
        "sed -i 1s/camera/identity/ people.csv",
        [(r"several columns (\w+), .* perhaps (\w+): correct", "sed -i 1s/{0},{0}/{0},{1}/ people.csv", 4)],
    ),
    ("sed -i 1s/split/part/ people.csv", [(r"no column (\w+), .* correct", "sed -i 1s/part/{0}/ people.csv", 4)]),
    *(
        (
            f"sed -i {number}s/{name}/-1/ people.csv",
            [
                (rf"1 {what} have the identity -1, .* remove them", f"sed -i {number}d people.csv", left),
                ("or correct their names", f"sed -i s/-1/{name}/ people.csv", 4),
            ],
        )
        for number, name, what, left in ((2, "tom", "training pictures", 3), (6, "zoe", "queries", 4))
    ),
    (
        "sed -i 6s/zoe/tom/ people.csv",
        [
            (
                r"identity (\w+): in .* move the pictures of each to one side",
                "sed -i /{0}/s/query/train/ people.csv",
                5,
            ),
            (r"set (data\.label_column) to a column that does not", "{0}=unique", 4),
        ],
    ),
    (
        "sed -i 's/left/1/; s/right/70000/' people.csv",
        [(r"number (\d+) among the cameras, expected -1 to [\d,]+; renumber", "sed -i s/{0}/2/ people.csv", 4)],
    ),
    (
        "sed -i '7s/right/left/; 9s/left/right/' people.csv",
        [
            ("correct identities and cameras", "sed -i 7s/left/right/ people.csv", 4),
            ("or add such pictures", "echo b.png,p3,zoe,right,gallery >> people.csv", 4),
        ],
    ),
    (
        "(cat people.csv; head -c 140000 /dev/zero | tr '\\0' x | sed 's/^/\"/') > long.csv; mv long.csv people.csv",
        [(r"line (\d+): .* correct the quotation marks", "sed -i {0}d people.csv", 4)],
    ),
    (
        "sed -i '1s/$/,note/; 2,$s/$/,x/; 7s/x$/\"12 inch/' people.csv",
        [(r"line (\d+): .* correct the quotation marks", "sed -i '{0}s/\"//' people.csv", 4)],
    ),
    (
        "echo x > a.png",
        [
            ("; replace it", "cp .whole/a.png .", 4),
            (r"^(\S+) .* or remove it with its row", "rm {0}; sed -i /^a.png/d people.csv", 3),
        ],
    ),
]
# The same of Parquet files.
FILES: list[tuple[str, list[Remedy]]] = [
    (
        "cp .parquet/both/* .",
        [
            ("rename the column", "cp .parquet/named/* .", 4),
            ("or the file", "for one in train query gallery; do mv $one.parquet part-$one.parquet; done", 4),
        ],
    ),
    (
        "cp .parquet/named/* .; cp .parquet/bare/gallery.parquet .",
        [
            ("expected it in all files", "cp .parquet/named/gallery.parquet .", 4),
            ("or none", "cp .parquet/bare/* .", 4),
        ],
    ),
    (
        "cp .parquet/named/* .; cp .parquet/empty/train.parquet .",
        [("column identity is empty; fill it", "cp .parquet/named/train.parquet .", 4)],
    ),
    (
        "cp .parquet/named/* .; cp .parquet/numbers/train.parquet .",
        [("expected one kind in all", "cp .parquet/named/train.parquet .", 4)],
    ),
    (
        "cp .parquet/two/* .",
        [(r"set (data\.image_column) to one", f"{{0}}={name}", 4) for name in ("photo", "mask")],
    ),
]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in CSV with its pictures, copies of these in ".whole", and tables in Parquet in ".parquet"."""
    root = tmp_path_factory.mktemp("sets") / "people"
    for folder in (root, root / ".whole"):
        for number, row in enumerate(ROWS):
            picture(folder / row[0], number)
    (root / "people.csv").write_text("".join(",".join(row) + "\n" for row in (HEADER, *ROWS)))
    encoded = {row[0]: {"bytes": (root / row[0]).read_bytes(), "path": None} for row in ROWS}

    def write(place: str, *columns: str, split: str | None = None, **values: Any) -> None:
        rows = [row for row in ROWS if split in (None, row[4])]
        held = {name: [row[HEADER.index(name)] for row in rows] for name in columns}
        pictures = values.pop("pictures", ("image",))
        table = {**{key: [encoded[row[0]] for row in rows] for key in pictures}, **held, **values}
        path = root / ".parquet" / place / f"{split or 'people'}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(table), path)

    write("whole", "identity", "camera", "split")
    for split in ("train", "query", "gallery"):
        write("named", "identity", "camera", split=split)
        write("both", "identity", "camera", "split", split=split)
        write("bare", "identity", split=split)
        write("two", "identity", split=split, pictures=("photo", "mask"))
    write("empty", "camera", split="train", identity=pyarrow.array([None] * 4, pyarrow.string()))
    write("numbers", "camera", split="train", identity=[1, 1, 2, 2])
    return root


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in TABLES])
def test_tables(before: str, remedies: list[Remedy], people: Path, repair: Callable[..., None]) -> None:
    repair(people, "data.name=identities", before, remedies)


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in FILES])
def test_parquet_files(before: str, remedies: list[Remedy], people: Path, repair: Callable[..., None]) -> None:
    repair(people, "data.name=identities", f"rm people.csv; {before}", remedies)


def test_a_part_of_a_gallery(people: Path, repair: Callable[..., None]) -> None:
    repair(people, "data.name=identities data.test_limit=2", "true", [(r"^(\S+)=2, .* leave it out", "{0}=null", 4)])

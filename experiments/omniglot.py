"""Writes Omniglot's two small sets (Lake et al. 2015) as one table of identities, ready for ``data.name=identities``.

    python -m experiments.omniglot FROM TO

FROM holds `train.parquet` and `test.parquet` with the columns `image`, `name` (alphabet and character) and `camera`
(who drew it), as made of the sets small1 and small2. These share the alphabets Greek and Latin, with the same
pictures, so the test characters that are trained on are left out: of 136 and 156 characters, 136 and 106 stay.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.parquet


def write_table(source: Path, target: Path) -> tuple[int, int, int]:
    """Write `identities.parquet` into a folder.

    Args:
        source: folder with both files.
        target: folder that is made.

    Returns:
        training pictures, test pictures, and test pictures that are left out.
    """
    train, test = (pyarrow.parquet.read_table(source / f"{split}.parquet") for split in ("train", "test"))
    known = pyarrow.compute.is_in(test["name"], value_set=train["name"].combine_chunks())
    kept = test.filter(pyarrow.compute.invert(known))
    parts = [_renamed(train, "train"), _renamed(kept, "test")]
    target.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.concat_tables(parts), target / "identities.parquet")
    return len(train), len(kept), len(test) - len(kept)


def _renamed(table: pyarrow.Table, split: str) -> pyarrow.Table:
    columns = {"image": table["image"], "identity": table["name"], "camera": table["camera"]}
    return pyarrow.table({**columns, "split": pyarrow.array([split] * len(table))})


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FROM", type=Path)
    parser.add_argument("target", metavar="TO", type=Path)
    given = parser.parse_args()
    train, test, left_out = write_table(given.source, given.target)
    print(f"{train:,} pictures to train and {test:,} to test; {left_out:,} of characters that are trained on left out")


if __name__ == "__main__":
    main()

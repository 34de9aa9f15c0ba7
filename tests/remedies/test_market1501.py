"""Does what a refusal of folders in Market-1501's layout says lead to a training on all that is left?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.remedies.coloured_pictures import picture

Remedy = tuple[str, str, int]
"""What the message says, a command of the shell or words that do it ("{0}" is its first group), training images."""

# What a shell does to folders of Market-1501's layout.
MARKET = {
    "bounding_box_train": ("0002_c1s1_000451_03", "0002_c3s1_000551_01", "0007_c2s3_070952_01", "0007_c6s3_077367_05"),
    "query": ("0001_c1s1_001051_00", "0003_c4s6_015641_00"),
    "bounding_box_test": (
        *("-1_c1s1_000401_03", "0000_c1s1_000151_01", "0001_c1s1_001051_03", "0001_c2s1_000301_00"),
        "0003_c1s6_015971_02",
    ),
}
NEW = "c1s1_000009_00.jpg"
FOLDERS: list[tuple[str, list[Remedy]]] = [
    ("mv query other", [(r"lacks the folder (\w+), .* bring back what is missing", "mv other {0}", 4)]),
    (
        "mkdir a b; cp -r [bq]*_* query a; mv [bq]*_* query b",
        [(r"hold \w+: (\S+), (\S+); set (data\.root)", f"{{2}}={place}", 4) for place in ("{0}", "{1}")],
    ),
    ("mkdir -p a/b; mv bounding* query a/b", [(r"Correct (data\.root)", "{0}={root}/a/b", 4)]),
    ("rm query/*", [(r"^(\S+) holds no pictures, .* fetch it again", "cp .whole/query/* {0}", 4)]),
    (
        "cp query/0001* query/odd.jpg",
        [
            (r"^(\S+): .*: (\S+)\. Expected names .* rename", f"mv {{0}}/{{1}} {{0}}/0001_{NEW}", 4),
            (r"^(\S+): .*: (\S+)\. Expected names .* or remove them", "rm {0}/{1}", 4),
        ],
    ),
    *(
        (
            f"cp query/0001* {place}/{name}_{NEW}",
            [
                (rf"^(\S+): .* identity {shown}, .* remove them", f"rm {{0}}/{name}_*", 4),
                (r"^(\S+): .* or correct their names", f"mv {{0}}/{name}_{NEW} {{0}}/{right}_{NEW}", images),
            ],
        )
        for place, name, shown, right, images in (
            ("bounding_box_train", "0000", "0000", "0002", 5),
            ("query", "-1", "-001", "0001", 4),
        )
    ),
    (
        f"cp query/0001* bounding_box_train/0001_{NEW}",
        [("move the pictures of each to one side", "mv bounding_box_train/0001* bounding_box_test", 4)],
    ),
    (
        "mv bounding_box_test/0003* query; rm bounding_box_test/0001*",
        [
            ("or add such pictures", "cp .whole/bounding_box_test/0001* bounding_box_test", 4),
            ("correct identities and cameras", "mv bounding_box_test/0000* bounding_box_test/0003_c9s1_1.jpg", 4),
        ],
    ),
    (
        "echo x > bounding_box_train/0002_c1s1_000451_03.jpg",
        [
            (r"^(\S+) .* replace", "cp query/0001* {0}", 4),
            (r"^(\S+) .* or remove it", "rm {0}", 3),
        ],
    ),
]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set in Market-1501's layout, and a copy of all in ".whole"."""
    root = tmp_path_factory.mktemp("sets") / "market"
    for whole in (root, root / ".whole"):
        for folder, names in MARKET.items():
            for number, name in enumerate(names):
                picture(whole / folder / f"{name}.jpg", number)
    return root


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in FOLDERS])
def test_market_1501(before: str, remedies: list[Remedy], market: Path, repair: Callable[..., None]) -> None:
    repair(market, "data.name=market1501", before, remedies)

"""Do benchmarks refuse names that they do not know before they measure, and always measure what they divide by?"""

from __future__ import annotations

import importlib
import sys

import pytest

from experiments.benchmarks import numerics
from experiments.benchmarks.words import names_among


@pytest.mark.parametrize(
    ("name", "words", "known"),
    [
        ("numerics", ("--precisions", "float16"), "float32, bfloat16"),
        ("frontier", ("--networks", "resnet18"), "resnet32, resnet110, resnet50"),
        ("frontier", ("--methods", "infopro,dgl"), "infopro, greedy"),
        ("frontier", ("--on", "gpu"), "process, ray"),
        ("pipeline", ("--methods", "dgl"), "greedy, infopro"),
        ("transports", ("--ways", "pigeon"), "object_store, memory, tcp"),
        ("fraction", ("--rules", "half"), "keep, none"),
        ("decoders", ("--parts", "all"), "auxiliary, imagenet, steps"),
    ],
)
def test_an_unknown_name_is_refused_at_once(
    name: str, words: tuple[str, ...], known: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"experiments.benchmarks.{name}").main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert words[0] in said and f"there is no '{words[1].split(',')[-1]}'" in said and known in said


def test_known_names_are_read_in_their_order() -> None:
    assert names_among(("a", "b", "c"))("c, a") == ["c", "a"]


def test_float32_is_measured_whatever_else_is_asked_for() -> None:
    assert list(numerics.variants_of(["bfloat16"], compiled=False)) == [
        "float32",
        "bfloat16",
        "bfloat16, channels_last",
    ]
    assert list(numerics.variants_of(["float32", "bfloat16"], compiled=False)) == list(numerics.VARIANTS)

"""Does what a refusal of a plan, or of a measurement, says fit the nodes, without that anything starts?"""

from __future__ import annotations

import dataclasses
import importlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import engine
from engine.benchmarking.benchmark import measure
from engine.errors import EngineError
from engine.learners.numerics import choose_device
from engine.methods import method_of
from engine.planning.known_images import known_facts
from engine.recipes import Numerics, Plan, Recipe, apply_overrides
from engine.runtimes.ray.address import check_answers
from engine.runtimes.ray.placement import check_store_bytes, choose_placement, choose_store, store_bytes_needed
from engine.runtimes.ray.private.folder import choose_temporary_folder

Nodes = list[dict[str, float]]
Words = list[str]

NO_GPU: Nodes = [{"CPU": 4.0}, {"CPU": 2.0}]
GPUS: Nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}]


def refused(words: str, call: Callable[[], Any]) -> re.Match[str]:
    """See a call refused with words that match, and return the match."""
    with pytest.raises(EngineError) as found:
        call()
    match = re.search(words, str(found.value), re.DOTALL)
    assert match, f"the message no longer says {words!r}: {found.value}"
    return match


def planned(words: str, recipe: Recipe) -> tuple[Recipe, Plan]:
    """Return a recipe and a plan with these words."""
    return apply_overrides(recipe, Plan(), words.split())


@pytest.mark.parametrize(
    ("words", "nodes", "remedies"),
    [
        (
            "plan.cpus_per_learner=4",
            NO_GPU,
            [
                ("lower plan.cpus_per_learner", "plan.cpus_per_learner=2"),
                ("lower method.num_segments", "plan.cpus_per_learner=4 method.num_segments=1"),
            ],
        ),
        (
            "plan.gpus_per_learner=1",
            GPUS,
            [
                ("or plan.gpus_per_learner .fractions", "plan.gpus_per_learner=0.5"),
                ("lower method.num_segments", "plan.gpus_per_learner=1 method.num_segments=2"),
            ],
        ),
        ("plan.gpus_per_learner=1", NO_GPU, [(r"set (plan.gpus_per_learner=0), lower method", "{0}")]),
        (
            "plan.gpus_per_learner=1 plan.cpus_per_learner=4",
            NO_GPU,
            [(r"set (plan.gpus_per_learner=0) and lower plan.cpus_per_learner", "{0} plan.cpus_per_learner=2")],
        ),
        (
            "plan.placement=STRICT_PACK plan.cpus_per_learner=2",
            NO_GPU,
            [
                (r"set (plan.placement=PACK), lower", "{0} plan.cpus_per_learner=2"),
                ("lower plan.cpus_per_learner", "plan.placement=STRICT_PACK plan.cpus_per_learner=1"),
            ],
        ),
        # Where other places do not help, they are not named.
        (
            "plan.placement=STRICT_PACK plan.cpus_per_learner=4",
            NO_GPU,
            [("; lower plan.cpus", "plan.cpus_per_learner=2")],
        ),
        ("plan.placement=STRICT_SPREAD", NO_GPU, [(r"set (plan.placement=SPREAD)", "{0}")]),
        (
            "plan.placement=STRICT_SPREAD",
            NO_GPU,
            [("lower method.num_seg", "plan.placement=STRICT_SPREAD method.num_segments=2")],
        ),
    ],
)
def test_a_plan_that_does_not_fit(
    words: str, nodes: Nodes, remedies: list[tuple[str, str]], tiny_recipe: Callable[..., Recipe]
) -> None:
    def place(given: str) -> None:
        recipe, plan = planned(given, tiny_recipe())
        choose_placement(plan, recipe, recipe.method.num_segments, nodes)

    for says, meant in remedies:
        found = refused(f"the plan does not fit.*{says}", lambda: place(words))
        place(meant.format(*found.groups()))
    more = refused("or add nodes", lambda: place(words)) and [*nodes, *nodes, *nodes]
    recipe, plan = planned(words, tiny_recipe())
    if "gpus" not in words or nodes is GPUS:
        choose_placement(dataclasses.replace(plan, placement=None), recipe, 3, more)


@pytest.fixture
def needed(tiny_recipe: Callable[..., Recipe]) -> Callable[..., int]:
    """A function: bytes of object store that a recipe needs with these words."""
    large = "data.name=synthetic data.num_classes=10 data.image_size=224 data.batch_size=64 plan.window=8"

    def run(words: str, transport: Any = "object_store") -> int:
        given = [word for word in large.split() if word.partition("=")[0] != words.partition("=")[0]]
        limits = {"train_limit": None, "test_limit": None, "synthetic_images": 256}
        recipe, plan = planned(" ".join([*given, *words.split()]), tiny_recipe(data=limits))
        facts, _ = known_facts(recipe)
        return store_bytes_needed(method_of(recipe).team(recipe, facts), plan, transport)

    return run


FEWER = ["plan.window=1", "data.batch_size=2"]


@pytest.mark.slow
@pytest.mark.parametrize("fewer", FEWER)
def test_a_store_that_is_smaller_than_the_messages(fewer: str, needed: Callable[..., int]) -> None:
    stated = Plan(object_store_bytes=max(80 * 2**20, *map(needed, FEWER)))
    words = r"need ([\d,]+) bytes; raise it, or lower plan.window or data.batch_size"
    found = refused(words, lambda: choose_store(stated, needed(""), 10**12, "object_store"))
    raised = Plan(object_store_bytes=int(found[1].replace(",", "")))
    assert choose_store(raised, needed(""), 10**12, "object_store").bytes == needed("")
    choose_store(stated, needed(fewer), 10**12, "object_store")
    words = "lower plan.window or data.batch_size, or start the nodes with a larger --object-store-memory"
    refused(words, lambda: check_store_bytes(needed(""), stated.object_store_bytes or 0))
    check_store_bytes(needed(fewer), stated.object_store_bytes or 0)
    check_store_bytes(needed(""), needed(""))


@pytest.mark.parametrize(
    ("stated", "free", "smaller"),
    [
        # The plan says more than there is, though less would do.
        (3 * 10**9, 10**9, "leave plan.object_store_bytes out, or"),
        (3 * 10**9, 2 * 10**8, "leave plan.object_store_bytes out and lower plan.window or data.batch_size, or"),
        (None, 2 * 10**8, "lower plan.window or data.batch_size, or"),
    ],
)
def test_shared_memory_that_is_too_small(stated: int | None, free: int, smaller: str) -> None:
    plan, bytes_of_messages = Plan(object_store_bytes=stated), 8 * 10**8
    words = rf"set (plan.transport=direct), .*{smaller}.*--shm-size=(\d+)g"
    found = refused(words, lambda: choose_store(plan, bytes_of_messages, free, "object_store"))
    assert choose_store(plan, bytes_of_messages, free, "direct").on_disk
    fewer = bytes_of_messages if "lower" not in smaller else 10**8
    assert choose_store(Plan(), fewer, free, "object_store").bytes <= free
    larger = int(found[2]) * 10**9
    assert choose_store(plan, bytes_of_messages, larger, "object_store").bytes <= larger


def test_fewer_messages_are_no_remedy_where_the_smallest_store_of_ray_is_too_large() -> None:
    words = r"free; set (plan.transport=direct), which needs little of it, or give this machine .*--shm-size=(\d+)g"
    for plan in (Plan(), Plan(object_store_bytes=10**9)):
        found = refused(words, lambda given=plan: choose_store(given, 10**6, 6 * 10**7, "object_store"))
        assert choose_store(plan, 10**6, int(found[2]) * 10**9, "object_store").bytes <= int(found[2]) * 10**9


def test_a_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch, tiny_recipe: Callable[..., Recipe]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asked, words in (
        (Numerics(device="cuda"), r"set (numerics\.device=cpu)"),
        (Numerics(precision="float16"), r"set (numerics\.precision=bfloat16)"),
    ):
        recipe = tiny_recipe(numerics=asked)
        found = refused(words, lambda given=recipe: choose_device(given.numerics, False))
        assert choose_device(planned(found[1], recipe)[0].numerics, False).type == "cpu"


def test_the_form_of_an_address() -> None:
    found = refused(r"HOST:PORT .* such as (\S+)", lambda: check_answers("somewhere"))
    with pytest.raises(EngineError, match="nothing answers there"):
        check_answers(found[1].replace("10.0.0.1:6379", "127.0.0.1:1"))


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name."""
    folder = Path(tempfile.mkdtemp(prefix="short", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_no_folder_for_a_private_ray(short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) == short)
    for variable in ("RAY_TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("long" * 20)))
    found = refused(r"set TMPDIR to .* at most (\d+) bytes, or use --on process", choose_temporary_folder)
    assert len(str(short)) <= int(found[1])
    monkeypatch.setenv("TMPDIR", str(short))
    assert choose_temporary_folder() == short


@pytest.fixture
def begin(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function: begin a measurement with these words and arguments; it ends when the ways of others would be next."""

    class Accepted(Exception):
        """All is checked."""

    def accept(*_: Any) -> None:
        raise Accepted

    # The function of this name hides its module.
    monkeypatch.setattr(importlib.import_module("engine.benchmarking.benchmark"), "BaselineCases", accept)

    def run(words: str = "", **named: Any) -> None:
        recipe, _ = planned(words, tiny_recipe())
        with pytest.raises(Accepted):
            measure(recipe, engine.Plan(executor="process"), **named)

    return run


@pytest.mark.parametrize(
    ("words", "wrong", "says", "meant"),
    [
        ("", {"steps": 0}, "expected (1) to", {"steps": 1}),
        ("", {"rounds": 9999}, r"expected 1 to (\d+)", {"rounds": 1000}),
        ("", {"against": ["ffsdp"]}, "did you mean '(fsdp)'", {"against": ["fsdp"]}),
        ("", {"ks": [0]}, "such as --k (1,2,4)", {"ks": [1, 2, 4]}),
        ("method.kind=end_to_end", {"ks": [2]}, "leave (--k) out", {}),
    ],
)
def test_arguments_of_a_measurement(
    words: str, wrong: dict[str, Any], says: str, meant: dict[str, Any], begin: Callable[..., None]
) -> None:
    refused(says, lambda: begin(words, **wrong))
    begin(words, **meant)


def test_a_measurement_of_a_method_that_does_not_cut(begin: Callable[..., None]) -> None:
    found = refused("or choose (infopro)", lambda: begin("method.kind=end_to_end", ks=[2]))
    begin(f"method.kind={found[1]}", ks=[2])


def test_a_measurement_with_more_threads_than_cores(begin: Callable[..., None]) -> None:
    found = refused(
        r"there are (\d+) cores: give at most as many", lambda: begin("numerics.device=cpu numerics.threads=1024")
    )
    begin(f"numerics.device=cpu numerics.threads={found[1]}")


def test_images_of_unknown_size(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(data={"name": "folder", "root": "/nowhere/at/all", "train_limit": None, "test_limit": None})
    words = r"give (data\.image_size), or data.root=DIR"
    found = refused(words, lambda: known_facts(recipe))
    assert known_facts(planned(f"{found[1]}=32", recipe)[0])[0].image_shape == (3, 32, 32)

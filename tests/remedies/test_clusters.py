"""Does what is said of a cluster that cannot be joined make it joined? No Ray is started."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from engine.recipes import Plan, apply_overrides, load_recipe
from engine.runtimes.ray import bundles, cluster
from engine.runtimes.ray.address import check_answers
from engine.runtimes.ray.building import Building
from engine.runtimes.ray.placement import Placement
from engine.runtimes.ray.tokens import use_token
from engine.search import Sweep, needs

TOKEN, OTHER = "0123456789abcdef" * 4, "f" * 64
Refused = Callable[..., re.Match[str]]
Head = Callable[[str | None], str]
Surround = Callable[[dict[str, str]], None]


@pytest.fixture
def surround(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Surround]:
    """A function: what Ray finds around it, and nothing else; as a new command finds it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")}

    def run(variables: dict[str, str]) -> None:
        for name in before:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    yield run
    monkeypatch.undo()
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


NO_TOKEN = r"copy the cluster's\s+into (~/\.ray/auth_token), or name its file in (RAY_AUTH_TOKEN_PATH)"


@pytest.mark.parametrize("has", [None, OTHER], ids=["no token", "another token"])
@pytest.mark.parametrize("remedy", [0, 1], ids=["in the home folder", "elsewhere"])
def test_a_cluster_that_demands_another_token(
    has: str | None, remedy: int, head: Head, surround: Surround, tmp_path: Path, refused: Refused
) -> None:
    elsewhere = tmp_path / "token"
    if has:
        elsewhere.write_text(has)
    surround({"RAY_AUTH_TOKEN_PATH": str(elsewhere)} if has else {})
    address = head(TOKEN)
    found = refused(NO_TOKEN, lambda: use_token(address, address))
    if remedy == 0:
        file = Path(os.path.expanduser(found[1]))
        file.parent.mkdir()
        file.write_text(TOKEN)
        surround({})
    else:
        elsewhere.write_text(TOKEN)
        surround({found[2]: str(elsewhere)})
    use_token(address, address)


def test_a_cluster_that_demands_a_token_where_there_is_to_be_none(
    head: Head, surround: Surround, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    path = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    address = head(TOKEN)
    for number in (0, 1):
        surround({**path, "RAY_AUTH_MODE": "disabled"})
        found = refused(r"unset it, or set (\w+)=(\w+)", lambda: use_token(address, address))
        surround({**path, found[1]: found[2]} if number else path)
        use_token(address, address)


def test_a_cluster_that_demands_no_token(head: Head, surround: Surround, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "token").write_text(TOKEN)
    path = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    surround(path)
    address = head(None)
    says = r"start it with RAY_AUTH_MODE=token on every node .*`ray get-auth-token --generate`.*or set (\w+)=(\w+) to"
    found = refused(says, lambda: use_token(address, address))
    surround({**path, found[1]: found[2]})
    use_token(address, address)
    # Started with a token, the head demands it.
    surround(path)
    again = head(TOKEN)
    use_token(again, again)


def test_an_address_without_a_cluster(head: Head, refused: Refused) -> None:
    says = r"start one with .*RAY_AUTH_MODE=token ray start --head.*or leave (plan\.address) out for a private Ray"
    field = refused(says, lambda: check_answers("127.0.0.1:1"))[1]
    recipe, plan = apply_overrides(load_recipe("infopro_digits"), Plan(), ["plan.address=127.0.0.1:1"])
    assert apply_overrides(recipe, plan, [f"{field}=null"])[1].address is None
    with socket.create_server(("127.0.0.1", 0)) as another, futures.ThreadPoolExecutor(1) as beside:
        answered = beside.submit(lambda: another.accept()[0].close())
        refused("is no head of a Ray cluster.*" + says, lambda: check_answers(f"127.0.0.1:{another.getsockname()[1]}"))
        answered.result()
    # What a cluster's head says is what any server of its protocol says.
    assert check_answers(head(TOKEN))


class Group:
    """A placement group that is ready when there is room."""

    def __init__(self) -> None:
        self.ready = False

    def wait(self, seconds: float) -> bool:
        return self.ready


PLACEMENT = Placement(2, 1.0, 0.0, "PACK", 4)


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([{"CPU": 1.0}], "add nodes, or lower what the plan asks for"),
        ([{"CPU": 1.0}, {"CPU": 1.0}], "wait, lower what the plan asks for, or add nodes"),
    ],
    ids=["a node is lost", "others use them"],
)
def test_nodes_without_room(
    nodes: list[dict[str, float]], says: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Ray's scheduler does is left out: a group is ready where what is free holds it."""
    free = dict.fromkeys(range(len(nodes)), 0.0)
    monkeypatch.setattr(bundles, "node_resources", lambda: nodes)

    def reserve(placement: Placement) -> None:
        group = Group()
        group.ready = sum(free.values()) >= placement.actors
        bundles.wait_for_group(group, placement, 0.0)

    refused(says, lambda: reserve(PLACEMENT))
    nodes.append({"CPU": 4.0})
    free[len(nodes)] = 4.0
    reserve(PLACEMENT)
    free.clear()
    free[0] = 1.0
    reserve(dataclasses.replace(PLACEMENT, actors=1))
    if "wait" in says:
        free[1] = 1.0
        reserve(PLACEMENT)


@pytest.mark.parametrize("strategy", ["STRICT_SPREAD", "STRICT_PACK"])
def test_trials_that_leave_no_room_for_their_own_processes(
    strategy: Any, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would wait for ever: its strategy is for all bundles of a trial, that of its own process included."""
    small, large = {"node:10.0.0.1": 1.0, "CPU": 1.0}, {"node:10.0.0.2": 1.0, "CPU": 4.0}
    nodes, home = [small, large], [small]
    views = SimpleNamespace(
        is_initialized=lambda: True,
        nodes=lambda: [{"NodeID": "here", "Resources": home[0]}],
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "here"),
    )
    monkeypatch.setattr(needs, "ray", views)
    monkeypatch.setattr(needs, "node_resources", lambda: nodes)
    space = {"optimizer.learning_rate": tune.choice([0.1, 0.2])}
    sweep = Sweep("s", "greedy_digits", space, fields=("method.num_segments=2",), scheduler="none", num_samples=9)
    strict = Plan(address="auto", cpus_per_learner=1, placement=strategy)

    def look(plan: Plan) -> int:
        return needs.Needs(sweep, sweep.base(), plan).at_once(None)

    says = {
        "STRICT_SPREAD": r"other nodes, which are 1, have no room for 2 .*; set (plan\.placement=SPREAD), or add nodes",
        "STRICT_PACK": r"that node has no room for 2 .*; set (plan\.placement=PACK), or give the command on a node",
    }
    word = refused(says[strategy], lambda: look(strict))[1]
    assert look(apply_overrides(load_recipe("infopro_digits"), strict, [word])[1]) == 2
    if strategy == "STRICT_PACK":
        home[0] = large
    else:
        nodes.append({"node:10.0.0.3": 1.0, "CPU": 1.0})
    assert look(strict) == (2 if strategy == "STRICT_PACK" else 1)


def test_a_learner_that_starts_too_slowly(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is that of a clock of its own, in which a learner takes a minute.

    That a Ray that is started as is said has learners that are not nice, `tests/cli/test_doctor_cluster.py` tries.
    """

    class Slow:
        build = None

        def __init__(self) -> None:
            self.build = self

        def remote(self) -> str:
            return "answer"

    class Places:
        def create(self, name: str, builder: Any) -> Any:
            return Slow()

    monkeypatch.setattr("engine.runtimes.ray.building.check_alive", lambda: None)

    def build(plan: Plan) -> bool:
        seconds = plan.start_timeout_seconds
        monkeypatch.setattr(ray, "wait", lambda given, **_: ([], list(given)) if seconds < 60 else (list(given), []))
        return Building(["segment0"], Places(), None, seconds, 0.0).is_over(0.0)  # type: ignore[arg-type]

    slow = Plan(start_timeout_seconds=30)
    field = refused(r"within (plan\.start_timeout_seconds)=30; raise it", lambda: build(slow))[1]
    assert build(apply_overrides(load_recipe("infopro_digits"), slow, [f"{field}=90"])[1])
    refused(r"unless its Ray is started with RAY_worker_niceness=0", lambda: build(slow))
    monkeypatch.setattr("engine.runtimes.ray.building.current_private_ray", lambda: "one")
    refused(r"raise it if this machine is slow$", lambda: build(slow))


def test_a_head_that_lets_nobody_in(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers is taken for a head, until Ray itself says that it cannot be joined."""

    def refuse(**_: Any) -> None:
        raise ConnectionError("the cluster is going down")

    started: list[int] = []
    monkeypatch.setattr(cluster, "check_answers", lambda address: address)
    monkeypatch.setattr(cluster, "use_token", lambda address, found: None)
    monkeypatch.setattr(cluster, "keep_output_clean", lambda: None)
    monkeypatch.setattr(cluster.last_exit, "take_over", lambda end: None)
    monkeypatch.setattr(cluster, "start_private_ray", lambda store, **_: started.append(store))
    monkeypatch.setattr(ray, "init", refuse)
    joining = Plan(address="10.0.0.1:6379")
    says = r"no Ray answers there .*or leave (plan\.address) out for a private Ray"
    field = refused(says, lambda: cluster.connect(joining, 1))[1]
    alone = apply_overrides(load_recipe("infopro_digits"), joining, [f"{field}=null"])[1]
    assert cluster.connect(alone, 1) and started

"""Does `local-learning doctor --address` see every node of a cluster, and what is different there?"""

from __future__ import annotations

import dataclasses
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

import engine
from engine.cli import checks_of_nodes
from engine.cli.checks_of_nodes import Node, look_here, node_checks, node_table

ENGINE = Path(engine.__file__).resolve().parent
HERE = look_here()


def node_like_here(name: str = "10.0.0.3", **differences: str) -> Node:
    return Node(name, "lab3", {**HERE.versions, **differences}, cpus=8.0, gpus=1.0)


def test_what_is_looked_at_here() -> None:
    assert list(HERE.versions) == ["python", "torch", "ray", "engine", "source"]
    assert HERE.versions["ray"] == ray.__version__
    assert HERE.versions["engine"] == engine.__version__
    assert HERE.cpus is None


def test_the_digest_changes_with_any_file_and_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "engine"
    shutil.copytree(ENGINE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    spec = type("Spec", (), {"origin": str(copy / "__init__.py")})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    assert look_here().versions == HERE.versions
    (copy / "cli/check.py").rename(copy / "cli/checked.py")
    renamed = look_here().versions["source"]
    assert renamed != HERE.versions["source"]
    (copy / "cli/checked.py").write_bytes(b"")
    assert look_here().versions["source"] not in {renamed, HERE.versions["source"]}


def test_an_engine_that_is_not_there_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert look_here().versions["engine"] == "absent"


def test_nodes_as_here_are_right() -> None:
    checks = list(node_checks(HERE, [node_like_here("10.0.0.2"), node_like_here("10.0.0.3")]))
    assert [(check.status, check.subject) for check in checks] == [("ok", "node 10.0.0.2"), ("ok", "node 10.0.0.3")]
    assert checks[0].found == "as here; 8 CPUs, 1 GPUs"


@pytest.mark.parametrize(
    ("name", "found", "remedy"),
    [
        ("python", "python 3.9.1, but", "give that node Python"),
        ("torch", "torch 3.9.1, but", f"pip install 'torch=={HERE.versions['torch']}'"),
        ("ray", "ray 3.9.1, but", f"pip install 'ray=={ray.__version__}'"),
        ("engine", "local-learning 3.9.1, but", "`ray up`"),
        ("source", "digest 3.9.1, but", "`ray up`"),
    ],
)
def test_what_is_different_is_a_problem_with_node_package_and_remedy(name: str, found: str, remedy: str) -> None:
    right, wrong = node_checks(HERE, [node_like_here("10.0.0.2"), node_like_here(**{name: "3.9.1"})])
    assert right.status == "ok"
    assert (wrong.status, wrong.subject) == ("problem", "node 10.0.0.3")
    assert found in wrong.found
    assert HERE.versions[name] in wrong.found
    assert remedy in wrong.remedy


def test_learners_that_give_way_to_others_are_a_warning() -> None:
    right, nice = node_like_here("10.0.0.2"), dataclasses.replace(node_like_here(), niceness=15)
    first, second, warning = node_checks(HERE, [dataclasses.replace(right, niceness=0), nice])
    assert (first.status, second.status) == ("ok", "ok")
    assert (warning.status, warning.subject) == ("warning", "node 10.0.0.3")
    assert "niceness 15" in warning.found
    assert "RAY_worker_niceness=0 ray start" in warning.remedy


def test_a_node_that_does_not_answer_is_one_problem() -> None:
    silent = Node("10.0.0.3", "lab3", dict.fromkeys(HERE.versions, "no answer"))
    (check,) = node_checks(HERE, [silent])
    assert check.status == "problem"
    assert "did not answer" in check.found


def test_the_table_shows_all_side_by_side() -> None:
    header, here, node = node_table(HERE, [node_like_here(torch="1.0")])
    assert header.split() == ["node", "host", "python", "torch", "ray", "engine", "source", "CPUs", "GPUs"]
    assert here.split()[0] == "here"
    assert node.split()[:4] == ["10.0.0.3", "lab3", HERE.versions["python"], "1.0"]
    assert node.split()[-2:] == ["8", "1"]
    assert node.index("1.0", 12) == header.index("torch")


def test_an_address_at_which_nothing_answers(command: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    answer = command("doctor", "--address", f"127.0.0.1:{port}")
    assert answer.code == 2
    assert "nothing answers there" in answer.err


def test_without_an_address_no_cluster_is_asked(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_of_nodes, "look_at_nodes", lambda address: pytest.fail("nobody asked for it"))
    answer = command("doctor", "--no-ray", "--json")
    assert answer.code == 0
    assert "nodes" not in answer.json


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two nodes, of which the second has another copy of the engine, and learners that are not nice."""
    folder = tmp_path_factory.mktemp("other_copy")
    shutil.copytree(ENGINE, folder / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "engine/errors.py").open("a") as file:
        file.write("# another version\n")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=2, env_vars={"PYTHONPATH": str(folder), "RAY_worker_niceness": "0"})
    yield made
    made.shutdown()


@pytest.mark.slow
def test_every_node_of_a_real_cluster_is_asked(cluster: Cluster, command: Any) -> None:
    answer = command("doctor", "--address", cluster.address, "--json")
    assert answer.code == 2
    here, *nodes = answer.json["nodes"]
    assert here["versions"] == HERE.versions
    assert sorted(node["cpus"] for node in nodes) == [1.0, 2.0]
    first, second = sorted(nodes, key=lambda node: node["cpus"])
    assert first["versions"] == HERE.versions
    assert {name for name, version in second["versions"].items() if version != HERE.versions[name]} == {"source"}
    assert (first["niceness"], second["niceness"]) == (15, 0)
    (problem,) = (check for check in answer.json["checks"] if check["status"] == "problem")
    assert problem["subject"] == f"node {second['name']}"
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_node_that_is_too_slow_is_not_waited_for(cluster: Cluster) -> None:
    nodes = checks_of_nodes.look_at_nodes(cluster.address, timeout_seconds=0.0)
    assert len(nodes) == 2
    assert all(set(node.versions.values()) == {"no answer"} for node in nodes)

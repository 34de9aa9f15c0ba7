"""Checks of `local-learning doctor`: the same Python, torch, Ray and engine on all nodes of a cluster.

Each node is asked by a small task of its own, which imports nothing that takes time and holds no CPU, so a busy cluster
answers, too. What is compared is this process: it sends recipes to the nodes and takes weights from them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import platform
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.cli.check import Check
from engine.cli.outcome import aligned
from engine.cli.words import PROGRAM

_TIMEOUT_SECONDS = 60.0
_ABSENT = "absent"
_NO_ANSWER = "no answer"
_PACKAGES = ("torch", "ray")
_Seen = tuple[dict[str, str], int | None]
_COPY = "`ray up` with the cluster's file copies this folder to every node and installs it"


@dataclass(frozen=True)
class Node:
    """What one node, or this process, works with.

    Attributes:
        name: its address, ``10.0.0.3``; several nodes on one machine are told apart by their identifiers.
        host: the machine's own name.
        versions: version by name: python, torch, ray, engine, and ``source``, a digest of the engine's files.
        cpus: CPUs that Ray offers there; None for this process, which is no node.
        gpus: GPUs that Ray offers there; None for this process.
        niceness: of learners there; None for this process, and where it is not known.
    """

    name: str
    host: str
    versions: Mapping[str, str]
    cpus: float | None = None
    gpus: float | None = None
    niceness: int | None = None


def look_here() -> Node:
    """Return what this process works with."""
    versions, _ = _looker()()
    return Node("here", socket.gethostname(), versions)


def look_at_nodes(address: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> list[Node]:
    """Ask every node of a cluster that is alive what it works with.

    Args:
        address: ``auto``, or HOST:PORT of the cluster's head.
        timeout_seconds: how long all nodes together may take; a late one has ``no answer`` for its versions.

    Raises:
        PlanError: nothing answers at the address.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from engine.recipes import Plan
    from engine.runtimes.ray.cluster import connect, disconnect

    owned = connect(Plan(address=address), needed_store_bytes=0)
    try:
        alive = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeManagerAddress"])
        task = ray.remote(num_cpus=0, max_retries=0)(_looker())
        answers = [
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
            for node in alive
        ]
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=timeout_seconds)
        found = [_answer(answer) if answer in ready else _nothing(_NO_ANSWER) for answer in answers]
    finally:
        if owned:
            disconnect()
    addresses = [node["NodeManagerAddress"] for node in alive]
    return [
        Node(
            name=node["NodeManagerAddress"]
            + (f" {node['NodeID'][:6]}" if addresses.count(node["NodeManagerAddress"]) > 1 else ""),
            host=node["NodeManagerHostname"],
            versions=versions,
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
            niceness=niceness,
        )
        for node, (versions, niceness) in zip(alive, found, strict=True)
    ]


def _answer(reference: Any) -> _Seen:
    import ray

    try:
        seen: _Seen = ray.get(reference)
    except Exception as error:  # whatever a node's own packages raise
        logging.getLogger(__name__).info("a node could not be asked", exc_info=error)
        return _nothing(f"failed: {type(error).__name__}")
    return seen


def _nothing(why: str) -> _Seen:
    return dict.fromkeys(("python", *_PACKAGES, "engine", "source"), why), None


def _looker() -> Callable[[], _Seen]:
    """Return a function that says which versions there are and how nice a process is, without this engine.

    It is defined here, inside, so that Ray sends its code: a function of a module would be looked for in the node's own
    engine, which may be older or missing, and that is what it is to find out.
    """
    packages, absent = _PACKAGES, _ABSENT

    def look() -> _Seen:
        import os
        import re

        found = {"python": platform.python_version()}
        for package in packages:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = absent
        spec = importlib.util.find_spec("engine")
        if spec is None or spec.origin is None:
            return {**found, "engine": absent, "source": absent}, os.nice(0)
        folder = Path(spec.origin).parent
        stated = re.search(r'^__version__ = "(.+)"$', Path(spec.origin).read_text(encoding="utf-8"), re.MULTILINE)
        digest = hashlib.sha256()
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        return {**found, "engine": stated[1] if stated else absent, "source": digest.hexdigest()[:12]}, os.nice(0)

    return look


def node_checks(here: Node, nodes: Sequence[Node]) -> Iterator[Check]:
    """Yield a check for each node: a problem for everything that is not as it is here."""
    for node in nodes:
        subject = f"node {node.name}"
        if set(node.versions.values()) == {_NO_ANSWER}:
            remedy = "its logs are in /tmp/ray/session_latest/logs there; `ray up` with its file starts it anew"
            yield Check("problem", subject, f"is alive, but did not answer within {_TIMEOUT_SECONDS:g} s", remedy)
            continue
        wrong = [name for name, version in here.versions.items() if node.versions.get(name) != version]
        for name in wrong:
            found, expected = node.versions.get(name, _ABSENT), here.versions[name]
            yield Check("problem", subject, f"{_spoken(name)} {found}, but {expected} here", _remedy(name, expected))
        if not wrong:
            cpus, gpus = f"{node.cpus or 0:g} CPUs", f"{node.gpus or 0:g} GPUs"
            yield Check("ok", subject, f"as here; {cpus}, {gpus}")
        if node.niceness:
            found = (
                f"learners run with niceness {node.niceness}: whatever else is busy there leaves them next to nothing"
            )
            remedy = "on a machine that is theirs alone nothing; otherwise RAY_worker_niceness=0 ray start ... there"
            yield Check("warning", subject, found, remedy)


def _spoken(name: str) -> str:
    return {"engine": PROGRAM, "source": f"the files of {PROGRAM} have digest"}.get(name, name)


def _remedy(name: str, expected: str) -> str:
    if name == "python":
        return f"give that node Python {expected}: weights may differ between versions, and Ray may refuse it"
    if name in _PACKAGES:
        return f"on that node: pip install '{name}=={expected}'; or {_COPY}"
    return f"{_COPY}; a node that joined since may have an older copy"


def node_table(here: Node, nodes: Sequence[Node]) -> list[str]:
    """Return this process and all nodes side by side, as lines."""
    rows = [("node", "host", *here.versions, "CPUs", "GPUs")]
    for node in (here, *nodes):
        amounts = ("" if amount is None else f"{amount:g}" for amount in (node.cpus, node.gpus))
        rows.append((node.name, node.host, *(node.versions.get(name, _ABSENT) for name in here.versions), *amounts))
    return aligned(rows, indent="")


def to_json(here: Node, nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """Return this process and all nodes as JSON values."""
    return [asdict(node) for node in (here, *nodes)]

"""A cluster of several nodes on this machine, Ray's own for tests, from which a node can be taken away."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ray._private.state import GlobalState
from ray._raylet import AuthenticationTokenLoader, Config, GcsClientOptions  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster

from experiments.faults.fault import LEARNERS, NODE, Case

_PAUSE_SECONDS = 0.5


class Nodes:
    """A head with room for nobody, and a node for each learner of a case.

    Args:
        case: the training.

    Attributes:
        address: HOST:PORT of the head.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._taken: set[int] = set()
        self.address: str = self._cluster.address
        for _ in LEARNERS[case.recipe]:
            self._cluster.add_node(num_cpus=1)

    def take_away(self, folder: Path) -> None:
        """Take away the nodes whose moment has come, without notice; for each of them another one comes.

        Args:
            folder: that says what has come.
        """
        for number, fault in enumerate(self._case.faults):
            if fault.kind == NODE and number not in self._taken:
                with contextlib.suppress(OSError, ValueError):
                    node = json.loads((folder / f"fault-{number}.json").read_text())["node"]
                    self._taken.add(number)
                    self._cluster.remove_node(self._node(node), allow_graceful=False)
                    self._cluster.add_node(num_cpus=1)

    def _node(self, node: str) -> object:
        return next(each for each in self._cluster.worker_nodes if each.node_id == node)

    def groups_left(self, seconds: float) -> list[str]:
        """Return in words the placement groups that a command has left; it has so many seconds to give them back."""
        state = GlobalState()
        state._initialize_global_state(
            GcsClientOptions.create(self.address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
        )
        deadline = time.monotonic() + seconds
        try:
            while True:
                table = state.placement_group_table()
                left = [f"placement group {name}" for name, group in table.items() if group["state"] != "REMOVED"]
                if not left or time.monotonic() > deadline:
                    return left
                time.sleep(_PAUSE_SECONDS)
        finally:
            state.disconnect()

    def close(self) -> None:
        """End the cluster."""
        self._cluster.shutdown()


@contextlib.contextmanager
def nodes_for(case: Case, variables: Mapping[str, str], folder: Path) -> Iterator[Nodes | None]:
    """Give the cluster on which a case's learners live, where a node of theirs is to be taken away; else none.

    Args:
        case: the training.
        variables: environment of all its processes; this process has it, too, as long as the cluster lives.
        folder: for the cluster's token.
    """
    if all(fault.kind != NODE for fault in case.faults):
        yield None
        return
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    before = dict(os.environ)
    # With Ray's own niceness, 15, learners do not start beside anything busy.
    os.environ |= {
        **variables,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_worker_niceness": "0",
    }
    nodes = None
    try:
        _let_ray_look_at_tokens()
        nodes = Nodes(case)
        yield nodes
    finally:
        if nodes is not None:
            nodes.close()
        os.environ.clear()
        os.environ |= before
        _let_ray_look_at_tokens()


def _let_ray_look_at_tokens() -> None:
    """Let Ray forget whether, and with which token, this process talked to another one."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()

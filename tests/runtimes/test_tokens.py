"""Does a training join no cluster that anybody could use, and say what to do where tokens do not fit?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from engine.errors import PlanError
from engine.runtimes.ray.tokens import use_token

TOKEN = "0123456789abcdef" * 4
Head = Callable[[str | None], str]


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Set what Ray looks at, and let it look anew."""

    def set_to(mode: str | None, token: str | None) -> None:
        path = tmp_path / "token"
        path.write_text(token or "")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path)) if token else monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("RAY_AUTH_MODE", mode) if mode else monkeypatch.delenv("RAY_AUTH_MODE")
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    yield set_to
    monkeypatch.undo()
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@pytest.mark.parametrize("mode", [None, "token"])
def test_a_cluster_that_demands_this_token_is_joined_with_it(
    mode: str | None, head: Head, surroundings: Callable[..., None]
) -> None:
    surroundings(mode, TOKEN)
    address = head(TOKEN)
    use_token(address, address)
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize(
    ("mode", "here", "there", "words"),
    [
        (None, TOKEN, None, r"demands no token, so whoever .*RAY_AUTH_MODE=token on every.*RAY_AUTH_MODE=disabled to"),
        ("token", TOKEN, None, "demands no token"),
        (None, None, None, "demands no token"),
        (None, None, TOKEN, "demands a token, and there is none here; .*RAY_AUTH_TOKEN_PATH"),
        (None, "f" * 64, TOKEN, "demands another token than the one here"),
        ("disabled", TOKEN, TOKEN, "demands a token, but RAY_AUTH_MODE=disabled; unset it"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(
    mode: str | None,
    here: str | None,
    there: str | None,
    words: str,
    head: Head,
    surroundings: Callable[..., None],
) -> None:
    surroundings(mode, here)
    address = head(there)
    with pytest.raises(PlanError, match=rf"plan\.address=auto: the cluster {words}"):
        use_token("auto", address)


def test_who_says_so_joins_a_cluster_without_a_token(head: Head, surroundings: Callable[..., None]) -> None:
    surroundings("disabled", None)
    address = head(None)
    use_token(address, address)
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.parametrize("mode", [None, "disabled"])
def test_where_nobody_can_be_asked_ray_decides(
    mode: str | None, surroundings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    surroundings(mode, None)
    use_token("auto", None)
    monkeypatch.setenv("RAY_USE_TLS", "1")
    use_token("10.0.0.1:6379", "10.0.0.1:6379")
    assert os.environ.get("RAY_AUTH_MODE") == mode


REAL = """
import os, ray
from ray.cluster_utils import Cluster
from engine.errors import PlanError
from engine.recipes import Plan
from engine.runtimes.ray.cluster import connect, disconnect
made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for mode in ("token", None, "disabled"):
    os.environ.pop("RAY_AUTH_MODE", None)
    if mode is not None:
        os.environ["RAY_AUTH_MODE"] = mode
    try:
        connect(Plan(address=made.address), 1)
        print("joined")
        disconnect()
    except PlanError as error:
        print("refused:", error)
made.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "outcomes"), [("token", ["joined", "joined", "refused"]), ("disabled", ["refused", "refused", "joined"])]
)
def test_a_real_cluster(mode: str, outcomes: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REAL],
        env={**os.environ, "RAY_AUTH_MODE": mode},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == outcomes, done.stdout + done.stderr

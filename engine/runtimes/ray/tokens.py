"""Tokens of clusters: joined is what demands one, unless the user says otherwise.

A client of Ray that has a token joins a cluster without any, and nobody hears that whoever reaches its ports can run
code there. Where a cluster demands another token, Ray tries again for 20 s and does not say why.
"""

from __future__ import annotations

import os

from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from engine.errors import PlanError

_MODE = "RAY_AUTH_MODE"
_ANSWER_SECONDS = 5.0
# From gcs_service.proto: answered by every head, and changes nothing.
_QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def use_token(address: str, found: str | None) -> None:
    """Let this process join a cluster with its token, which becomes Ray's mode for the life of the process.

    Nothing is changed where the user has set RAY_AUTH_MODE.

    Args:
        address: as the plan says it, for messages.
        found: HOST:PORT of the cluster's head; None where only Ray knows.

    Raises:
        PlanError: the cluster demands no token, another one, or one where RAY_AUTH_MODE says that there is none.
    """
    mode, demands = os.environ.get(_MODE), None if found is None else _is_refused(found, None)
    if mode is not None and mode.lower() != "token":
        if demands and mode.lower() == "disabled":
            raise PlanError(
                f"plan.address={address}: the cluster demands a token, but {_MODE}={mode}; unset it, or set "
                f"{_MODE}=token"
            )
        return
    if demands is False:
        raise PlanError(
            f"plan.address={address}: the cluster demands no token, so whoever reaches its ports can run code on it; "
            f"start it with {_MODE}=token on every node (`ray get-auth-token --generate` makes the token, see "
            f"docs/clusters.md), or set {_MODE}=disabled to join it as it is"
        )
    loader = AuthenticationTokenLoader.instance()
    if not loader.has_token(ignore_auth_mode=True):
        if demands:
            raise PlanError(
                f"plan.address={address}: the cluster demands a token, and there is none here; copy the cluster's "
                "into ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
            )
        return
    if mode is None:
        os.environ[_MODE] = "token"
        # Ray remembers it for the life of the process.
        Config.initialize("")
    if demands and found is not None and _is_refused(found, loader.get_raw_token()):
        raise PlanError(
            f"plan.address={address}: the cluster demands another token than the one here; copy the cluster's into "
            "~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
        )


def _is_refused(found: str, token: str | None) -> bool | None:
    """Return whether a head refuses a question with this token, or without any; None where it cannot be asked."""
    try:
        import grpc  # type: ignore[import-untyped]
    except ImportError:  # Ray's own core does without
        return None
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return None
    words = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(found, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary(_QUESTION)
        try:
            ask(b"", timeout=_ANSWER_SECONDS, metadata=words)
        except grpc.RpcError as error:
            code = error.code()
            return True if code == grpc.StatusCode.UNAUTHENTICATED else None
    return False

"""`local-learning doctor`: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.cli.check import Check
from engine.cli.outcome import Outcome
from engine.cli.words import PROGRAM
from engine.errors import EXIT_BAD_INPUT, EXIT_SUCCESS

EPILOG = """Ends with exit code 0 unless there is a problem: something without which nothing, or nothing on Ray, can be
trained. A warning is about something that you may never need. With --address, a node that works with other versions
than this machine is a problem, too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``doctor``."""
    parser.add_argument("--no-ray", action="store_true", help="do not start a Ray to try it (saves some seconds)")
    parser.add_argument(
        "--address",
        metavar="A",
        help="also ask every node of this Ray cluster (auto or HOST:6379) for its versions",
    )
    parser.add_argument("--data-root", metavar="DIR", type=Path, help="also say which data sets are in this folder")


def run(options: argparse.Namespace) -> Outcome:
    """Make all checks; none of them changes anything.

    Raises:
        PlanError: nothing answers at ``--address``.
    """
    from engine.cli.checks_of_versions import extra_checks, version_checks

    checks = [*version_checks(), *extra_checks()]
    if _can_train(checks):  # the checks below import what is looked for above
        from engine.cli.checks_of_machine import machine_checks

        checks += machine_checks()
    if _can_train(checks) and not options.no_ray and options.address is None:
        from engine.cli.checks_of_ray import ray_check

        checks.append(ray_check())
    if _can_train(checks) and options.data_root is not None:
        from engine.cli.checks_of_data import data_checks

        checks += data_checks(options.data_root)
    if _can_train(checks) and options.address is not None:
        from engine.cli.checks_of_nodes import look_at_nodes, look_here, node_checks, node_table, to_json

        here, nodes = look_here(), look_at_nodes(options.address)
        checks += node_checks(here, nodes)
        return _outcome(checks, node_table(here, nodes), to_json(here, nodes))
    return _outcome(checks)


def _can_train(checks: Sequence[Check]) -> bool:
    return all(check.status != "problem" for check in checks)


def _outcome(checks: Sequence[Check], table: Sequence[str] = (), nodes: Sequence[dict[str, Any]] = ()) -> Outcome:
    lines: list[str] = []
    for check in checks:
        lines.append(f"{check.status:<8} {check.subject}: {check.found}")
        if check.remedy:
            lines.append(f"{'':<8}   {check.remedy}")
    lines += ["", *table] if table else []
    counts = {status: sum(check.status == status for check in checks) for status in ("ok", "warning", "problem")}
    lines += ["", f"{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems"]
    if _can_train(checks):
        lines.append(f"this machine can train; try `{PROGRAM} train infopro_digits`")
    values: dict[str, Any] = {"checks": [vars(check) for check in checks], "counts": counts}
    if nodes:
        values["nodes"] = list(nodes)
    return Outcome(lines, values, EXIT_SUCCESS if _can_train(checks) else EXIT_BAD_INPUT)

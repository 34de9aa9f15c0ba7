"""Does the cluster script pass, and does it leave nothing behind when it is cut off?"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_hosts.py")
SKIPPED = 77
LIMIT_SECONDS = 1500.0


def what_is_left() -> set[str]:
    """Return folders and processes of the script that are there now."""
    folders = {str(path) for path in Path("/var/tmp").glob("two_hosts_*")}
    lines = subprocess.run(["ps", "-e", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return folders | {line for line in lines.splitlines() if "/var/tmp/two_hosts_" in line}


def start() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_cluster_of_two_hosts_works_from_up_to_down_through_a_failure() -> None:
    before = what_is_left()
    script = start()
    try:
        log, _ = script.communicate(timeout=LIMIT_SECONDS)
    finally:
        script.terminate()
        script.wait()
    print(log)
    if script.returncode == SKIPPED:
        pytest.skip(log.strip())
    assert script.returncode == 0, log
    assert what_is_left() <= before
    if "jobs are left out" in log:
        warnings.warn("ray[default] is not installed, so no job was submitted", stacklevel=1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_script_that_is_cut_off_leaves_no_process(number: signal.Signals) -> None:
    before = what_is_left()
    with start() as script:
        assert script.stdout is not None
        first = script.stdout.readline()
        if first.startswith("skipped"):
            pytest.skip(first.strip())
        assert "two hosts answer by SSH" in first
        assert what_is_left() - before
        script.send_signal(number)
        script.wait(timeout=30)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and what_is_left() - before:
        time.sleep(0.2)
    left = what_is_left() - before
    folders = {path for path in left if path.startswith("/var/tmp/")}
    for folder in folders:
        shutil.rmtree(folder)
    assert left - folders == set()
    # Nobody is left who could delete the folder when the script itself is killed.
    assert not folders or number == signal.SIGKILL

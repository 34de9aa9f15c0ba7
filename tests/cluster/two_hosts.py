"""Does a cluster of two machines work, from `ray up` to `ray down`, also when one of them fails?

    python tests/cluster/two_hosts.py

Runs experiments/clusters/local.yaml against two hosts on this machine (hosts.py says how), with the addresses, the key
and the setup changed: the hosts share this Python, so nothing is installed on them. Prints what it does; ends with exit
code 0 where all went as it should, and with 77, the usual one for a skipped test, where this machine cannot hold them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hosts import Host, hosts, missing, prepare_network, run_isolated

PROJECT = Path(__file__).resolve().parents[2]
SKIPPED = 77
HEAD, WORKER = "10.77.0.2", "10.77.0.3"
INSIDE = "--inside"
BIN = Path(sys.executable).parent
# Long enough to be cut off in its middle, two logins after its second checkpoint.
TRAIN = (
    "local-learning train infopro_digits method.num_segments=2 epochs=60 plan.placement=SPREAD "
    "plan.checkpoint_every_steps=20 plan.evaluate_every_epochs=60 plan.cpus_per_learner=1 --address auto"
)
PROFILE = f"""export PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin RAY_AUTH_MODE=token
# The copy of the project that `ray up` brings, in place of `pip install` there.
export PYTHONPATH=$HOME/local-learning OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0 MPLBACKEND=Agg
"""


class Failure(Exception):
    """Something is not as it should be."""


class Laptop:
    """The machine from which the user commands the cluster.

    Attributes:
        config: the cluster's file.
        environment: what its commands see.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "local.yaml"
        self.started = time.monotonic()
        self.environment = {
            "HOME": str(folder / "laptop"),
            "PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(PROJECT),
        }
        (folder / "laptop").mkdir()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", flush=True)

    def run(self, *words: str, expected: int = 0) -> str:
        """Run a command in the project's folder, and return what it printed."""
        done = subprocess.run(
            words, cwd=PROJECT, env=self.environment, capture_output=True, text=True, errors="replace", timeout=300
        )
        if done.returncode != expected:
            raise Failure(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout + done.stderr

    def write_config(self, key: Path) -> None:
        """Write local.yaml with the hosts' addresses."""
        text = (PROJECT / "experiments/clusters/local.yaml").read_text().replace("192.168.1.10", HEAD)
        config: dict[str, Any] = yaml.safe_load(text)
        config["provider"]["worker_ips"] = [WORKER]
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
        config["setup_commands"] = [line for line in config["setup_commands"] if line.startswith("chmod")]
        self.config.write_text(yaml.safe_dump(config))


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:g} s for {what}")
        time.sleep(0.5)


def check(condition: bool, what: str) -> None:
    if not condition:
        raise Failure(f"not as it should be: {what}")


def doctor(head: Host, prefix: str = "") -> tuple[int, dict[str, Any]]:
    """Return the exit code of `local-learning doctor --address auto` on the head, and what it found."""
    done = head.run(f"{prefix} local-learning doctor --address auto --json", check=False)
    if done.returncode not in (0, 2):
        raise Failure(f"doctor ended with {done.returncode}: {done.stderr}")
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def nodes_that_answer(head: Host) -> int:
    found = doctor(head)[1]
    return sum(node["cpus"] is not None for node in found.get("nodes", []))


def bring_up(laptop: Laptop, head: Host) -> None:
    laptop.run("ray", "get-auth-token", "--generate")
    laptop.run("ray", "up", "--yes", str(laptop.config))
    laptop.say("ray up has returned; the worker is still to join")
    wait_until(lambda: nodes_that_answer(head) == 2, "both nodes", 120)
    laptop.say("both nodes are there; local-learning doctor --address auto, as `ray exec` shows it:")
    shown = laptop.run("ray", "exec", str(laptop.config), "local-learning doctor --address auto")
    table = shown.splitlines()
    first = next(index for index, line in enumerate(table) if line.startswith("node "))
    print("\n".join(table[first : first + 4]), flush=True)


def find_differences(laptop: Laptop, head: Host, worker: Host) -> None:
    """The engine of one node differs by a comment; a driver without the token."""
    changed = worker.folder / "home/local-learning/engine/errors.py"
    before = changed.read_text()
    changed.write_text(before + "# another version\n")
    code, found = doctor(head)
    problems = [each for each in found["checks"] if each["status"] == "problem"]
    check(code == 2 and len(problems) == 1 and WORKER in problems[0]["subject"], f"doctor found {problems}")
    laptop.say(f"a changed file on the worker is found: {problems[0]['subject']}: {problems[0]['found']}")
    changed.write_text(before)
    code, found = doctor(head, prefix="RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef")
    check(code == 2 and "nodes" not in found, f"a wrong token gave {code}, {found}")
    laptop.say("a driver with another token is refused: " + found["error"].splitlines()[0][:110])


def weights(head: Host, run: str) -> str:
    """Return the digest of the trained weights, as the run's summary states it."""
    return str(json.loads((head.folder / "home" / run / "summary.json").read_text())["weights_sha256"])


def train(laptop: Laptop, head: Host) -> str:
    laptop.run("ray", "exec", str(laptop.config), f"cd && {TRAIN} --run-dir runs/undisturbed")
    digest = weights(head, "runs/undisturbed")
    laptop.say(f"a training over both hosts is finished; its weights have digest {digest[:12]}")
    return digest


def search(laptop: Laptop, head: Host) -> None:
    """Two trials, each with a learner on any host."""
    words = "local-learning sweep infopro_digits --num-samples 2 --address auto --run-dir runs/search --json"
    output = laptop.run("ray", "exec", str(laptop.config), words)
    # The table of trials and what `ray exec` says are around it.
    found = re.search(r'\{"run_dir": .*\}', output)
    check(found is not None, f"the search said:\n{output}")
    answer = json.loads(found[0])
    check(answer["status"] == "finished", f"the search ended with {answer}")
    folders = sorted(path.name for path in (head.folder / "home/runs/search/trials").glob("trial-*"))
    check(folders == ["trial-0000", "trial-0001"], f"run folders on the head: {folders}")
    laptop.say(f"a search of two trials has finished; trial {answer['best']} is the best")


def train_through_a_failure(laptop: Laptop, head: Host, worker: Host, expected: str) -> None:
    run = head.folder / "home/runs/disturbed"
    words = [
        "ray",
        "exec",
        str(laptop.config),
        f"cd && {TRAIN} plan.recovery.max_failures=0 --run-dir runs/disturbed; echo ended with $?",
    ]
    training = subprocess.Popen(
        words, cwd=PROJECT, env=laptop.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_until(lambda: len(list(run.glob("checkpoints/step-*/MANIFEST.json"))) >= 2, "two checkpoints", 120)
    for host in (head, worker):
        learners = [title for title in host.processes() if "LearnerActor" in title]
        check(len(learners) == 1, f"{host.name} holds {learners}")
    worker.cut_power()
    laptop.say("one learner ran on each host; the power of the worker is cut in the middle of the second training")
    output, _ = training.communicate(timeout=180)
    check("ended with 3" in output, f"a lost learner is exit code 3:\n{output}")
    error = re.search(r"error: (learner .{1,150})", output)
    check(error is not None, f"the lost learner is named:\n{output}")
    steps = sorted(path.parent.name for path in run.glob("checkpoints/step-*/MANIFEST.json"))
    laptop.say(f"the training has ended with exit code 3, its newest checkpoint is {steps[-1]}: {error[1]} ...")
    check(not (run / "summary.json").exists() or weights(head, "runs/disturbed") != expected, "it was cut off")
    worker.start()
    laptop.say("the worker is on again")
    wait_until(lambda: nodes_that_answer(head) == 2, "the worker to join again", 240)
    laptop.say("the autoscaler has started Ray on it")
    output = laptop.run("ray", "exec", str(laptop.config), f"cd && {TRAIN} --run-dir runs/disturbed")
    check(weights(head, "runs/disturbed") == expected, f"other weights than undisturbed:\n{output}")
    laptop.say("the same command went on from there and gave the same weights, bit for bit")


def go_on_as_a_job(laptop: Laptop, head: Host, expected: str) -> None:
    """A job whose driver is killed, and that is submitted once more, as by whoever restarts jobs."""
    if importlib.util.find_spec("aiohttp") is None:
        laptop.say("jobs are left out: ray[default] is not installed here")
        return
    submit = "RAY_ADDRESS=http://127.0.0.1:8265 ray job submit --submission-id"
    entrypoint = f"-- {TRAIN} --run-dir $HOME/runs/job"
    laptop.run("ray", "exec", str(laptop.config), f"{submit} first --no-wait {entrypoint}")
    run = head.folder / "home/runs/job"
    wait_until(lambda: len(list(run.glob("checkpoints/step-*/MANIFEST.json"))) >= 2, "two checkpoints of a job", 180)
    head.run("pkill -KILL -f [l]ocal-learning.train")
    steps = sorted(path.parent.name for path in run.glob("checkpoints/step-*/MANIFEST.json"))
    laptop.say(f"the driver of a job is killed, its newest checkpoint is {steps[-1]}")

    def has_failed() -> bool:
        status = head.run("RAY_ADDRESS=http://127.0.0.1:8265 ray job status first", check=False)
        return "job 'first' failed" in (status.stdout + status.stderr).lower()

    wait_until(has_failed, "the job to have failed", 60)
    check(not (run / "summary.json").exists() or weights(head, "runs/job") != expected, "it was cut off")
    output = laptop.run("ray", "exec", str(laptop.config), f"{submit} second {entrypoint}")
    check(weights(head, "runs/job") == expected, f"other weights than undisturbed:\n{output}")
    laptop.say("the same job, submitted once more, went on from there to the same weights, bit for bit")


def fetch(laptop: Laptop, expected: str) -> None:
    fetched = laptop.folder / "laptop/fetched"
    laptop.run("ray", "rsync-down", str(laptop.config), "~/runs/disturbed/", f"{fetched}/")
    answer = json.loads(laptop.run("local-learning", "evaluate", str(fetched), "--json").splitlines()[-1])
    stated = json.loads((fetched / "summary.json").read_text())
    check(stated["weights_sha256"] == expected, "the fetched run has other weights")
    laptop.say(f"the run folder is fetched; local-learning evaluate here says {answer['test_score']:.4f}")


def take_down(laptop: Laptop, machines: list[Host]) -> None:
    laptop.run("ray", "down", "--yes", str(laptop.config))
    laptop.say("ray down has returned")

    def still_running() -> list[str]:
        return [title for host in machines for title in host.processes() if "raylet" in title or "gcs_server" in title]

    wait_until(lambda: not still_running(), "Ray to end on all hosts", 60)
    laptop.say("no Ray runs on any host")


def inside(folder: Path) -> None:
    prepare_network()
    laptop = Laptop(folder)
    with hosts(folder, [HEAD, WORKER], PROFILE) as machines:
        head, worker = machines
        laptop.write_config(head.key)
        laptop.say(f"two hosts answer by SSH: {head.address}, {worker.address}")
        try:
            bring_up(laptop, head)
            find_differences(laptop, head, worker)
            digest = train(laptop, head)
            search(laptop, head)
            train_through_a_failure(laptop, head, worker, digest)
            go_on_as_a_job(laptop, head, digest)
            fetch(laptop, digest)
            take_down(laptop, machines)
        except (Failure, RuntimeError, subprocess.SubprocessError):
            print(head.run("tail -n 40 /tmp/ray/session_latest/logs/monitor*", check=False).stdout, flush=True)
            raise


def main() -> int:
    if INSIDE in sys.argv:
        try:
            inside(Path(sys.argv[-1]))
        except (Failure, RuntimeError, subprocess.SubprocessError) as failure:
            print(f"FAILED: {failure}", getattr(failure, "stderr", None) or "", flush=True)
            return 1
        return 0
    why_not = missing()
    if why_not:
        print(f"skipped: {why_not}")
        return SKIPPED
    return run_isolated([sys.executable, os.path.abspath(__file__), INSIDE])


if __name__ == "__main__":
    sys.exit(main())

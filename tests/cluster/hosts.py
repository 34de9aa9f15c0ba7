"""How does one machine hold several that are reached by SSH, and leave nothing behind?

Everything lives in namespaces of its own: an outer one with a bridge, in which the user's commands run, and one for
each host with its own network, processes, /tmp, shared memory, home and SSH server. Ray needs all of these apart: `ray
stop` ends every Ray process that it sees, and nodes keep records below /tmp and in shared memory. Namespaces end with
their first process, and take processes, mounts and network with them; so only one folder has to be cleaned up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAPTOP = "10.77.0.1"
_BRIDGE = "hosts"
_TOOLS = ("ip", "unshare", "mount", "hostname", "bash", "ssh", "ssh-keygen", "sshd", "rsync", "ps")
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_SSH = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
_PR_SET_PDEATHSIG = 1

# Runs as the first process of a host: $1 its name, $2 its folder, $3 the home that all hosts share by path.
_HOST = """
set -e
hostname "$1"
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777,size=50% tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
mount --bind "$2/home" "$3"
mount --bind "$2/passwd" /etc/passwd
mount --bind "$2/shadow" /etc/shadow
until ip -4 address show dev eth0 2>/dev/null | grep -q inet; do sleep 0.1; done
ip link set lo up
"$(command -v sshd)" -D -e -f "$2/sshd_config" 2>>"$2/sshd.log" &
wait $!
"""


def missing() -> str:
    """Return why hosts cannot be made on this machine; empty where they can."""
    if sys.platform != "linux":
        return "namespaces are a part of Linux"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    absent = [tool for tool in _TOOLS if shutil.which(tool, path=_PLACES) is None]
    if absent:
        return f"{', '.join(absent)} not found; apt-get install iproute2 util-linux openssh-server openssh-client rsync"
    hidden = [path for path in (sys.prefix, sys.base_prefix, __file__) if Path(path).resolve().is_relative_to("/tmp")]
    if hidden:
        return f"{hidden[0]} is below /tmp, of which each host has its own"
    tried = subprocess.run(
        [*_NAMESPACES, "bash", "-c", f"mount -t tmpfs tmpfs /tmp && ip link add {_BRIDGE} type bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        return f"this machine does not let root make namespaces: {tried.stderr.strip()}"
    return ""


def run_isolated(command: Sequence[str]) -> int:
    """Run a command in the outer namespaces, with a folder of its own as its last word; return its exit code.

    However it ends, and also if this process is killed, all that it started ends with it.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Not below /tmp: the hosts, each with its own /tmp, have to see it.
    folder = tempfile.mkdtemp(prefix="two_hosts_", dir="/var/tmp")
    child = subprocess.Popen([*_NAMESPACES, *command, folder], preexec_fn=_end_with_parent)
    try:
        return child.wait()
    finally:
        child.kill()
        child.wait()
        _remove(Path(folder))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _remove(folder: Path) -> None:
    """Delete the folder, into which processes that are about to end may still write."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    raise OSError(f"{folder} could not be removed")


def prepare_network() -> None:
    """Make the bridge that joins the hosts, inside the outer namespaces."""
    _run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp")
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", _BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{LAPTOP}/24", "dev", _BRIDGE)
    _run("ip", "link", "set", _BRIDGE, "up")


@dataclass
class Host:
    """A machine reached by SSH.

    Attributes:
        name: its host name.
        address: its address on the bridge.
        folder: what is its own, as seen from outside: ``home``, ``sshd.log``.
        home: where its home is seen inside, the same on all hosts.
        key: the private key that logs in as root.
    """

    name: str
    address: str
    folder: Path
    home: Path
    key: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def prepare(self, profile: str) -> None:
        """Write what the SSH server and login shells read."""
        (self.folder / "home" / ".ssh").mkdir(parents=True)
        (self.folder / "home" / ".profile").write_text(profile)
        shutil.copy(f"{self.key}.pub", self.folder / "home" / ".ssh" / "authorized_keys")
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))
        accounts = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
        root = f"root:x:0:0:root:{self.home}:/bin/bash"
        (self.folder / "passwd").write_text("\n".join([root, *accounts]) + "\n")
        (self.folder / "shadow").write_text("root:*:19000:0:99999:7:::\n")
        (self.folder / "sshd_config").write_text(
            f"ListenAddress {self.address}\nHostKey {self.folder}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"PermitRootLogin prohibit-password\nPasswordAuthentication no\nMaxStartups 100\n"
            f"AuthorizedKeysFile {self.home}/.ssh/authorized_keys\n"
        )

    def start(self, timeout_seconds: float = 20.0) -> None:
        """Switch the host on, and wait until it answers."""
        self._process = subprocess.Popen(
            [*_NAMESPACES, "--uts", "bash", "-c", _HOST, "bash", self.name, str(self.folder), str(self.home)],
            preexec_fn=_end_with_parent,
        )
        outer, pid = f"to-{self.name}", str(self._process.pid)
        # Of its own, as a machine that is switched on again has the network card that it had.
        card = "02:00:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))
        deadline = time.monotonic() + timeout_seconds
        _wait_for_namespace(self._process.pid, deadline)
        _run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "address", card, "netns", pid)
        _run("ip", "link", "set", outer, "master", _BRIDGE, "up")
        _run("nsenter", "--target", pid, "--net", "ip", "link", "set", "eth0", "up")
        _run("nsenter", "--target", pid, "--net", "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        while self.run("true", check=False).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"{self.name} does not answer: {(self.folder / 'sshd.log').read_text()}")
            time.sleep(0.2)

    def cut_power(self) -> None:
        """End everything on the host at once; nothing on it gets to say goodbye, not even its network connections."""
        if self._process is not None:
            subprocess.run(["ip", "link", "delete", f"to-{self.name}"], check=False, capture_output=True)
            self._process.kill()
            self._process.wait()
            self._process = None

    def run(self, command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a login shell of the host; raise CalledProcessError where it must not fail and does."""
        place = [*_SSH, "-o", "ConnectTimeout=5", "-i", str(self.key), f"root@{self.address}"]
        words = ["ssh", *place, f"bash --login -c '{command}'"]
        return subprocess.run(words, capture_output=True, text=True, check=check)

    def processes(self) -> list[str]:
        """Return the titles of the processes that run on the host."""
        lines = self.run("ps -e -o stat= -o args=").stdout.splitlines()
        return [title for state, _, title in (line.partition(" ") for line in lines) if not state.startswith("Z")]


def _wait_for_namespace(pid: int, deadline: float) -> None:
    while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        if time.monotonic() > deadline:
            raise RuntimeError("a host did not get a network of its own")
        time.sleep(0.01)


@contextlib.contextmanager
def hosts(folder: Path, addresses: Sequence[str], profile: str) -> Iterator[list[Host]]:
    """Make hosts that are on as long as the block runs.

    Args:
        folder: where all that belongs to them is written.
        addresses: one for each, such as ``10.77.0.2``.
        profile: what their login shells run first.
    """
    home, key = folder / "home", folder / "key"
    home.mkdir()
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    made = []
    for index, address in enumerate(addresses, start=1):
        made.append(Host(f"host{index}", address, folder / f"host{index}", home, key))
    try:
        for host in made:
            host.prepare(profile)
            host.start()
        yield made
    finally:
        for host in made:
            host.cut_power()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)

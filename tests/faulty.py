"""An HTTP server of a folder, on loopback, with byte ranges; it counts what it sends, and goes wrong when it is told.

with Faulty(folder) as server:
    server.fault = lambda name, number: "503" if number < 3 else None    # number: of the GET, from 0 on
    ... server.address, server.sent, server.gets
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

FAULTS = {
    **dict.fromkeys(("400", "401", "403", "404", "408", "429", "500", "503"), "the status"),
    "hang": "no answer until the server stops",
    "drop": "the connection is closed without an answer",
    "cut": "half of the body, then the connection is closed",
    "stall": "half of the body, then nothing until the server stops",
    "truncated": "the object has lost its second half",
    "longer": "the object is one byte longer",
    "replaced": "another object of the same size: another ETag, other bytes",
    "whole": "ranges are not served",
}
Fault = Callable[[str, int], str | None]


class Faulty:
    """`start` again after `stop` serves at the same address. `delay`: seconds before each answer."""

    def __init__(self, folder: Path, fault: Fault | None = None, delay: float = 0.0) -> None:
        self.folder, self.fault, self.delay = folder, fault, delay
        self.port = 0
        self.sent, self.gets, self.heads = 0, 0, 0  # bytes of bodies; requests
        self.seen: Counter[str] = Counter()  # GETs by name
        self.at_once, self.most = 0, 0  # GETs under way now, and at most
        self.signed = ""  # Authorization of the last request
        self.lock = threading.Lock()
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.ended = threading.Event()
        self.server = _Server(("127.0.0.1", self.port), _Answer)
        self.server.owner = self
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
        self.server.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 256
    owner: Faulty

    def __init__(self, *given: Any) -> None:
        self.open: set[Any] = set()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def hang_up(self) -> None:
        """Connections that were kept alive end with the server."""
        for request in list(self.open):
            self.shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """Clients come and go."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, -1
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        with self.server.owner.lock:
            self.server.owner.heads += 1
        self._answer(self.server.owner, None, body=False)

    def do_GET(self) -> None:
        owner, name = self.server.owner, self.path.lstrip("/")
        with owner.lock:
            number, owner.gets = owner.gets, owner.gets + 1
            owner.seen[name] += 1
            owner.at_once += 1
            owner.most = max(owner.most, owner.at_once)
        try:
            self._answer(owner, owner.fault(name, number) if owner.fault else None, body=True)
        finally:
            with owner.lock:
                owner.at_once -= 1

    def _answer(self, owner: Faulty, fault: str | None, body: bool) -> None:
        assert fault is None or fault in FAULTS, fault
        path = owner.folder / self.path.lstrip("/")
        owner.signed = self.headers.get("Authorization", "")
        time.sleep(owner.delay)
        if fault in ("hang", "drop"):
            if fault == "hang":
                owner.ended.wait()
            self.close_connection = True
        elif fault is not None and fault.isdigit():
            self._say(int(fault), b"no\n", {}, body)
        elif not path.is_file():
            self._say(404, b"", {}, body)
        else:
            self._object(owner, path, fault, body)

    def _object(self, owner: Faulty, path: Path, fault: str | None, body: bool) -> None:
        size = path.stat().st_size
        total = {"truncated": size // 2, "longer": size + 1}.get(fault or "", size)
        first, last = 0, total - 1
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and fault != "whole":
            first, last = int(wanted[1]), min(int(wanted[2]), total - 1)
            if first >= total:
                self._say(416, b"", {"Content-Range": f"bytes */{total}"}, body)
                return
        with path.open("rb") as file:
            file.seek(first)
            data = file.read(last - first + 1).ljust(last - first + 1, b"\0") if body else b""
        if fault == "replaced":
            data = bytes(len(data))
        fields = {
            "ETag": f'"{path.stat().st_mtime_ns}{fault if fault == "replaced" else ""}"',
            "Accept-Ranges": "bytes",
        }
        if wanted and fault != "whole":
            fields["Content-Range"] = f"bytes {first}-{last}/{total}"
        fields["Content-Length"] = str(last - first + 1)
        with owner.lock:
            owner.sent += len(data) // 2 if fault in ("cut", "stall") else len(data)
        self._say(206 if "Content-Range" in fields else 200, data, fields, body, fault)

    def _say(self, status: int, data: bytes, fields: dict[str, str], body: bool, fault: str | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | fields).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if fault in ("cut", "stall") else data)
        self.wfile.flush()
        if fault == "stall":
            self.server.owner.ended.wait()
        if fault in ("cut", "stall"):
            self.close_connection = True

"""A web site on loopback that misbehaves as it is told: cuts, busy answers, no ranges, other lengths, changed files."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """A file of the site. cuts, codes: of its next answers, one each: bytes after which the line is cut (None: not),
    statuses in place of an answer. etag, ranges, chunked, length: how it answers; slow: seconds a KB."""

    body: bytes
    cuts: list[int | None] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    etag: bool = True
    ranges: bool = True
    if_range: bool = True
    chunked: bool = False
    length: int | None = None
    location: str | None = None
    slow: float = 0.0


@dataclass
class Site:
    """pages by path; asked: (path, Range header or None, status) of each request so far."""

    address: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)
    halt: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, body: bytes, **how: Any) -> str:
        """Lay a file there; its address."""
        self.pages[path] = Page(body, **how)
        return f"{self.address}/{path}"


@contextmanager
def serving() -> Iterator[Site]:
    """A site until the end of the block."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(site, self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.halt.set()
        server.shutdown()
        server.server_close()


def _answer(site: Site, handler: BaseHTTPRequestHandler) -> None:
    path, asked = handler.path.lstrip("/"), handler.headers.get("Range")
    page = site.pages.get(path)
    code = 404 if page is None else page.codes.pop(0) if page.codes else 302 if page.location else 200
    tag = f'"{hashlib.md5(page.body).hexdigest()}"' if page is not None else ""
    start = 0
    if page is not None and code == 200 and asked and page.ranges:
        same = handler.headers.get("If-Range") in (None, tag) or not page.if_range
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if same else 0  # type: ignore[index]
        code = 200 if not same else 206 if start < len(page.body) else 416
    site.asked.append((path, asked, code))
    handler.send_response(code)
    handler.close_connection = True
    handler.send_header("Connection", "close")
    if page is None or code not in (200, 206):
        if page is not None and page.location:
            handler.send_header("Location", page.location)
        if code == 503:
            handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    if page.etag:
        handler.send_header("ETag", tag)
    if code == 206:
        handler.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
    body = page.body[start:]
    if page.chunked:
        handler.send_header("Transfer-Encoding", "chunked")
    else:
        handler.send_header("Content-Length", str(len(body) if page.length is None else page.length))
    handler.end_headers()
    cut = page.cuts.pop(0) if page.cuts else None
    _send(site, handler, page, body if cut is None else body[: max(0, cut - start)], cut is None)


def _send(site: Site, handler: BaseHTTPRequestHandler, page: Page, body: bytes, whole: bool) -> None:
    step = 1024 if page.slow else max(1, len(body))
    try:
        for first in range(0, len(body), step):
            piece = body[first : first + step]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if page.chunked else piece)
            handler.wfile.flush()
            if page.slow and site.halt.wait(page.slow):
                return
        if page.chunked and whole:
            handler.wfile.write(b"0\r\n\r\n")
    except OSError:  # who asked is gone
        pass

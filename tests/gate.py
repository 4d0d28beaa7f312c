"""A door on loopback before a real server: connections pass, are cut, answered or held back."""

import socket
import threading
from contextlib import suppress

BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Gate:
    """Forwards connections to a port. `mode`: open; hang: nothing passes any more; shut: none is let in; busy: each
    request is answered by status 503; torn: an answer breaks off in its middle."""

    def __init__(self, port: int) -> None:
        self.target, self.mode = port, "open"
        self.pairs: list[socket.socket] = []
        self.server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections in the middle of what they do; new ones pass as `mode` says."""
        pairs, self.pairs = self.pairs, []
        for one in pairs:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            near, _ = self.server.accept()
            self.pairs.append(near)
            if self.mode == "hang":
                continue  # it is open, and nobody answers
            try:
                assert self.mode != "shut"
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except (OSError, AssertionError):
                near.close()
                continue
            far.settimeout(None)
            self.pairs.append(far)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other, near), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                if self.mode == "hang":
                    return  # both ends wait
                if self.mode == "busy":
                    near.sendall(BUSY)
                    break
                if self.mode == "torn" and one is not near:
                    near.sendall(data[: len(data) // 2])
                    break
                other.sendall(data)
        if self.mode != "hang":
            for end in (one, other):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

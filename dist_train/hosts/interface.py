"""The meeting point's address -> the network interface that gloo shall use among several machines.

Left alone, gloo takes the address of its own machine's name, which on many systems is one of the loopback (127.0.1.1),
where no other machine answers.
"""

import socket
import struct

_OUTSIDE = "192.0.2.1"  # belongs to nobody (RFC 5737): whatever leads there leads out


def toward(host: str, port: int) -> str | None:
    """Name of the interface (`eth0`) from which packets to `host` leave; None where the system does not tell.

    For this machine's own address it is the interface that has it; if its own name is given, and that is one of the
    loopback's, the interface that leads to other machines. Nothing is sent. Only IPv4 is looked at.
    """
    try:
        interfaces = _interfaces()
        mine = _source(host, port)
        if mine.startswith("127.") and not host.startswith("127.") and host != "localhost":
            others = (address for address in interfaces if not address.startswith("127."))
            try:
                mine = _source(_OUTSIDE, port)
            except OSError:  # no way out of this network
                mine = next(others, mine)
        return interfaces.get(mine)
    except (ImportError, OSError):
        return None


def _source(host: str, port: int) -> str:
    """Address of this machine that packets to `host` carry."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])


def _interfaces() -> dict[str, str]:
    """Address -> name of its interface."""
    import fcntl

    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
            except OSError:  # it has no address
                continue
            found[socket.inet_ntoa(answer[20:24])] = name
    return found

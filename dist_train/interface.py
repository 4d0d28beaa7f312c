"""A machine's address -> the network interface that leads to it, for gloo: left alone, it takes the address of its own
machine's name, which on many systems is one of the loopback (127.0.1.1), where no other machine answers.
"""

import socket
import struct


def toward(host: str, port: int) -> str | None:
    """Name of the interface (`eth0`) from which packets to `host` leave; None where the system does not tell.

    Nothing is sent. For this machine's own address it is the interface that has it. Only IPv4 interfaces are found.
    """
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, port))
            mine = socket.inet_aton(probe.getsockname()[0])
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode()[:15])
                try:
                    answer = fcntl.ioctl(probe, 0x8915, request)  # SIOCGIFADDR: a sockaddr_in behind 16 bytes of name
                except OSError:  # an interface without an address
                    continue
                if answer[20:24] == mine:
                    return name
    except (ImportError, OSError):
        pass
    return None

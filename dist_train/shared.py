"""Several hosts and one run folder: rank 0 writes a random token, and one rank of each other host must read the same.

Without the proof a run whose rank 0 comes back on another host would begin anew there, and nobody would be told.
"""

import secrets
import socket
import time
from pathlib import Path

from dist_train import disk
from dist_train.world import World

_WAIT = 15.0  # seconds for what a network's disk has in its caches


def prove(world: World, folder: Path) -> None:
    """Errors: `ValueError` on all ranks where a host does not see what rank 0 writes into `folder`."""
    token = world.lead(lambda: _write(folder))
    speaker = world.place.local_rank == 0 and not world.first
    blind = speaker and not _seen(folder / f".token-{token}", token, min(_WAIT, world.timeout / 2))
    hosts = [host for host in world.collect(socket.gethostname() if blind else "") if host]
    if world.first:
        (folder / f".token-{token}").unlink(missing_ok=True)
    if hosts:
        raise ValueError(
            f"{folder}: not shared by all hosts ({', '.join(hosts)}: rank 0's token is not there); put run.dir on "
            "shared storage, set checkpoint.store, or, if rank 0 always starts on the same host, run.shared=false"
        )


def alone(world: World, folder: Path) -> None:
    """`run.shared=false`. Errors: `ValueError` on all ranks where another host's disk has a newer checkpoint."""
    steps = [int(path.stem[5:]) for path in (folder / "checkpoints").glob("step-*.pt") if path.stem[5:].isdecimal()]
    mine = (max(steps, default=-1), socket.gethostname())
    found = world.collect(mine)
    step, host = max(found, key=lambda one: one[0])
    if step > found[0][0]:
        raise ValueError(
            f"{folder}: with run.shared=false rank 0 goes on from its own disk, and the newest checkpoint (step "
            f"{step}) lies on {host}, not on {found[0][1]}; start rank 0 there, or copy the folder"
        )


def _write(folder: Path) -> str:
    """A name that no host has asked for before: no cache knows that it is absent."""
    token = secrets.token_hex(8)
    disk.replace(folder / f".token-{token}", lambda file: file.write(token.encode()))
    return token


def _seen(path: Path, token: str, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            if path.read_text(encoding="utf-8") == token:
                return True
        except OSError:
            pass
        if time.monotonic() > until:
            return False
        time.sleep(0.2)

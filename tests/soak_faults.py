"""The faults of the soak: each disturbs the running job for real and returns a word on what it did, if there is one."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from disks import fill
from launcher import Launch, alive, gone

if TYPE_CHECKING:
    from soak import Soak


def rank_killed(soak: "Soak", dice: random.Random) -> str:
    ranks = soak.ranks()
    place = dice.randrange(len(ranks))
    _kill(ranks[place])
    return f"rank {place}"


def agent_killed(soak: "Soak", dice: random.Random) -> str:
    ranks = soak.ranks()
    _kill(soak.launch.process.pid)
    began = time.monotonic()
    if not gone(ranks, 60):
        return "ITS RANKS LIVED ON"
    return f"its ranks left in {time.monotonic() - began:.0f} s"


def host_killed(soak: "Soak", dice: random.Random) -> str:
    for process in (soak.launch.process.pid, *soak.ranks()):
        _kill(process)
    return ""


def killed_in_a_save(soak: "Soak", dice: random.Random) -> str:
    processes = soak.launch.process.pid, *soak.ranks()
    end = time.monotonic() + 30
    while time.monotonic() < end and soak.alive():
        if any((soak.run.folder / "checkpoints").glob(".*.tmp")):
            for process in processes:
                _kill(process)
            left = any((soak.run.folder / "checkpoints").glob(".*.tmp"))
            return "a temporary file is left" if left else "the file had become whole"
    return "no save came"


def terminated(soak: "Soak", dice: random.Random) -> str:
    soak.launch.process.send_signal(signal.SIGTERM)
    return "" if _until_ended(soak, 60) else "IT WENT ON"


def stop_file(soak: "Soak", dice: random.Random) -> str:
    (soak.run.folder / "STOP").touch()
    return "" if _until_ended(soak, 60) else "IT WENT ON"


def rank_paused(soak: "Soak", dice: random.Random) -> str:
    process, seconds = dice.choice(soak.ranks()), dice.uniform(2, 6)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(process, signal.SIGCONT)
    return f"{seconds:.0f} s"


def rank_hung(soak: "Soak", dice: random.Random) -> str:
    """Longer than run.timeout: the other leaves, and torchrun kills the one that hangs, or it wakes up alone."""
    process, began = dice.choice(soak.ranks()), time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        while alive(process) and time.monotonic() < began + soak.timeout + 40:
            time.sleep(0.2)
        if not alive(process):
            return f"gone after {time.monotonic() - began:.0f} s"
        os.kill(process, signal.SIGCONT)
    return f"woken after {time.monotonic() - began:.0f} s"


def rank_raises(soak: "Soak", dice: random.Random) -> str:
    name = f"{dice.choice(('raise', 'thread', 'memory'))}-{dice.randrange(2)}"
    (soak.home / name).touch()
    end = time.monotonic() + 30
    while (soak.home / name).exists() and time.monotonic() < end:
        time.sleep(0.1)
    return {"raise": "in a step", "thread": "in a reader thread", "memory": "out of memory in a reader thread"}[
        name.partition("-")[0]
    ]


def store_restarted(soak: "Soak", dice: random.Random) -> str:
    soak.store.kill()
    time.sleep(1)
    soak.store.start()
    return ""


def store_away(soak: "Soak", dice: random.Random) -> str:
    """Longer than data.patience."""
    soak.store.kill()
    _until_ended(soak, soak.timeout + 20)
    soak.store.start()
    return ""


def store_hangs(soak: "Soak", dice: random.Random) -> str:
    seconds = dice.uniform(2, 6)
    soak.gate.mode = "hang"
    time.sleep(seconds)
    soak.gate.mode = "open"
    soak.gate.cut()
    return f"{seconds:.0f} s, then cuts"


def store_cuts(soak: "Soak", dice: random.Random) -> str:
    soak.gate.mode = "shut"
    for _ in range(20):
        soak.gate.cut()
        time.sleep(0.1)
    soak.gate.mode = "open"
    return "2 s"


def object_truncated(soak: "Soak", dice: random.Random) -> str:
    return _changed(soak, dice, lambda data: data[: len(data) // 2])


def object_replaced(soak: "Soak", dice: random.Random) -> str:
    return _changed(soak, dice, lambda data: data[:512] + bytes(len(data) - 512))


def _changed(soak: "Soak", dice: random.Random, change: Callable[[bytes], bytes]) -> str:
    name = dice.choice(sorted(path.name for path in soak.data.glob("*.tar")))
    whole = (soak.data / name).read_bytes()
    soak.bucket.put(name, change(whole))
    ended = _until_ended(soak, soak.timeout + 20)
    soak.bucket.put(name, whole)
    return name if ended else f"{name}: NOT NOTICED"


def checkpoint_damaged(soak: "Soak", dice: random.Random) -> str:
    """Power is cut, and the newest file has a flipped bit or lacks its end."""
    host_killed(soak, dice)
    soak.launch.process.wait()
    gone(soak.ranks(), 5)
    saved = soak.run.saved()
    if len(saved) < 2:
        return "no second checkpoint yet"
    data = bytearray(saved[-1].read_bytes())
    if dice.random() < 0.5:
        place = dice.randrange(len(data))
        data[place] ^= 1 << dice.randrange(8)
        saved[-1].write_bytes(data)
        return f"{saved[-1].name}, a bit of byte {place}"
    saved[-1].write_bytes(data[: dice.randrange(len(data))])
    return f"{saved[-1].name}, cut"


def metrics_torn(soak: "Soak", dice: random.Random) -> str:
    """Power is cut in the middle of a line."""
    host_killed(soak, dice)
    with (soak.run.folder / "metrics.jsonl").open("ab") as file:
        file.write(dice.choice([b'{"kind": "train", "st', b"\0" * 300, b"\xff\xfe\n"]))
    return ""


def disk_full(soak: "Soak", dice: random.Random) -> str:
    filler = fill(soak.run.folder.parent)
    ended = _until_ended(soak, 60)
    filler.unlink()
    return "" if ended else "NOTHING WAS WRITTEN FOR 60 S"


def second_job(soak: "Soak", dice: random.Random) -> str:
    other = Launch(soak.command, soak.home, soak.root, soak.environment, "second.txt")
    code = other.code()
    lines = [line for line in other.text().splitlines() if "in use by process" in line]
    return f"refused, exit {code}, names the first" if lines and code else f"NOT REFUSED, exit {code}"


FAULTS = (
    *(rank_killed, agent_killed, host_killed, killed_in_a_save, terminated, stop_file, rank_paused, rank_hung),
    *(rank_raises, store_restarted, store_away, store_hangs, store_cuts, object_truncated, object_replaced),
    *(checkpoint_damaged, metrics_torn, disk_full, second_job),
)


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _until_ended(soak: "Soak", seconds: float) -> bool:
    """Until the launcher has given up, or starts its ranks anew."""
    ranks, end = soak.ranks(), time.monotonic() + seconds
    while time.monotonic() < end:
        if soak.launch.process.poll() is not None or not set(ranks) & set(soak.ranks()):
            return True
        time.sleep(0.1)
    return False

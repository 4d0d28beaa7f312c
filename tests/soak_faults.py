"""The faults of the soak: each disturbs the running job for real and returns a word on what it did, if there is one."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from disks import fill, read_only
from launcher import Launch, alive, gone

if TYPE_CHECKING:
    from soak import Soak


def rank_killed(soak: "Soak", dice: random.Random) -> str:
    process = dice.choice(soak.ranks())
    place = _rank(process)
    _kill(process)
    return place


def agent_killed(soak: "Soak", dice: random.Random) -> str:
    launch = dice.choice(soak.launches)
    ranks = launch.ranks()
    _kill(launch.process.pid)
    began = time.monotonic()
    if not gone(ranks, 60):
        return "ITS RANKS LIVED ON"
    return f"its ranks left in {time.monotonic() - began:.0f} s"


def host_killed(soak: "Soak", dice: random.Random) -> str:
    """One torchrun of two, with its rank."""
    number = dice.randrange(len(soak.launches))
    for process in (soak.launches[number].process.pid, *soak.launches[number].ranks()):
        _kill(process)
    return f"host {number} of {len(soak.launches)}"


def power_cut(soak: "Soak", dice: random.Random) -> str:
    for process in soak.processes():
        _kill(process)
    return ""


def killed_in_a_save(soak: "Soak", dice: random.Random) -> str:
    processes = soak.processes()
    if not _saving(soak):
        return "NO SAVE CAME"
    for process in processes:
        _kill(process)
    return "a temporary file is left" if _unfinished(soak) else "the file had become whole"


def terminated(soak: "Soak", dice: random.Random) -> str:
    for launch in soak.launches:
        launch.process.send_signal(signal.SIGTERM)
    return "" if _until_ended(soak, 60) else "IT WENT ON"


def terminated_in_an_evaluation(soak: "Soak", dice: random.Random) -> str:
    mark, slow = soak.home / "evaluates", soak.home / "slow"
    mark.unlink(missing_ok=True)
    slow.touch()
    try:
        if not _comes(mark.exists, 90, soak):
            return "NO EVALUATION CAME"
        return terminated(soak, dice)
    finally:
        slow.unlink()


def terminated_in_a_save(soak: "Soak", dice: random.Random) -> str:
    if not _saving(soak):
        return "NO SAVE CAME"
    return terminated(soak, dice)


def stop_file(soak: "Soak", dice: random.Random) -> str:
    (soak.run.folder / "STOP").touch()
    return "" if _until_ended(soak, 60) else "IT WENT ON"


def rank_slow(soak: "Soak", dice: random.Random) -> str:
    process, seconds = dice.choice(soak.ranks()), dice.uniform(2, 6)
    place = _rank(process)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(process, signal.SIGCONT)
    return f"{place} stands still for {seconds:.0f} s"


def rank_hung(soak: "Soak", dice: random.Random) -> str:
    """Longer than run.timeout: the other leaves, and torchrun kills the one that hangs, or it wakes up alone."""
    process, began = dice.choice(soak.ranks()), time.monotonic()
    place = _rank(process)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        while alive(process) and time.monotonic() < began + soak.timeout + 40:
            time.sleep(0.2)
        if not alive(process):
            return f"{place}, gone after {time.monotonic() - began:.0f} s"
        os.kill(process, signal.SIGCONT)
    return f"{place}, woken after {time.monotonic() - began:.0f} s"


def step_raises(soak: "Soak", dice: random.Random) -> str:
    return _told(soak, dice, "raise")


def reader_raises(soak: "Soak", dice: random.Random) -> str:
    return _told(soak, dice, "thread")


def reader_out_of_memory(soak: "Soak", dice: random.Random) -> str:
    return _told(soak, dice, "memory")


def store_restarted(soak: "Soak", dice: random.Random) -> str:
    soak.store.kill()
    time.sleep(1)
    soak.store.start()
    return ""


def store_away(soak: "Soak", dice: random.Random) -> str:
    """Longer than data.patience."""
    soak.store.kill()
    ended = _until_ended(soak, soak.timeout + 20)
    soak.store.start()
    return "" if ended else "NOT NOTICED"


def store_hangs(soak: "Soak", dice: random.Random) -> str:
    seconds = dice.uniform(2, 6)
    soak.gate.mode = "hang"
    time.sleep(seconds)
    soak.gate.mode = "open"
    soak.gate.cut()
    return f"{seconds:.0f} s, then cuts"


def store_cuts(soak: "Soak", dice: random.Random) -> str:
    """Answers break off in the middle, then connections are refused."""
    for mode in ("torn", "shut"):
        soak.gate.mode = mode
        time.sleep(2)
        soak.gate.cut()
    soak.gate.mode = "open"
    return "2 s in answers, 2 s none let in"


def store_503(soak: "Soak", dice: random.Random) -> str:
    seconds = dice.uniform(3, 6)
    soak.gate.mode = "busy"
    time.sleep(seconds)
    soak.gate.mode = "open"
    return f"for {seconds:.0f} s"


def object_truncated(soak: "Soak", dice: random.Random) -> str:
    return _changed(soak, dice, lambda data: data[: len(data) // 2])


def object_replaced(soak: "Soak", dice: random.Random) -> str:
    return _changed(soak, dice, lambda data: data[:512] + bytes(len(data) - 512))


def index_replaced(soak: "Soak", dice: random.Random) -> str:
    """By one that lacks a shard."""
    whole = (soak.data / "index.json").read_bytes()
    step = soak.step()
    soak.bucket.put("index.json", whole.replace(b"tiny-1.tar", b"gone-1.tar"))
    ended = _until_ended(soak, 8)
    soak.bucket.put("index.json", whole)
    return "IT ENDED" if ended else f"for 8 s, and {soak.step() - step} steps went on with what was opened"


def checkpoint_damaged(soak: "Soak", dice: random.Random) -> str:
    """Power is cut, and the newest file has a flipped bit or lacks its end."""
    _all_ended(soak)
    saved = soak.run.saved()
    if len(saved) < 2:
        return "NO SECOND CHECKPOINT YET"
    data = bytearray(saved[-1].read_bytes())
    if dice.random() < 0.5:
        place = data.find(b"\x80") + dice.randrange(len(data) // 2)  # among the tensors: headers have unused bytes
        data[place] ^= 1 << dice.randrange(8)
        saved[-1].write_bytes(data)
        return f"{saved[-1].name}, a bit of byte {place}"
    saved[-1].write_bytes(data[: dice.randrange(len(data))])
    return f"{saved[-1].name}, cut"


def metrics_torn(soak: "Soak", dice: random.Random) -> str:
    """Power is cut in the middle of a line."""
    _all_ended(soak)
    with (soak.run.folder / "metrics.jsonl").open("ab") as file:
        file.write(dice.choice([b'{"kind": "train", "st', b"\0" * 300, b"\xff\xfe\n"]))
    return ""


def disk_full(soak: "Soak", dice: random.Random) -> str:
    filler = fill(soak.run.folder.parent)
    ended = _until_ended(soak, 60)
    filler.unlink()
    return "" if ended else "NOTHING WAS WRITTEN FOR 60 S"


def disk_read_only(soak: "Soak", dice: random.Random) -> str:
    """As it starts: while a file is open for writing the system does not let the disk become so."""
    _all_ended(soak)
    step = soak.step()
    deadline = time.monotonic() + 20
    while not read_only(soak.run.folder.parent, must=time.monotonic() > deadline):
        time.sleep(0.2)
    try:
        soak.begin()
        ran = _comes(lambda: soak.step() > step, 120, soak) or soak.alive()
    finally:
        read_only(soak.run.folder.parent, False)
    return "IT RAN" if ran else "after a power cut"


def second_job(soak: "Soak", dice: random.Random) -> str:
    other = Launch(soak.alone, soak.home, soak.root, soak.environment, "second.txt")
    code = other.code()
    lines = [line for line in other.text().splitlines() if "in use by process" in line]
    return f"refused, exit {code}, names the first" if lines and code else f"NOT REFUSED, exit {code}"


FAULTS = (
    *(rank_killed, agent_killed, host_killed, power_cut, killed_in_a_save, terminated, terminated_in_an_evaluation),
    *(terminated_in_a_save, stop_file, rank_slow, rank_hung, step_raises, reader_raises, reader_out_of_memory),
    *(store_restarted, store_away, store_hangs, store_cuts, store_503, object_truncated, object_replaced),
    *(index_replaced, checkpoint_damaged, metrics_torn, disk_full, disk_read_only, second_job),
)


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _rank(process: int) -> str:
    """Which one a process is."""
    try:
        words = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return "a rank that had ended"
    return next(f"rank {word[5:].decode()}" for word in words if word.startswith(b"RANK="))


def _comes(happened: Callable[[], bool], seconds: float, soak: "Soak") -> bool:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end or not soak.alive():
            return False
        time.sleep(0.001)
    return True


def _unfinished(soak: "Soak") -> bool:
    return any((soak.run.folder / "checkpoints").glob(".*.tmp"))


def _saving(soak: "Soak") -> bool:
    return _comes(lambda: _unfinished(soak), 30, soak)


def _told(soak: "Soak", dice: random.Random, name: str) -> str:
    """A rank does it to itself, when it sees a file."""
    rank = dice.randrange(2)
    path = soak.home / f"{name}-{rank}"
    path.touch()
    if not _comes(lambda: not path.exists(), 30, soak):
        path.unlink(missing_ok=True)
        return "NOT TAKEN UP"
    return f"rank {rank}"


def _changed(soak: "Soak", dice: random.Random, change: Callable[[bytes], bytes]) -> str:
    name = dice.choice(sorted(path.name for path in soak.data.glob("*.tar")))
    whole = (soak.data / name).read_bytes()
    soak.bucket.put(name, change(whole))
    ended = _until_ended(soak, soak.timeout + 20)
    soak.bucket.put(name, whole)
    return name if ended else f"{name}: NOT NOTICED"


def _all_ended(soak: "Soak") -> None:
    """Power is cut, and nothing is left."""
    processes = soak.processes()
    for process in processes:
        _kill(process)
    for launch in soak.launches:
        launch.process.wait()
    gone(processes, 5)


def _until_ended(soak: "Soak", seconds: float) -> bool:
    """Until the launcher has given up, or starts its ranks anew."""
    ranks, end = soak.ranks(), time.monotonic() + seconds
    while time.monotonic() < end:
        if not soak.alive() or not set(ranks) & set(soak.ranks()):
            return True
        time.sleep(0.1)
    return False

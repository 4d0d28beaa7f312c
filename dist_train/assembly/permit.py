"""A desk -> a permit to pack at it: the plan lies there, the locks are held, no other packing is in the way.

    DEST/.packing/plan.json     what is being packed, plan-2-of-3.json by each part: another plan is refused
    DEST/.packing/lock          held while a process packs, lock-2-of-3 by each part

A store has no locks: two machines that pack the same part into it put the same bytes, whole, twice.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import filelock

from dist_train import disk
from dist_train.archive.row import INDEX
from dist_train.assembly.packlist import Packlist
from dist_train.stores import part
from dist_train.stores.desk import Desk
from dist_train.stores.part import WHOLE, WORK, Part

PASSING = 5.0  # seconds: another part holds the whole's lock for a moment


def foreign(dest: Path) -> None:
    """ValueError where a folder holds shards that no packing list stands beside, or is no folder."""
    if dest.exists() and not dest.is_dir():
        raise ValueError(f"{dest}: is a file; name a folder for the shards")
    if dest.is_dir() and any([*dest.glob("*.tar"), *dest.glob(INDEX)]) and not part.planned(dest):
        raise ValueError(f"{dest}: holds shards that are not of this packing; name an empty folder")


@contextmanager
def claimed(desk: Desk, packlist: Packlist, options: dict[str, Any], own: Part) -> Iterator[None]:
    """The desk with its plan, locked. ValueError where another process packs there, or another plan lies there."""
    if desk.bucket is not None and (desk.tars() or INDEX in desk.there) and not part.planned(desk.root):
        raise ValueError(f"{desk.said}: holds shards that are not of this packing; name another address")
    disk.writable(desk.root)
    (desk.root / WORK).mkdir(exist_ok=True)
    with ExitStack() as locks:
        if desk.bucket is None:
            _lock(desk, own, locks)
        _agree(desk, packlist, options, own)
        yield


def _lock(desk: Desk, own: Part, locks: ExitStack) -> None:
    """Our lock for as long as `locks` is open; and a look at those of who would write the same shards."""
    folder = desk.root / WORK
    try:
        locks.enter_context(filelock.FileLock(folder / _lock_name(own), timeout=0))
        if not own.whole:
            with filelock.FileLock(folder / _lock_name(WHOLE), timeout=PASSING):
                return
        for other in part.planned(desk.root):
            if other != own:
                locks.enter_context(filelock.FileLock(folder / _lock_name(other), timeout=0))
    except filelock.Timeout:
        what = "it" if own.whole else f"it ({own}, or the whole)"
        text = f"another process is packing into {what}; wait for it or name another folder"
        raise ValueError(f"{desk.said}: {text}") from None


def _lock_name(one: Part) -> str:
    return one.file("lock").removesuffix(".json")


def _agree(desk: Desk, packlist: Packlist, options: dict[str, Any], own: Part) -> None:
    """Our plan lies at the desk, and those that lie there are of the same packing."""
    ours = {
        "digest": packlist.digest,
        "list": packlist.content,
        "clips": sum(map(len, packlist.shards)),
        "shards": len(packlist.shards),
        "options": options,
    }
    plans = part.planned(desk.root)
    if own in plans:
        _same(desk, ours, plans[own], own)
    for other, theirs in plans.items():
        if other != own:
            part.agree(desk.said, own, ours, other, theirs)
    strangers = desk.tars().keys() - {shard_name(number) for number in range(len(packlist.shards))}
    if strangers:
        raise ValueError(f"{desk.root / min(strangers)}: is not of this packing; move it elsewhere")
    if own not in plans:
        plan = f"{WORK}/{own.file('plan')}"
        disk.replace_json(desk.root / plan, ours)
        try:
            desk.put(plan, new=True)
        except FileExistsError:
            desk.fetch([plan])
            _same(desk, ours, part.read(desk.root / plan), own)


def _same(desk: Desk, ours: dict[str, Any], theirs: dict[str, Any], own: Part) -> None:
    changed = part.differing(theirs.get("options", {}), ours["options"], own, own)
    if changed or theirs.get("digest") != ours["digest"]:
        reason = "; ".join(changed) or "the recordings or their labels have changed since"
        place = "folder" if desk.bucket is None else "address"
        raise ValueError(f"{desk.said}: holds another packing ({reason}); name another {place}, or delete this one")


def shard_name(number: int) -> str:
    """A shard's file name."""
    return f"shard-{number:06d}.tar"

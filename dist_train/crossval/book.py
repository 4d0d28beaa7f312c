"""runs/NAME/crossval.json: the settings that a name stands for, and the results so far. Each run of it has one owner.

Several jobs may share a name (a job array, a fold each): each claims its own runs, and writes the file under a lock.
"""

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dist_train import config as configuration
from dist_train import disk
from dist_train.crossval.plan import Plan, Turn
from dist_train.hosts.owner import Busy
from dist_train.runs import RunFolder
from dist_train.settings import Config

FILE = "crossval.json"
VERSION = 1
_PATIENCE = 600.0  # seconds that other jobs may take to write their results
_LOCKLESS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # of file systems without locks
_FREE = {"run.seed", "run.dir", "run.name", "run.threads", "run.timeout", "run.resume", "run.shared"}
_FREE |= {"data.shards", "data.threads", "data.ahead", "data.patience", "data.cache_dir", "data.cache_gb"}
_FREE_SECTIONS = ("log.", "checkpoint.")


def agree(plan: Plan) -> None:
    """Begin the name, or find that it stands for these settings. ValueError names the key that changed."""
    disk.writable(plan.root)
    with exclusive(plan.root):
        before = read(plan.root)
        if before is None:
            if (plan.root / "config.yaml").exists():
                raise ValueError(f"{plan.root}: a run lies there; give another --name")
            disk.replace_json(plan.root / FILE, _asked(plan))
            return
    _compare(before, plan)


def read(root: Path) -> dict[str, Any] | None:
    """What crossval.json holds; None without one. ValueError where it is damaged."""
    path = root / FILE
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = record["version"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: damaged; take it away, the finished folds are kept") from None
    if version != VERSION:
        raise ValueError(f"{path}: has version {version}, this program reads {VERSION}; give another --name")
    return record


def write(plan: Plan, results: dict[str, Any]) -> None:
    """Settings and results, in one piece; under `exclusive`."""
    disk.replace_json(plan.root / FILE, _asked(plan) | results)


def finished(turn: Turn) -> bool:
    """Whether a turn's run is done. ValueError where it was made with other settings."""
    if not (turn.folder / "result.json").is_file():
        return False
    if changed := changes(configuration.plain(configuration.load(turn.folder / "config.yaml")), turn.config):
        raise ValueError(f"{turn.folder}: was made with other settings ({changed[0]}); give another --name")
    return (turn.folder / "scores.npz").is_file()


def changes(before: dict[str, Any], now: Config) -> list[str]:
    """`key: old -> new` of all settings that results depend on."""
    old, new = dict(configuration.flat(before)), dict(configuration.flat(configuration.plain(now)))
    keys = [key for key in {**new, **old} if key not in _FREE and not key.startswith(_FREE_SECTIONS)]
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys if old.get(key) != new.get(key)]


@contextmanager
def claimed(plan: Plan, turns: Sequence[Turn]) -> Iterator[None]:
    """Own these turns. ValueError where another job has one of them."""
    with ExitStack() as held:
        for turn in turns:
            mark = RunFolder(plan.root / ".claims" / f"seed-{turn.seed}-fold-{turn.fold}")
            try:
                mark.open()
            except Busy as error:
                _, _, who = str(error).partition("in use by ")
                raise ValueError(
                    f"{turn.folder}: being trained by {who.partition(';')[0]}; wait for it, leave the fold out by "
                    "--folds, or give another --name"
                ) from None
            held.callback(mark.close)
        yield


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """One job at a time; where the disk has no locks, all at once. ValueError where another holds on for minutes."""
    lock = FileLock(root / ".lock", timeout=_PATIENCE, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{root / '.lock'}: held by another job for {_PATIENCE:.0f} s; see what it does") from None
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _LOCKLESS:
            raise
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()


def _asked(plan: Plan) -> dict[str, Any]:
    return {
        "version": VERSION,
        "file": plan.file,
        "validate": plan.validate,
        "all_folds": list(plan.folds),
        "fingerprints": list(plan.data),
        "config": configuration.plain(plan.config),
    }


def _compare(before: dict[str, Any], plan: Plan) -> None:
    then = configuration.check(before["config"], str(plan.root / FILE))  # a newer program may have more settings
    changed = changes(configuration.plain(then), plan.config)
    if before["validate"] != plan.validate:  # which stands in for valid_folds
        changed = [one for one in changed if not one.startswith("data.valid_folds:")]
        changed.insert(0, f"--validate: {before['validate']} -> {plan.validate}")
    if before["fingerprints"] != list(plan.data):
        changed.insert(0, f"data.shards: other clips or labels than in {before['config']['data']['shards']}")
    if changed:
        raise ValueError(
            f"{plan.root}: was begun with other settings ({'; '.join(changed)}); give the same, or another --name"
        )

"""How a run begins, on all ranks: from its newest checkpoint, from others' weights, or afresh.

Rank 0 locks the folder, fetches what a store has that is newer, chooses and reads; the others get what it read.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from dist_train import checkpoint, disk, packed, pretrained, shared
from dist_train.checkpoint import Checkpoints
from dist_train.hosts import stacks
from dist_train.hosts.mirror import Mirror
from dist_train.log import Log
from dist_train.parts import Parts
from dist_train.pretrained import Report
from dist_train.resume import origin
from dist_train.runs import RunFolder

RESUMED, BEGUN, FRESH = range(3)


class Start:
    """The beginning of one run; `folder`, `mirror`, `checkpoints` and `report` are rank 0's."""

    def __init__(self, parts: Parts, log: Log) -> None:
        """Errors: `ValueError` where the folder is in use or a checkpoint or file does not fit."""
        self.folder: RunFolder | None = None
        self.mirror: Mirror | None = None
        self.checkpoints: Checkpoints | None = None
        self.report: Report | None = None
        self._payload: dict[str, Any] | None = None
        self._weights: dict[str, Tensor] | None = None
        try:
            self._begin(parts, log)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the places free that the run had."""
        if self.mirror is not None:
            self.mirror.close()
        if self.folder is not None:
            self.folder.close()

    def _begin(self, parts: Parts, log: Log) -> None:
        run, world = parts.config.run, parts.world
        path = Path(run.dir) / (run.name or "run")
        world.lead(lambda: self._open(path, parts, log))
        if world.place.hosts and parts.config.checkpoint.store is None:
            (shared.prove if run.shared else shared.alone)(world, path)
        if world.size > 1 and world.backend == "nccl":
            stacks.prepare(path)
        self.where, self.changed, kind = world.lead(lambda: self._choose(parts, log))
        if kind == RESUMED:
            parts.resume(self._shared(parts, self._payload, self.where))
        elif kind == BEGUN:
            parts.step.begin(self._shared(parts, self._weights, "model.pretrained"))
        self._payload = self._weights = None

    def _open(self, path: Path, parts: Parts, log: Log) -> None:
        """Rank 0: take the run's folder, and its address in a store."""
        store, patience = parts.config.checkpoint.store, parts.config.patience
        job, wait = parts.world.place.job, parts.config.run.timeout  # the ranks before are cut off until then
        folder = RunFolder(path, job)
        folder.open(wait)
        self.folder = folder
        if store is not None:
            self.mirror = Mirror(path, f"{store.rstrip('/')}/{path.name}", log.warn, patience)
            self.mirror.claim(folder.token, folder.before, job, wait)

    def _choose(self, parts: Parts, log: Log) -> tuple[str, tuple[str, ...], int]:
        """Rank 0: file, changed keys, what it is."""
        run, folder, mirror = parts.config.run, self.folder, self.mirror
        assert folder is not None
        checkpoints = Checkpoints(folder.checkpoints, parts.config.checkpoint.keep, log.warn)
        if mirror is not None:
            checkpoints.written = mirror.sync
            if mirror.fetch(adopt=run.resume != "never"):
                log.message(f"fetched the run from {mirror.bucket.address}")
        if run.resume == "never" or (run.resume == "auto" and not any(folder.checkpoints.glob("step-*.pt"))):
            self._read(parts)  # before anything that the folder holds is given up
        chosen = origin(parts.config, parts.progress, parts.total, folder, checkpoints)
        if mirror is not None:
            mirror.drop(chosen.kept)
        self.checkpoints, self._payload = checkpoints, chosen.payload
        if chosen.payload is not None:
            return chosen.where, chosen.changed, RESUMED
        if self._weights is None:
            self._read(parts)
        note = folder.path / "pretrained.json"
        if self.report is None:
            note.unlink(missing_ok=True)
            return "", (), FRESH
        disk.replace_json(note, self.report.plain())
        return "", (), BEGUN

    def _read(self, parts: Parts) -> None:
        if parts.config.model.pretrained is not None:
            config = packed.made_by(parts.config, parts.front.stored)
            self._weights, self.report = pretrained.begin(config, parts.model, parts.views.train.classes)

    def _shared(self, parts: Parts, payload: dict[str, Any] | None, where: str) -> dict[str, Any]:
        """Rank 0's payload on every rank."""
        data = checkpoint.encode(payload) if payload is not None else None
        return checkpoint.decode(parts.world.broadcast_bytes(data), where)

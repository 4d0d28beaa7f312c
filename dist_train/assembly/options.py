"""What a packing was asked for. In: values of the command line; out: the same, checked, and what follows from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_train.assembly import permit, trim
from dist_train.assembly.coding import CODECS
from dist_train.assembly.trim import Trim
from dist_train.sources import layouts
from dist_train.storage import local
from dist_train.stores.bucket import remote
from dist_train.stores.part import WHOLE, Part
from dist_train.stores.remote import PATIENCE


@dataclass(frozen=True)
class Options:
    """What `tools/make_shards.py pack --help` lists. folds: None makes 5 where the source has neither folds nor splits,
    0 makes none. workers: processes, None for one a core. patience: seconds that a store may be down."""

    layout: str = "auto"
    sample_rate: int = 16000
    channels: int = 1
    codec: str = "pcm16"
    shard_mb: float = 256
    workers: int | None = None
    folds: int | None = None
    group: str | None = None
    group_regex: str | None = None
    where: tuple[str, ...] = ()
    classes: Path | None = None
    min_seconds: float = 0.0
    trim: str | None = None
    trim_limit: float | None = None
    features: Path | None = None
    feature_type: str = "float32"
    part: Part = WHOLE
    patience: float = PATIENCE

    def trimming(self) -> Trim | None:
        """What is cut away, with the usual limit where none is given."""
        if self.trim is None:
            return None
        return Trim(self.trim, trim.USUAL[self.trim] if self.trim_limit is None else self.trim_limit)

    def coding(self) -> dict[str, Any]:
        """The options that shape the shards' bytes beyond what the packing list holds."""
        names = ("sample_rate", "channels", "codec", "shard_mb", "min_seconds")
        cut = self.trimming()
        trimming = {"trim": cut and cut.kind, "trim_limit": cut and cut.limit}
        return {name: getattr(self, name) for name in names} | trimming

    def check(self, source: Path | str, dest: Path | str) -> None:
        """ValueError for an option out of range, and for a destination that cannot be."""
        bounds = {
            "sample_rate": (1000, 384000),
            "channels": (1, 255),
            "shard_mb": (0.01, 1 << 20),
            "workers": (1, 1024),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"--{name.replace('_', '-')} {value}: is not from {low} to {high}")
        known = {"layout": ("auto", *layouts.LAYOUTS), "codec": (*CODECS, "original")}
        for name, names in known.items():
            if getattr(self, name) not in names:
                raise ValueError(f"--{name} {getattr(self, name)}: is none of {', '.join(names)}")
        if self.folds is not None and self.folds != 0 and not 2 <= self.folds <= 1000:
            raise ValueError(f"--folds {self.folds}: is neither 0 (none) nor from 2 to 1000")
        if self.features is None and self.feature_type != Options.feature_type:
            raise ValueError(f"--feature-type {self.feature_type}: is for --features CONFIG; leave it out")
        if not 0 <= self.min_seconds < float("inf"):
            raise ValueError(f"--min-seconds {self.min_seconds}: is not 0 or more")
        trim.check(self.trim, self.trim_limit, self.codec)
        if not 0 < self.patience < float("inf"):
            raise ValueError(f"--patience {self.patience}: is no number of seconds above 0")
        if _inside(source, dest):
            raise ValueError(f"{dest}: lies inside the source {source}; name a place elsewhere")
        if not remote(dest):
            permit.foreign(local(dest))


def _inside(source: Path | str, dest: Path | str) -> bool:
    if remote(source) or remote(dest):
        return f"{dest}/".startswith(f"{source}".rstrip("/") + "/")
    return Path(source).is_dir() and Path(dest).resolve().is_relative_to(Path(source).resolve())

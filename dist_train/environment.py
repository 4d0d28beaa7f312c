"""What a run ran on. In: facts that the engine knows (world size, device, ...); out: the dict of `environment.json`."""

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    *("torch", "torchaudio", "numpy", "webdataset", "accelerate", "av", "soundfile", "soxr", "pydantic"),
    *("torchmetrics", "tensorboard", "dist-train"),
)


def describe(facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Software, hardware, source commit and time as plain values; `facts` are added to them."""
    cuda = torch.cuda.is_available()
    return {
        "started": now(),
        "host": socket.gethostname(),
        "command": sys.argv,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,  # type: ignore[no-untyped-call]
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if cuda else [],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        **_commit(Path(__file__).parent),
        **(facts or {}),
    }


def now() -> str:
    """Local time with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> dict[str, Any]:
    """`commit`, and `changed`: the work tree differs from it. Both None for an installed package."""
    # an environment inside somebody's repository is no checkout of ours: git must know this very file
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"commit": None, "changed": None}
    return {
        "commit": _git(folder, "rev-parse", "HEAD"),
        "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

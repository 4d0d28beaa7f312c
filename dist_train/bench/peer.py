"""The systems beside which ours is measured: are they installed, which version."""

import importlib
from importlib import metadata
from typing import Any

from dist_train.bench.row import ABSENT

PACKAGES = {
    "webdataset": "webdataset",
    "torchaudio": "torchaudio",
    "kaldi_native_fbank": "kaldi-native-fbank",
    "macls": "macls",
    "speechbrain": "speechbrain",
    "torch": "torch",
}
"""Module -> the package that has its version."""


def take(module: str) -> tuple[Any, str]:
    """A module and its package's version; (None, "not installed") where it cannot be imported."""
    package = module.partition(".")[0]
    try:
        found = importlib.import_module(module)
    except (ImportError, OSError):  # OSError: a shared library that it needs is missing
        return None, ABSENT
    if package == "macls":
        _silence()
    try:
        return found, metadata.version(PACKAGES.get(package, package))
    except metadata.PackageNotFoundError:
        return found, "?"


def versions() -> dict[str, str]:
    """Of every peer, without importing any."""
    found = {}
    for package in PACKAGES.values():
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ABSENT
    return found


def _silence() -> None:
    """macls logs a line for everything that it builds."""
    from loguru import logger

    logger.remove()

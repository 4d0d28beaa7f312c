"""What the official host itself says of a data set's files, asked over TLS when they are fetched.

Zenodo's record: size and MD5 of each archive. Git's tree of the pinned commit: SHA-1 of each file inside, as git hashes
it, which holds the content fast where the bytes of GitHub's archive are not promised to stay.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dist_train.fetch import web


@dataclass(frozen=True)
class Said:
    """Of a file: bytes and digest `NAME:HEX`, None where nobody says."""

    size: int | None = None
    digest: str | None = None


def record(address: str, names: Iterable[str]) -> dict[str, Said]:
    """Of each name what the record says. ValueError: no record, or one that lacks a name."""
    try:
        listed = {
            str(file["key"]): Said(int(file["size"]), str(file["checksum"])) for file in web.value(address)["files"]
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"{address}: is no record as Zenodo writes them (no {error})") from None
    found = {name: listed.get(name, Said()) for name in names}
    if missing := [name for name, said in found.items() if said.digest is None]:
        raise ValueError(f"{address}: lists no {', '.join(missing)}")
    if bad := [name for name, said in found.items() if _kind(said) not in hashlib.algorithms_guaranteed]:
        raise ValueError(f"{address}: the checksum of {', '.join(bad)} is of no kind that is known here")
    return found


def _kind(said: Said) -> str:
    return (said.digest or "").partition(":")[0]


def tree(address: str) -> dict[str, str]:
    """Path -> SHA-1 of its git blob. ValueError: no such list, or not the whole."""
    listed = web.value(address)
    try:
        if listed.get("truncated"):
            raise ValueError(f"{address}: lists a part of the files only")
        return {str(one["path"]): str(one["sha"]) for one in listed["tree"] if one["type"] == "blob"}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{address}: is no tree as GitHub writes them ({error})") from None


def blob(path: Path) -> str:
    """A file's SHA-1 as git takes it."""
    found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def compare(root: Path, listed: dict[str, str], folders: Iterable[str]) -> int:
    """Hold all files of some folders against a tree, and count them. ValueError: one differs, lacks or is more."""
    wanted = tuple(f"{folder}/" for folder in folders)
    told = {path: sha for path, sha in listed.items() if path.startswith(wanted)}
    there = {
        path.relative_to(root).as_posix() for folder in folders for path in (root / folder).rglob("*") if path.is_file()
    }
    if lacking := sorted(told.keys() - there):
        raise ValueError(f"{root.name}: {len(lacking)} files of the commit are not in the archive, first {lacking[0]}")
    if more := sorted(there - told.keys()):
        raise ValueError(f"{root.name}: {len(more)} files are not in the commit, first {more[0]}")
    for path, sha in told.items():
        if blob(root / path) != sha:
            raise ValueError(f"{root.name}: {path} is not the file of the commit")
    return len(told)

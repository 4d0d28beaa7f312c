"""An address -> a whole, checked file in a folder; what a cut, a kill or a full disk left is gone on with.

    .NAME.part   the bytes so far
    .NAME.json   {address, validator, size} of the version that they are of: written before the first byte
    NAME         whole, and of the right size and checksum

A part is gone on with by Range and If-Range, so that a file that changed meanwhile begins anew. Without a strong ETag
that is done only where a checksum decides in the end.
"""

import hashlib
import http.client
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_train import disk
from dist_train.fetch import web
from dist_train.fetch.published import Said
from dist_train.fetch.web import Passing, Refused

CHUNK = 1 << 20
GAIN = 1 << 20  # bytes further than ever before, after which failures are counted from the first again

Tick = Callable[[int, int | None], None]
"""Called with (bytes there, of how many or None)."""


class Wrong(ValueError):
    """A whole file that is not the one that was promised."""


@dataclass(frozen=True)
class Remote:
    """A file to fetch; said: what is known of it; most: bytes that it cannot have more of."""

    name: str
    address: str
    said: Said
    most: int


@dataclass(frozen=True)
class Fetched:
    """A file that is there: bytes and digests; fresh: whether it came now."""

    path: Path
    size: int
    sha256: str
    fresh: bool


def fetch(remote: Remote, folder: Path, tick: Tick, check: Tick) -> Fetched:
    """The file in `folder`. ValueError: refused, or not the right file; ConnectionError: the way there is bad; OSError:
    the disk is."""
    path = folder / remote.name
    if path.is_file():
        try:
            return _checked(remote, path, path, check, False)
        except Wrong as error:
            raise ValueError(f"{path}: {error}; delete it, and it is fetched anew") from None
    part, again = folder / f".{remote.name}.part", False
    while True:
        resumed = part.is_file() and part.stat().st_size > 0
        resumed |= _download(remote, part, tick)
        try:
            found = _checked(remote, part, path, check, True)
        except Wrong as error:
            forget(part)
            if resumed and not again:  # parts of two versions, or a power cut that took the end: once more
                again = True
                continue
            raise ValueError(f"{remote.address}: {error}; it was deleted: try again, or later") from None
        _note(part).unlink(missing_ok=True)
        return found


def forget(part: Path) -> None:
    """Delete what was begun."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_suffix(".json")


def _download(remote: Remote, part: Path, tick: Tick) -> bool:
    """Bring `part` to its end; whether it was gone on with in mid-way."""
    failed, best, resumed = 0, 0, False
    while True:
        try:
            return _once(remote, part, tick) or resumed
        except Passing as passing:
            there = part.stat().st_size if part.is_file() else 0
            failed = 1 if there >= best + GAIN else failed + 1
            best, resumed = max(best, there), resumed or there > 0
            if not web.pause(passing, failed):
                kept = f"; {there / 1e6:.1f} MB are there: the same command goes on" if there else "; try again later"
                raise ConnectionError(f"{remote.address}: {passing}{kept}") from None


def _once(remote: Remote, part: Path, tick: Tick) -> bool:
    """One request; whether it went on in mid-way."""
    known = _known(part, remote)
    have = part.stat().st_size if known is not None and part.is_file() else 0
    if known is not None and have and have == (remote.said.size or known.get("size")):
        return True
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and known is not None and known.get("validator"):
        headers["If-Range"] = known["validator"]
    try:
        with web.ask(remote.address, headers) as response:
            start, total = _place(remote, response, part, have, known)
            if not start:
                forget(part)
                disk.replace_json(
                    _note(part), {"address": remote.address, "validator": _validator(response), "size": total}
                )
            _pour(remote, response, part, start, total, tick)
            return start > 0
    except Refused as error:
        if error.code == 416 and have:
            forget(part)
            raise Passing("the server has fewer bytes than were there: it begins anew") from None
        raise


def _known(part: Path, remote: Remote) -> dict[str, Any] | None:
    """What was noted of a part that may be gone on with."""
    try:
        known = json.loads(_note(part).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or known.get("address") != remote.address:
        return None
    return known if known.get("validator") or remote.said.digest else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What tells this version from others byte for byte: a strong ETag."""
    tag = response.headers.get("ETag", "").strip()
    return tag if re.fullmatch(r'"[^"]*"', tag) else None


def _place(
    remote: Remote, response: http.client.HTTPResponse, part: Path, have: int, known: dict[str, Any] | None
) -> tuple[int, int | None]:
    """(first byte of the answer, bytes of the whole file or None). ValueError: it is not the file that was promised."""
    start, total = 0, _length(response)
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if match is None or int(match[1]) != have:
            raise ValueError(f"{remote.address}: answers with another range than was asked for")
        start, total = have, None if match[3] == "*" else int(match[3])
        changed = known is not None and (
            (known.get("validator") and _validator(response) not in (None, known["validator"]))
            or (known.get("size") and total and known["size"] != total)
        )
        if changed:  # a server that does not know If-Range
            forget(part)
            raise Passing("the file changed meanwhile: it begins anew")
    elif response.status != 200:
        raise ValueError(f"{remote.address}: answers {response.status}, not with the file")
    if remote.said.size is not None and total is not None and total != remote.said.size:
        raise ValueError(f"{remote.address}: has {total} bytes, and {remote.said.size} are published")
    return start, total


def _length(response: http.client.HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _pour(
    remote: Remote, response: http.client.HTTPResponse, part: Path, start: int, total: int | None, tick: Tick
) -> None:
    """Append the answer. Passing where it ends too soon."""
    whole = remote.said.size or total
    with part.open("ab") as file:
        file.truncate(start)
        there = start
        while chunk := web.read(response, CHUNK):
            there += len(chunk)
            if there > (whole or remote.most):
                raise ValueError(f"{remote.address}: sends more than {whole or remote.most} bytes")
            file.write(chunk)
            file.flush()
            tick(there, whole)
    if whole is not None and there < whole:
        raise Passing(f"the line was cut after {there} of {whole} bytes")


def _checked(remote: Remote, path: Path, final: Path, check: Tick, fresh: bool) -> Fetched:
    """The digests of a file, which gets its name when they are right. Wrong: they are not."""
    size = path.stat().st_size
    kind, _, wanted = (remote.said.digest or "sha256:").partition(":")
    if remote.said.size is not None and size != remote.said.size:
        raise Wrong(f"has {size} bytes, and {remote.said.size} are published")
    ours, theirs = hashlib.sha256(), hashlib.new(kind, usedforsecurity=False)
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            ours.update(chunk)
            theirs.update(chunk)
            check(done := done + len(chunk), size)
    if wanted and theirs.hexdigest() != wanted.lower():
        raise Wrong(f"its {kind} is {theirs.hexdigest()}, and {wanted} is published")
    if fresh:
        path.replace(final)
        disk.sync(final.parent)
    return Fetched(final, size, ours.hexdigest(), fresh)

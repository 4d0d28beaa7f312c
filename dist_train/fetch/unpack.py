"""Archives -> the files in them, below one folder: plain files and folders only, under names that stay inside.

zip (also in parts) and tar.gz are known by the name's end. Every CRC is checked, the stream's of gzip to its last byte.
What is refused: absolute names and `..`, links, devices, a name twice, encrypted files, more bytes than `most`.
"""

import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dist_train.fetch import splitzip

CHUNK = 1 << 20
IGNORED = ("__MACOSX",)

Tick = Callable[[int, int | None], None]


class Sink:
    """A folder that takes files; written: bytes so far. ValueError where a file may not be taken."""

    def __init__(self, root: Path, most: int, strip: bool) -> None:
        self.root, self.most, self.strip = root, most, strip
        self.written, self.top = 0, ""

    def path(self, name: str) -> Path | None:
        """Where a member belongs; None: nowhere, it is the folder on top or a system's own."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or re.search(r"[\\\0]|^[A-Za-z]:", name):
            raise ValueError(f"holds {name!r}, which lies outside of it")
        if not parts or parts[0] in IGNORED or (self.strip and len(parts) == 1):
            return None
        if self.strip:
            self.top = self.top or parts[0]
            if parts[0] != self.top:
                raise ValueError(f"holds {parts[0]!r} beside {self.top!r}, and one folder on top is expected")
        return self.root.joinpath(*parts[1 if self.strip else 0 :])

    def folder(self, name: str) -> None:
        """An empty folder."""
        if (path := self.path(name)) is not None:
            _folder(path, name)

    def file(self, name: str, source: IO[bytes], size: int) -> None:
        """A file of exactly so many bytes."""
        path = self.path(name)
        if path is None:
            return
        if self.written + size > self.most:
            raise ValueError(f"holds more than {self.most} bytes: it is not the data set")
        _folder(path.parent, name)
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(source, file, CHUNK)
                found = file.tell()
        except FileExistsError:
            raise ValueError(f"holds {name!r} twice") from None
        if found != size:
            raise ValueError(f"is damaged: {name!r} has {found} of {size} bytes")
        self.written += size


def _folder(folder: Path, name: str) -> None:
    """A folder for a member. ValueError where a file has its name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"is damaged: {name!r} lies in a file, which is no folder") from None


def unpack(parts: Sequence[Path], sink: Sink, tick: Tick) -> None:
    """All of an archive (in parts). ValueError: it is damaged, or holds what it must not; OSError: the disk."""
    last = parts[-1]
    try:
        if last.name.endswith(".zip"):
            with _zip(parts) as archive:
                _unzip(archive, sink, tick)
        else:
            _untar(last, sink, tick)
    except ValueError as error:
        raise ValueError(f"{last}: {error}") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{last}: is damaged ({error})") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{last}: is damaged ({error})") from None  # of gzip and bz2, whose errors have no number


def size(parts: Sequence[Path]) -> int | None:
    """Bytes that a zip says to hold; None: a tar says nothing before it is read. ValueError: it is damaged."""
    if not parts[-1].name.endswith(".zip"):
        return None
    try:
        with _zip(parts) as archive:
            return sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{parts[-1]}: is damaged ({error})") from None
    except ValueError as error:
        raise ValueError(f"{parts[-1]}: {error}") from None


@contextmanager
def _zip(parts: Sequence[Path]) -> Iterator[zipfile.ZipFile]:
    with splitzip.joined(parts) as file, zipfile.ZipFile(file) as archive:
        yield archive


def _unzip(archive: zipfile.ZipFile, sink: Sink, tick: Tick) -> None:
    members = archive.infolist()
    total, names = sum(member.file_size for member in members), set[str]()
    if total > sink.most:
        raise ValueError(f"says to hold {total} bytes, more than {sink.most}: it is not the data set")
    for member in members:
        _allowed(member)
        if member.filename in names:
            raise ValueError(f"holds {member.filename!r} twice")
        names.add(member.filename)
        if member.filename.endswith("/"):
            sink.folder(member.filename)
            continue
        with archive.open(member) as source:
            sink.file(member.filename, source, member.file_size)
        tick(sink.written, total)


def _allowed(member: zipfile.ZipInfo) -> None:
    """ValueError for a member that is neither file nor folder, or cannot be read as one."""
    kind = stat.S_IFMT(member.external_attr >> 16) if member.create_system == 3 else 0
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"holds {member.filename!r}, which is a link or a device")
    if member.flag_bits & 1:
        raise ValueError(f"holds {member.filename!r}, which is encrypted")
    if "\0" in member.orig_filename or member.header_offset < 0:
        raise ValueError("is damaged: its list of files is not one")
    if member.filename.endswith("/") and (member.file_size or member.CRC):
        raise ValueError(f"is damaged: {member.filename!r} is a folder and has bytes")


def _untar(path: Path, sink: Sink, tick: Tick) -> None:
    whole = path.stat().st_size
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as plain:
        with tarfile.open(fileobj=plain, mode="r|") as archive:
            for member in archive:
                if member.isdir():
                    sink.folder(member.name)
                elif not member.isreg() or member.issparse():
                    raise ValueError(f"holds {member.name!r}, which is a link or a device")
                else:
                    source = archive.extractfile(member)
                    assert source is not None
                    sink.file(member.name, source, member.size)
                tick(min(raw.tell(), whole), whole)
        rest = 0
        while chunk := plain.read(CHUNK):  # tarfile stops at the end mark: the checksum lies behind it
            rest += len(chunk)
            if rest > sink.most:
                raise ValueError("goes on behind its end")

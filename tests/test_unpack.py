"""What archives may put on the disk: their files, below one folder, undamaged; zips in parts are read as whole ones."""

import bisect
import io
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dist_train.fetch import splitzip, unpack
from dist_train.fetch.unpack import Sink

FILES = {
    "top/a.wav": b"one" * 40,
    "top/meta/字 b.csv": "x,你\n".encode() * 9,
    "top/empty": b"",
    "top/z": bytes(n * n % 251 for n in range(500)),
}


def zipped(path: Path, files: dict[str, bytes], modes: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            if modes and name in modes:
                member.create_system, member.external_attr = 3, modes[name] << 16
            archive.writestr(member, data)
    return path


def tarred(path: Path, files: dict[str, bytes], kinds: dict[str, bytes] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = len(data), (kinds or {}).get(name, tarfile.REGTYPE)
            member.linkname = "/etc/passwd"
            archive.addfile(member, io.BytesIO(data))
    return path


def made(path: Path, files: dict[str, bytes]) -> Path:
    return (zipped if path.suffix == ".zip" else tarred)(path, files)


def taken(parts: list[Path], folder: Path, most: int = 10**6, strip: bool = True) -> dict[str, bytes]:
    """Unpack, and what is there then."""
    folder.mkdir()
    unpack.unpack(parts, Sink(folder, most, strip), lambda done, total: None)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


KINDS = pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz"])


@KINDS
@pytest.mark.parametrize("strip", [True, False])
def test_files_come_out_as_they_went_in(tmp_path: Path, kind: str, strip: bool) -> None:
    path = made(tmp_path / kind, {"./top/.": b"", **FILES, "__MACOSX/top/._a.wav": b"?"} if strip else FILES)
    found = taken([path], tmp_path / "out", strip=strip)
    assert found == {name.removeprefix("top/") if strip else name: data for name, data in FILES.items()}


@KINDS
@pytest.mark.parametrize("name", ["../evil", "top/../../evil", "/evil", "top/..", "C:/evil", "top\\..\\..\\evil"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = made(tmp_path / kind, {"top/a": b"a", name: b"evil"})
    with pytest.raises(ValueError, match="lies outside of it"):
        taken([path], tmp_path / "out", strip=False)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_of_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    path = zipped(tmp_path / "x.zip", {"top/a": b"/etc/passwd"}, {"top/a": mode | 0o777})
    with pytest.raises(ValueError, match="'top/a', which is a link or a device"):
        taken([path], tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_of_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tarred(tmp_path / "x.tar.gz", {"top/a": b""}, {"top/a": kind})
    with pytest.raises(ValueError, match="'top/a', which is a link or a device"):
        taken([path], tmp_path / "out")


@KINDS
def test_more_than_may_be_is_refused_before_it_fills_the_disk(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path / kind, {"top/a": b"a", "top/bomb": bytes(2_000_000)})
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="1000000"):
        taken([path], tmp_path / "out")
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file()) <= 1


@KINDS
@pytest.mark.parametrize("name", ["top/a/b", "top/a/b/c"])
def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = made(tmp_path / kind, {"top/a": b"a", name: b"b"})
    with pytest.raises(ValueError, match=f"'{name}' lies in a file"):
        taken([path], tmp_path / "out")


def test_files_together_are_no_more_than_the_data_set(tmp_path: Path) -> None:
    files = {"top/a": b"a" * 600, "top/b": b"b" * 600}
    for kind in ("x.zip", "x.tar.gz"):
        path = made(tmp_path / kind, files)
        assert len(taken([path], tmp_path / f"{kind}-whole", most=1200)) == 2
        with pytest.raises(ValueError, match="more than 1199"):
            taken([path], tmp_path / f"{kind}-part", most=1199)


def test_a_name_twice_and_two_tops_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("top/a"))
    with pytest.raises(ValueError, match="holds 'top/a' twice"):
        taken([tmp_path / "x.tar.gz"], tmp_path / "out")
    path = made(tmp_path / "x.zip", {"top/a": b"a", "other/a": b"b"})
    with pytest.raises(ValueError, match="holds 'other' beside 'top'"):
        taken([path], tmp_path / "out2")


@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz", "parts.zip"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_damage_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    """Bytes changed, or the end cut off, anywhere: an error of one line, or the same files."""
    folder = tmp_path_factory.mktemp("damage")
    path = made(folder / kind, FILES)
    parts = split(path, [150, 700]) if kind == "parts.zip" else [path]
    hurt = data.draw(st.sampled_from(parts))
    whole = bytearray(hurt.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3, unique=True)):
        whole[at] = data.draw(st.integers(0, 255).filter(lambda byte, at=at: byte != whole[at]))
    hurt.write_bytes(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))])
    try:
        unpack.size(parts)
        assert taken(parts, folder / "out", strip=False) == FILES
    except ValueError as error:
        assert str(error).startswith(str(parts[-1])) and "\n" not in str(error)


def test_a_cut_archive_and_a_changed_byte_are_noticed(tmp_path: Path) -> None:
    for kind in ("x.zip", "x.tar.gz"):
        path = made(tmp_path / kind, FILES)
        whole = path.read_bytes()
        for number, bad in enumerate((whole[:-9], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])):
            path.write_bytes(bad)
            with pytest.raises(ValueError, match="is damaged"):
                taken([path], tmp_path / f"{kind}{number}", strip=False)


def test_a_version_that_no_zip_has_is_damage(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(path) as archive:
        place = archive.start_dir + 6
    whole = bytearray(path.read_bytes())
    whole[place] = 99
    path.write_bytes(whole)
    for look in (lambda: unpack.size([path]), lambda: taken([path], tmp_path / "out")):
        with pytest.raises(ValueError, match=r"x.zip: is damaged \(zip file version 9.9\)"):
            look()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_another_way_of_compression_than_was_written_is_damage(method: int, tmp_path: Path) -> None:
    path = made(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(path) as archive:
        place = archive.start_dir + 10
    whole = bytearray(path.read_bytes())
    whole[place] = method
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"x.zip: is damaged"):
        taken([path], tmp_path / "out")


def split(path: Path, places: list[int]) -> list[Path]:
    """A zip cut at places as Info-ZIP splits: entries name their part and the place in it."""
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        at, entries = archive.start_dir, archive.infolist()
    starts = [0, *sorted({place for place in places if 0 < place <= at})]
    listed = data[at:]
    moved, where = b"", 0
    for entry in entries:
        fields = bytearray(listed[where : where + 46])
        part = bisect.bisect_right(starts, entry.header_offset) - 1
        fields[34:36] = struct.pack("<H", part)
        fields[42:46] = struct.pack("<L", entry.header_offset - starts[part])
        size = 46 + sum(struct.unpack_from("<3H", fields, 28))
        moved += bytes(fields) + listed[where + 46 : where + size]
        where += size
    last = len(starts) - 1
    count = struct.pack("<2H", min(len(entries), 0xFFFF), min(len(entries), 0xFFFF))
    end = b"PK\x05\x06" + struct.pack("<2H", last, last) + count
    end += struct.pack("<2LH", len(moved), at - starts[-1], 0)
    pieces = [data[one:other] for one, other in zip(starts, [*starts[1:], at], strict=True)]
    pieces[-1] += moved + end
    paths = [path.with_suffix(f".z{number + 1:02d}") for number in range(last)] + [path]
    for one, piece in zip(paths, pieces, strict=True):
        one.write_bytes(piece)
    return paths


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(1, 800), max_size=6))
def test_a_zip_in_parts_is_read_as_the_whole(tmp_path_factory: pytest.TempPathFactory, places: list[int]) -> None:
    folder = tmp_path_factory.mktemp("split")
    parts = split(zipped(folder / "x.zip", FILES), places)
    with splitzip.joined(parts) as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == FILES


def test_offsets_over_four_gigabytes(tmp_path: Path) -> None:
    """Two parts with a hole of 5 GB before the second: its entries get zip64 fields."""
    path = zipped(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("top/empty").header_offset
    parts = split(path, [place])
    hole = tmp_path / "x.z01"
    with hole.open("r+b") as file:
        file.truncate(5 * 2**30)  # sparse: what follows the first part's bytes is nobody's
    with splitzip.joined(parts) as file, zipfile.ZipFile(file) as archive:
        late = [entry for entry in archive.infolist() if entry.header_offset > 2**32]
        assert late and all(archive.read(entry) == FILES[entry.filename] for entry in late)


def test_parts_that_are_not_all_or_are_cut(tmp_path: Path) -> None:
    parts = split(zipped(tmp_path / "x.zip", FILES), [100, 300])
    with pytest.raises(ValueError, match=r"^is the last of 3 parts, and 2 are there"):
        splitzip.joined(parts[1:])
    parts[-1].write_bytes(parts[-1].read_bytes()[:-30])
    with pytest.raises(ValueError, match="has no end of a zip"):
        splitzip.joined(parts)


def test_parts_of_info_zip(tmp_path: Path) -> None:
    """The program that wrote the published ones."""
    program = shutil.which("zip")
    if program is None:
        pytest.skip("Info-ZIP is not installed")
    (tmp_path / "top").mkdir()
    noise = bytes((7 * number * number + number // 3) % 251 for number in range(150_000))
    for number in range(3):
        (tmp_path / f"top/{number}.wav").write_bytes(noise[number:])
    command = [program, "-q", "-0", "-r", "-s", "64k", "x.zip", "top"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    parts = [*sorted(tmp_path.glob("x.z[0-9]*")), tmp_path / "x.zip"]
    assert len(parts) > 3
    assert taken(parts, tmp_path / "out") == {f"{number}.wav": noise[number:] for number in range(3)}

"""Small imitations of the published data sets on loopback: fetched, checked, unpacked, packed; killed, gone on with."""

import csv
import dataclasses
import hashlib
import io
import json
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import disks
import numpy as np
import pytest
from sites import Site, serving
from tars import wav
from test_unpack import split

from dist_train.fetch import catalogue, obtain, web
from dist_train.fetch.catalogue import DATASETS, Dataset
from dist_train.sources import layouts

SOUND = wav((np.sin(np.arange(1600) / 9) * 9000).astype("<i2"), 16000)
ESC_HEADER = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
URBAN_HEADER = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "DELAYS", (0.0,) * 5)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as found:
        yield found


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([header, *rows])
    return file.getvalue().encode()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def moved(name: str, site: Site, **changed: Any) -> Dataset:
    """A data set of the catalogue whose official hosts are this site."""

    def there(address: str) -> str:
        path = address.partition("//")[2].partition("/")[2]
        return f"{site.address}/{path}"

    one = DATASETS[name]
    archives = tuple(
        dataclasses.replace(archive, parts=tuple((part, there(address)) for part, address in archive.parts))
        for archive in one.archives
    )
    hosts = {key: there(value) for key in ("record", "tree") if (value := getattr(one, key))}
    return dataclasses.replace(one, archives=archives, download=10**6, unpacked=10**6, **({**hosts, **changed}))


def lay(site: Site, one: Dataset, name: str, body: bytes, **how: Any) -> None:
    """An archive at its address, and in the record if the data set has one."""
    address = next(address for part, address, _ in one.parts() if part == name)
    site.put(address.removeprefix(f"{site.address}/"), body, **how)
    if one.record:
        path = one.record.removeprefix(f"{site.address}/")
        listed = json.loads(site.pages[path].body)["files"] if path in site.pages else []
        listed.append({"key": name, "size": len(body), "checksum": f"md5:{hashlib.md5(body).hexdigest()}"})
        site.put(path, json.dumps({"id": 1, "files": listed}).encode())


def esc50(site: Site, **how: Any) -> Dataset:
    """50 clips, ten of them of ESC-10; and the commit's tree."""
    one = moved("esc50", site, recordings=50)
    rows = [
        (f"{k % 5 + 1}-{100 + k}-A-{k}.wav", k % 5 + 1, k, f"class_{k // 5}", k < 10, 100 + k, "A") for k in range(50)
    ]
    files = {"README.md": b"ESC-50", "meta/esc50.csv": table(ESC_HEADER, rows), "audio/.gitkeep": b""}
    files |= {f"audio/{row[0]}": SOUND + bytes(row[2]) for row in rows}
    lay(site, one, "ESC-50.zip", zipped({f"ESC-50-33c8/{name}": data for name, data in files.items()}), **how)
    assert one.tree is not None
    listed = [
        {"path": name, "type": "blob", "sha": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
        for name, data in files.items()
    ]
    body = json.dumps({"tree": [*listed, {"path": "audio", "type": "tree", "sha": "0"}], "truncated": False})
    site.put(one.tree.removeprefix(f"{site.address}/"), body.encode())
    return one


def speechcommands(site: Site) -> Dataset:
    files = {f"./{word}/{speaker}_nohash_0.wav": SOUND for word in ("bed", "yes") for speaker in ("aa", "bb", "cc")}
    lists = {"./validation_list.txt": b"bed/aa_nohash_0.wav\n", "./testing_list.txt": b"yes/bb_nohash_0.wav\n"}
    body = tarred({**lists, **files, "./_background_noise_/tap.wav": SOUND})
    one = moved("speechcommands", site, recordings=7)
    archive = dataclasses.replace(one.archives[0], digest=f"sha256:{hashlib.sha256(body).hexdigest()}")
    one = dataclasses.replace(one, archives=(archive,))
    lay(site, one, "speech_commands_v0.02.tar.gz", body)
    return one


def urbansound8k(site: Site) -> Dataset:
    rows = [(f"{n}-3-0-0.wav", n, 0.0, 0.1, 1, n, 3, "dog_bark") for n in range(1, 11)]
    files = {f"UrbanSound8K/audio/fold{row[5]}/{row[0]}": SOUND for row in rows}
    files |= {"UrbanSound8K/metadata/UrbanSound8K.csv": table(URBAN_HEADER, rows), "._UrbanSound8K": b"a Mac was here"}
    one = moved("urbansound8k", site, recordings=10)
    lay(site, one, "UrbanSound8K.tar.gz", tarred(files))
    return one


def fsd50k(site: Site) -> Dataset:
    one = moved("fsd50k", site, recordings=4)
    truth = {
        "vocabulary.csv": b"0,Bark,/m/05tny_\n1,Rain,/m/06mb1\n",
        "dev.csv": b'fname,labels,mids,split\n1,Bark,x,train\n2,"Bark,Rain",x,val\n',
        "eval.csv": b"fname,labels,mids\n3,Bark,x\n4,Rain,x\n",
    }
    lay(site, one, "FSD50K.ground_truth.zip", zipped({f"FSD50K.ground_truth/{k}": v for k, v in truth.items()}))
    lay(site, one, "FSD50K.doc.zip", zipped({"FSD50K.doc/README.md": b"#"}))
    lay(site, one, "FSD50K.metadata.zip", zipped({"FSD50K.metadata/vocabulary.json": b"{}"}))
    return one


def parts(site: Site, one: Dataset, folder: Path) -> None:
    """FSD50K's audio, in as many parts as published."""
    for kind, clips, count in (("dev", (1, 2), 6), ("eval", (3, 4), 2)):
        whole = folder / f"FSD50K.{kind}_audio.zip"
        whole.write_bytes(zipped({f"FSD50K.{kind}_audio/{clip}.wav": SOUND for clip in clips}))
        size = whole.stat().st_size
        for path in split(whole, [size * k // (2 * count) for k in range(1, count)]):
            lay(site, one, path.name, path.read_bytes())


def fetched(one: Dataset, dest: Path, keep: bool = False) -> tuple[Path, list[str]]:
    said: list[str] = []
    home = obtain.obtain(one, dest, keep, lambda stage, done, total: None, said.append)
    return home, said


@pytest.mark.parametrize("name", ["esc50", "speechcommands", "urbansound8k", "fsd50k"])
def test_each_data_set_is_there_as_pack_wants_it(site: Site, tmp_path: Path, name: str) -> None:
    one = {"esc50": esc50, "speechcommands": speechcommands, "urbansound8k": urbansound8k, "fsd50k": fsd50k}[name](site)
    if name == "fsd50k":
        parts(site, one, tmp_path)
    home, said = fetched(one, tmp_path / "dest")
    assert sorted(path.name for path in (tmp_path / "dest").iterdir()) == sorted([one.folder, f".{one.folder}.lock"])
    source = layouts.read(home)
    assert (source.layout, len(source.samples)) == (
        {"esc50": "esc"}.get(name, name),
        {"esc50": 50, "speechcommands": 6, "urbansound8k": 10, "fsd50k": 4}[name],
    )
    assert all(sample.path.read_bytes()[: len(SOUND)] == SOUND for sample in source.samples)
    stamp = json.loads((home / "fetched.json").read_text())
    assert stamp["licence"] == one.licence and stamp["cite"] == one.cite
    for file in stamp["files"]:
        path = file["address"].removeprefix(f"{site.address}/")
        assert file["sha256"] == hashlib.sha256(site.pages[path].body).hexdigest()
    proof = "52 files are those of the commit" if name == "esc50" else "as published"
    assert proof in "\n".join(said) and "are published" not in "\n".join(said)
    asked = len(site.asked)
    assert fetched(one, tmp_path / "dest") == (home, [f"{home}: is there already"])
    assert len(site.asked) == asked


def test_a_file_that_is_not_the_commits_is_refused(site: Site, tmp_path: Path) -> None:
    one = esc50(site)
    assert one.tree is not None
    page = site.pages[one.tree.removeprefix(f"{site.address}/")]
    listed = json.loads(page.body)
    next(entry for entry in listed["tree"] if entry["path"] == "audio/1-100-A-0.wav")["sha"] = "0" * 40
    page.body = json.dumps(listed).encode()
    with pytest.raises(
        ValueError, match=r"audio/1-100-A-0.wav is not the file of the commit; delete .*ESC-50.archives"
    ):
        fetched(one, tmp_path)
    assert not (tmp_path / "ESC-50").exists()
    page.codes = [403]  # asked too often
    _, said = fetched(one, tmp_path)
    assert any("403" in line and "only the archive's own checksums were compared" in line for line in said)


def test_without_a_record_it_says_so(site: Site, tmp_path: Path) -> None:
    one = urbansound8k(site)
    assert one.record is not None
    site.pages[one.record.removeprefix(f"{site.address}/")].body = b'{"files": 3}'
    _, said = fetched(one, tmp_path, keep=True)
    sha256 = hashlib.sha256((tmp_path / "UrbanSound8K.archives/UrbanSound8K.tar.gz").read_bytes()).hexdigest()
    assert said[0].startswith("no published checksum: ")
    assert f"no published checksum; its sha256 is {sha256}" in said[1]


def test_archives_that_are_there_are_taken(site: Site, tmp_path: Path) -> None:
    one = urbansound8k(site)
    archive = next(page.body for path, page in site.pages.items() if "UrbanSound8K.tar.gz" in path)
    (tmp_path / "UrbanSound8K.archives").mkdir()
    (tmp_path / "UrbanSound8K.archives/UrbanSound8K.tar.gz").write_bytes(archive)
    fetched(one, tmp_path)
    assert [path for path, _, _ in site.asked] == ["api/records/1203745"]


def test_something_else_there_is_left_alone(site: Site, tmp_path: Path) -> None:
    (tmp_path / "ESC-50").mkdir()
    (tmp_path / "ESC-50/mine.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="ESC-50: is there, and was not fetched by this command"):
        fetched(esc50(site), tmp_path)
    assert site.asked == []


def test_too_small_a_disk_is_told_before_anything_comes(site: Site, tmp_path: Path) -> None:
    one = dataclasses.replace(esc50(site), unpacked=10**16)
    with pytest.raises(ValueError, match=r"10500000.0 GB are wanted for ESC-50 .* GB are free"):
        fetched(one, tmp_path)
    assert site.asked == []


def test_a_disk_that_fills_up_and_is_freed(site: Site, tmp_path: Path) -> None:
    one = urbansound8k(site)
    archive = next(page for path, page in site.pages.items() if "UrbanSound8K.tar.gz" in path)
    archive.body += bytes(6_000_000)  # zeros behind the end of a gzip file are allowed
    assert one.record is not None
    record = {"key": "UrbanSound8K.tar.gz", "size": len(archive.body)}
    record["checksum"] = f"md5:{hashlib.md5(archive.body).hexdigest()}"
    site.pages[one.record.removeprefix(f"{site.address}/")].body = json.dumps({"files": [record]}).encode()
    # by the figures there is room: somebody else fills the disk meanwhile
    with disks.small_disk(tmp_path / "disk", 8) as disk, pytest.MonkeyPatch.context() as patch:
        patch.setattr(obtain, "_room", lambda folder, wanted, what: None)
        filler = disk / "filler"
        filler.write_bytes(bytes(4_000_000))
        with pytest.raises(OSError, match=r"No space left on device; what came is kept"):
            fetched(one, disk)
        assert not (disk / "UrbanSound8K").exists()
        filler.unlink()
        assert len(layouts.read(fetched(one, disk)[0]).samples) == 10
    assert site.asked[-1][1] is not None and site.asked[-1][2] == 206


CHILD = """
import dataclasses, sys
from pathlib import Path
from dist_train.fetch import obtain
from dist_train.fetch.catalogue import Archive, Dataset
one = eval(sys.argv[1])
obtain.obtain(one, Path(sys.argv[2]), False, lambda *given: None, print)
"""


def child(one: Dataset, dest: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", CHILD, repr(one), str(dest)]
    return subprocess.Popen(command, env=environment | {"no_proxy": "127.0.0.1"}, stdout=subprocess.DEVNULL)


def test_killed_and_started_again(site: Site, tmp_path: Path, environment: dict[str, str]) -> None:
    """kill -9 in the download, then kill -9 in the unpacking: each next process goes on, and the last is done."""
    one = esc50(site, slow=0.02)
    page = next(page for path, page in site.pages.items() if path.endswith(".zip"))
    first = child(one, tmp_path, environment)
    until(lambda: any(path.stat().st_size > 2000 for path in tmp_path.glob("ESC-50.archives/.*.part")))
    first.send_signal(signal.SIGKILL)
    first.wait()
    there = next(tmp_path.glob("ESC-50.archives/.*.part")).stat().st_size
    assert 2000 < there < len(page.body) and not (tmp_path / "ESC-50").exists()
    page.slow = 0.0
    tree = next(page for path, page in site.pages.items() if "git/trees" in path)
    tree.slow = 0.5  # unpacked, and waits for the list
    second = child(one, tmp_path, environment)
    until(lambda: any("git/trees" in path for path, _, _ in site.asked))
    second.send_signal(signal.SIGKILL)
    second.wait()
    assert (tmp_path / ".ESC-50.unpacking").is_dir() and not (tmp_path / "ESC-50").exists()
    ranges = [asked for path, asked, _ in site.asked if path.endswith(".zip")]
    assert ranges == [None, f"bytes={there}-"]
    tree.slow = 0.0
    home, _ = fetched(one, tmp_path)
    assert len(layouts.read(home).samples) == 50 and len(ranges) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ESC-50.lock", "ESC-50"]


def until(happened: Any) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_two_at_once_are_refused(site: Site, tmp_path: Path) -> None:
    one = esc50(site)
    with obtain._locked(obtain.Room(tmp_path, one.folder)), pytest.raises(ValueError, match="another process is"):
        fetched(one, tmp_path)


def test_the_command_says_what_to_do_next_and_that_works(
    site: Site, tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """fetch esc10, then the printed command: ten clips of ESC-10 are packed."""
    tool: ModuleType = script("fetch")
    one = esc50(site)
    also = {key: getattr(DATASETS["esc10"], key) for key in ("title", "about", "pack", "recipe")}
    monkeypatch.setitem(catalogue.DATASETS, "esc10", dataclasses.replace(one, **also))
    monkeypatch.chdir(tmp_path)
    assert tool.main(["esc10", "my recordings"]) == 0
    told = capsys.readouterr().out
    assert told.count("licence: CC BY-NC 3.0") == 2 and told.count("cite: K. J. Piczak") == 2
    line = next(line.strip() for line in told.splitlines() if "make_shards.py pack" in line)
    assert line == "python tools/make_shards.py pack 'my recordings/ESC-50' shards/esc10 --where esc10=True"
    pack: ModuleType = script("make_shards")
    assert pack.main([*shlex.split(line)[2:], "--workers", "1"]) == 0
    assert "shards/esc10: 10 clips" in capsys.readouterr().out
    assert "./launch.sh configs/esc10.yaml" in told


def test_the_catalogue(script: Any, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool: ModuleType = script("fetch")
    assert tool.main(["--list"]) == 0
    told = capsys.readouterr().out
    for name, one in DATASETS.items():
        assert f"{name}: " in told and one.licence in told and one.cite in told
        assert (root / one.recipe).is_file() and one.pack.split()[0] in (root / one.recipe).read_text()
        assert all(address.startswith("https://") for _, address, _ in one.parts())
    assert tool.main([]) == 2
    assert capsys.readouterr().err.startswith("fetch: give NAME and DEST")


def test_a_bad_way_is_one_line(
    site: Site, tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = urbansound8k(site)
    site.pages = {path: page for path, page in site.pages.items() if "api" in path}
    monkeypatch.setitem(catalogue.DATASETS, "urbansound8k", one)
    assert script("fetch").main(["urbansound8k", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "404 Not Found" in error

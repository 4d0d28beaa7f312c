"""A file comes whole and right, or not at all, whatever the way there does: cuts, busy servers, lies, changes."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sites import Site, serving

from dist_train.fetch import transfer, web
from dist_train.fetch.published import Said
from dist_train.fetch.transfer import Fetched, Remote

BODY = bytes(range(200)) * 2
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits between tries, no proxy on the way to loopback."""
    monkeypatch.setattr(web, "DELAYS", (0.0,) * 5)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    with serving() as found:
        yield found


@pytest.fixture
def site(server: Site) -> Site:
    server.pages.clear()
    server.asked.clear()
    return server


def get(site: Site, folder: Path, size: int | None = None, digest: str | None = None, most: int = 10**6) -> Fetched:
    remote = Remote("f.bin", f"{site.address}/f.bin", Said(size, digest), most)
    return transfer.fetch(remote, folder, lambda done, total: None, lambda done, total: None)


@contextmanager
def given_up() -> Iterator[None]:
    """A process that does not try again: what it leaves is for the next one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "DELAYS", ())
        yield


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_with_its_digest(site: Site, tmp_path: Path) -> None:
    site.put("f.bin", BODY)
    ticks: list[tuple[int, int | None]] = []
    remote = Remote("f.bin", f"{site.address}/f.bin", Said(len(BODY), MD5), 10**6)
    found = transfer.fetch(remote, tmp_path, lambda done, total: ticks.append((done, total)), lambda done, total: None)
    assert (found.path.read_bytes(), found.size, found.fresh) == (BODY, 400, True)
    assert found.sha256 == hashlib.sha256(BODY).hexdigest()
    assert ticks[-1] == (400, 400) and left(tmp_path) == ["f.bin"]
    assert get(site, tmp_path, digest=MD5).fresh is False and len(site.asked) == 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=4), st.booleans(), st.booleans(), st.booleans())
def test_cut_anywhere_it_goes_on_from_there(
    site: Site, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], etag: bool, ranges: bool, known: bool
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    site.asked.clear()
    site.put("f.bin", BODY, cuts=list(cuts), etag=etag, ranges=ranges)
    assert get(site, folder, digest=MD5 if known else None).path.read_bytes() == BODY
    place = 0
    for (_, asked, status), cut in zip(site.asked, [*cuts, 400], strict=False):
        goes_on = place > 0 and (etag or known)
        assert asked == (f"bytes={place}-" if goes_on else None)
        assert status == (206 if goes_on and ranges else 200)
        place = max(place, cut) if goes_on and ranges else cut


def test_cut_at_every_place_and_begun_again_by_another_process(site: Site, tmp_path: Path) -> None:
    for place in range(0, 401, 25):
        folder = tmp_path / str(place)
        folder.mkdir()
        site.put("f.bin", BODY, cuts=[place])
        if place < 400:
            with given_up(), pytest.raises(ConnectionError, match=r"cut after|IncompleteRead|closed"):
                get(site, folder)
        assert get(site, folder).path.read_bytes() == BODY
        assert left(folder) == ["f.bin"]


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_begins_anew(site: Site, tmp_path: Path, if_range: bool) -> None:
    site.put("f.bin", BODY, cuts=[150])
    with given_up(), pytest.raises(ConnectionError):
        get(site, tmp_path)
    site.put("f.bin", BODY[::-1], if_range=if_range)
    assert get(site, tmp_path).path.read_bytes() == BODY[::-1]


def test_parts_of_two_versions_are_noticed_by_the_checksum(site: Site, tmp_path: Path) -> None:
    """Without ETags only the checksum can tell; it begins anew once."""
    site.put("f.bin", bytes(400), cuts=[150], etag=False)
    with given_up(), pytest.raises(ConnectionError):
        get(site, tmp_path, digest=MD5)
    site.put("f.bin", BODY, etag=False)
    assert get(site, tmp_path, digest=MD5).path.read_bytes() == BODY
    assert [asked for _, asked, _ in site.asked] == [None, "bytes=150-", None]


def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.put("f.bin", BODY[:-1] + b"!")
    with pytest.raises(ValueError, match=r"its md5 is [0-9a-f]{32}, and [0-9a-f]{32} is published; it was deleted"):
        get(site, tmp_path, digest=MD5)
    assert left(tmp_path) == [] and len(site.asked) == 1
    (tmp_path / "f.bin").write_bytes(b"laid there by hand")
    with pytest.raises(ValueError, match="delete it"):
        get(site, tmp_path, digest=MD5)
    assert (tmp_path / "f.bin").read_bytes() == b"laid there by hand"


def test_a_wrong_file_that_is_cut_each_time_is_given_up(site: Site, tmp_path: Path) -> None:
    site.put("f.bin", BODY[::-1], cuts=[100, 400, 200, 400, 300, 400])
    with pytest.raises(ValueError, match="is published; it was deleted"):
        get(site, tmp_path, digest=MD5)
    assert [asked for _, asked, _ in site.asked] == [None, "bytes=100-", None, "bytes=200-"] and left(tmp_path) == []


def test_no_is_no(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"f.bin: 404 Not Found"):
        get(site, tmp_path)
    assert len(site.asked) == 1 and left(tmp_path) == []


@pytest.mark.parametrize("code", [429, 500, 503])
def test_busy_is_asked_again(site: Site, tmp_path: Path, code: int) -> None:
    site.put("f.bin", BODY, codes=[code] * 3)
    assert get(site, tmp_path).path.read_bytes() == BODY
    assert [status for _, _, status in site.asked] == [code] * 3 + [200]
    site.put("f.bin", BODY, codes=[code] * 9)
    (tmp_path / "f.bin").unlink()
    site.asked.clear()
    with pytest.raises(ConnectionError, match=f"{code} .*try again later"):
        get(site, tmp_path)
    assert len(site.asked) == 6


def test_lengths_that_lie(site: Site, tmp_path: Path) -> None:
    site.put("f.bin", BODY, length=500)
    with pytest.raises(ConnectionError, match="the server has fewer bytes than were there"):
        get(site, tmp_path)
    site.put("f.bin", BODY, length=300, etag=False)
    with pytest.raises(ValueError, match="has 300 bytes, and 400 are published"):
        get(site, tmp_path, size=400)
    site.put("f.bin", BODY, chunked=True, etag=False)
    with pytest.raises(ValueError, match="sends more than 399 bytes"):
        get(site, tmp_path, most=399)
    with pytest.raises(ValueError, match="sends more than 390 bytes"):
        get(site, tmp_path, size=390)


def test_without_a_length_a_cut_is_seen_as_well(site: Site, tmp_path: Path) -> None:
    site.put("f.bin", BODY, chunked=True, cuts=[17, 90], ranges=False)
    assert get(site, tmp_path).path.read_bytes() == BODY


def test_redirects_are_followed_but_not_out_of_tls(site: Site, tmp_path: Path) -> None:
    address = site.put("other.bin", BODY)
    site.put("f.bin", b"", location=address)
    assert get(site, tmp_path).path.read_bytes() == BODY
    away = web._Redirect()
    with pytest.raises(ValueError, match="is not encrypted"):
        away.redirect_request(Request("https://a/b"), None, 302, "Found", {}, "http://a/b")


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    remote = Remote("f.bin", "http://127.0.0.1:9/f.bin", Said(), 10**6)
    with pytest.raises(ConnectionError, match=r"127.0.0.1:9/f.bin: .*refused.*; try again later"):
        transfer.fetch(remote, tmp_path, lambda done, total: None, lambda done, total: None)

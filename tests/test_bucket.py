"""A store whose answers go wrong, for real: what passes is repeated, what does not is one line."""

import os
import time
from pathlib import Path

import pytest
from faulty import FAULTS, Faulty
from servers import Seaweed, free_ports

from dist_train.stores.bucket import Bucket, Unreachable

DATA = bytes(range(256)) * 40


@pytest.fixture
def server(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "object").write_bytes(DATA)
    with Faulty(tmp_path / "folder") as server:
        yield server


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_ranges_and_what_they_cost(server: Faulty) -> None:
    bucket = Bucket(server.address)
    assert bucket.size("object") == len(DATA)
    assert bytes(bucket.range("object", 100, 400, len(DATA))) == DATA[100:400]
    assert bucket.read("object") == DATA
    assert bucket.fetched == server.sent == 300 + len(DATA)
    assert bucket.requests == server.gets + server.heads == 3 and bucket.repeated == 0


@pytest.mark.parametrize("fault", ["503", "500", "429", "408", "drop", "cut", "stall", "hang"])
def test_what_may_pass_is_asked_again(server: Faulty, fault: str) -> None:
    server.fault = lambda name, number: fault if number < 2 else None
    bucket = Bucket(server.address, patience=3 if fault in ("stall", "hang") else 60)
    assert bytes(bucket.range("object", 0, 5000, len(DATA))) == DATA[:5000]
    assert server.gets == 3 and bucket.repeated == 2


@pytest.mark.parametrize("fault", ["503", "hang", "stall", "cut"])
def test_patience_ends(server: Faulty, fault: str) -> None:
    server.fault = lambda name, number: fault
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"/object: no answer in 1 s") as caught:
        Bucket(server.address, patience=1.0).range("object", 0, 5000, len(DATA))
    one_line(caught.value)
    assert time.monotonic() - began < 30 and server.gets > 1


def test_nobody_there(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(Unreachable, match=address):
        Bucket(address, patience=0.5).read("object")


def test_a_server_that_comes_back(server: Faulty) -> None:
    bucket = Bucket(server.address)
    assert bucket.read("object") == DATA
    server.stop()
    server.start()
    assert bucket.read("object") == DATA


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("404", FileNotFoundError, "is not there"),
        ("403", PermissionError, "access denied"),
        ("401", PermissionError, "access denied"),
        ("400", ValueError, "400"),
        ("truncated", ValueError, "5120 bytes, the index says 10240: it was replaced"),
        ("longer", ValueError, "10241 bytes, the index says 10240: it was replaced"),
        ("whole", ValueError, "no byte ranges"),
    ],
)
def test_what_does_not_pass_is_said_at_once(server: Faulty, fault: str, kind: type, text: str) -> None:
    assert fault in FAULTS
    server.fault = lambda name, number: fault
    with pytest.raises(kind, match=text) as caught:
        Bucket(server.address, patience=1000).range("object", 10, 300, len(DATA))
    assert one_line(caught.value).startswith(f"{server.address}/object") and server.gets == 1


def test_a_store_that_says_why_is_quoted(seaweed: Seaweed) -> None:
    with pytest.raises(ValueError, match=r"^s3://nowhere: .*bucket does not exist \(NoSuchBucket\)$"):
        Bucket("s3://nowhere").sizes()


@pytest.mark.parametrize("start", [4000, 9000])  # the range crosses the new end, and lies behind it
def test_an_object_that_was_cut(server: Faulty, start: int) -> None:
    (server.folder / "object").write_bytes(DATA[:5000])
    with pytest.raises(ValueError, match="5000 bytes, the index says 10240: it was replaced"):
        Bucket(server.address, patience=1000).range("object", start, start + 1200, len(DATA))


def test_another_object_of_the_same_size(server: Faulty) -> None:
    bucket = Bucket(server.address)
    bucket.range("object", 0, 10, len(DATA))
    server.fault = lambda name, number: "replaced"
    with pytest.raises(ValueError, match="replaced while it was read"):
        bucket.range("object", 0, 10, len(DATA))


def test_giving_up_ends_the_pauses(server: Faulty) -> None:
    bucket = Bucket(server.address, patience=1000)
    calls = []

    def fault(name: str, number: int) -> str:
        calls.append(number)
        if len(calls) == 3:
            bucket.give_up()
        return "503"

    server.fault = fault
    with pytest.raises(Unreachable):
        bucket.range("object", 0, 10)


def test_downloads_are_whole(server: Faulty, tmp_path: Path) -> None:
    server.fault = lambda name, number: "cut" if number < 2 else None
    bucket = Bucket(server.address)
    bucket.download("object", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    with pytest.raises(FileNotFoundError, match="nowhere"):
        bucket.download("object", tmp_path / "nowhere" / "copy")


def test_secrets_are_not_said() -> None:
    for address in ("https://user:word@host.invalid/x?sig=word", "https://host.invalid/x?X-Amz-Signature=word"):
        with pytest.raises(ValueError, match="signed for one object") as caught:
            Bucket(address).read("a")
        assert "word" not in str(caught.value)
    port = free_ports(1)[0]
    with pytest.raises(Unreachable) as caught:
        Bucket(f"http://user:word@127.0.0.1:{port}/x", patience=0.2).read("a")
    assert "word" not in str(caught.value)


@pytest.fixture
def amazon(server: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    """A store that is asked as S3, on a machine where nobody has left credentials."""
    (server.folder / "clips").mkdir()
    (server.folder / "clips" / "object").write_bytes(DATA)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.address)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return server


def test_credentials_of_the_environment(amazon: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    assert Bucket("s3://clips").size("object") == len(DATA)
    assert "Credential=KEY/" in amazon.signed


def test_credentials_of_a_profile(amazon: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = OTHER\naws_secret_access_key = word\n")
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert Bucket("s3://clips").size("object") == len(DATA)
    assert "Credential=OTHER/" in amazon.signed and "/eu-west-1/" in amazon.signed
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(ValueError, match=r"s3://clips: AWS credentials: .*missing"):
        Bucket("s3://clips").size("object")


def test_a_list_may_be_denied_too(amazon: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    amazon.fault = lambda name, number: "403"
    with pytest.raises(PermissionError, match="s3://clips: access denied") as caught:
        Bucket("s3://clips", patience=1000).sizes()
    one_line(caught.value)


def test_no_credentials(amazon: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermissionError, match="s3://clips/object: no credentials found") as caught:
        Bucket("s3://clips", patience=1000).size("object")
    one_line(caught.value)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert Bucket("s3://clips").size("object") == len(DATA)
    assert amazon.signed == ""

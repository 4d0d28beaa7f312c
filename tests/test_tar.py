"""The strict walk of a tar, against Python's tarfile in all its formats."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from dist_train.archive.tar import Damage, walk


@given(st.integers(1, 3), st.binary(min_size=1, max_size=600))
def test_names_and_sizes_of_every_tar_format(count, payload):
    name = "n" * 60 + "/" + "名" * 60
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        members = [
            ("d/", None),
            *[(f"{number}/{name[: 60 if form == tarfile.USTAR_FORMAT else 200]}", payload) for number in range(count)],
        ]
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for member, raw in members:
                info = tarfile.TarInfo(member)
                info.type, info.size = (tarfile.DIRTYPE, 0) if raw is None else (tarfile.REGTYPE, len(payload))
                tar.addfile(info, io.BytesIO(raw or b""))
        found = list(walk(buffer))
        assert [(item.name, item.size) for item in found] == [(member, len(payload)) for member, raw in members if raw]
        assert all(buffer.getvalue()[item.offset :].startswith(payload) for item in found)


def test_a_base_256_size_past_the_end():
    header = bytearray(tarfile.TarInfo("big.wav").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (10 << 30).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (damage,) = walk(io.BytesIO(bytes(header) + bytes(2048)))
    assert isinstance(damage, Damage) and "payload of 10737418240 bytes" in damage.text and damage.name == "big.wav"


@given(st.binary(max_size=40))
def test_a_damaged_pax_record_does_not_hold_the_walk(junk):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("名" * 60))
    raw = bytearray(buffer.getvalue())
    for record in (b"0 path=x\n", junk):
        raw[512 : 512 + len(record)] = record
        assert len(list(walk(io.BytesIO(bytes(raw))))) == 1

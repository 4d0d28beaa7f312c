"""WAV headers of every kind against soundfile, by the bytes they point to."""

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from tars import RATE, chunk, riff, tone, wav

from dist_train.archive import level
from dist_train.archive.row import CODECS
from dist_train.archive.wav import alaw_table, is_wav, mulaw_table, parse

SUBTYPES = {
    "PCM_U8": CODECS.U8,
    "PCM_16": CODECS.S16,
    "PCM_24": CODECS.S24,
    "PCM_32": CODECS.S32,
    "FLOAT": CODECS.F32,
    "DOUBLE": CODECS.F64,
    "ULAW": CODECS.MULAW,
    "ALAW": CODECS.ALAW,
}
GUID = bytes.fromhex("000000001000800000aa00389b71")


def read(raw, start=0, size=None):
    return parse(io.BytesIO(raw), len(raw) if size is None else size, start)


def form(tag, channels, rate, width, bits=None, extra=b""):
    bits = bits or 8 * width
    return chunk(
        b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, bits) + extra
    )


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_samples_are_those_of_soundfile(container, channels, subtype):
    raw = wav(tone(600).reshape(-1, channels) / 40000, 22050, subtype, container)
    head = read(raw)
    assert (head.codec, head.channels, head.rate, head.frames) == (SUBTYPES[subtype], channels, 22050, 600 // channels)
    got = level.pcm(raw[head.offset : head.offset + head.size], head.codec) / level.FULL_SCALE[head.codec]
    want = soundfile.read(io.BytesIO(raw), dtype="float64", always_2d=True)[0].ravel()
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_other_encodings_are_whole_files(subtype):
    assert read(wav(tone(), RATE, subtype)).codec == CODECS.FILE


@given(st.binary(max_size=40), st.integers(0, 9), st.integers(1, 50))
def test_chunks_before_the_samples_and_partial_frames_after(junk, start, frames):
    data = bytes(range(4 * frames % 256)).ljust(4 * frames, b"x") + b"odd"
    body = riff(
        chunk(b"LIST", junk), form(1, 2, 8000, 2), chunk(b"JUNK", junk), chunk(b"data", data), chunk(b"id3 ", junk)
    )
    head = read(b"?" * start + body + b"more", start, len(body))
    assert (head.frames, head.size) == (frames, 4 * frames)
    assert body[head.offset : head.offset + head.size] == data[: 4 * frames]


def test_fewer_valid_bits_than_the_container_has():
    extra = struct.pack("<HHIH", 22, 20, 4, 1) + GUID
    head = read(riff(form(0xFFFE, 1, 48000, 3, 24, extra), chunk(b"data", bytes(30))))
    assert (head.codec, head.frames) == (CODECS.S24, 10)
    foreign = struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)
    assert read(riff(form(0xFFFE, 1, 48000, 2, 16, foreign), chunk(b"data", bytes(30)))).codec == CODECS.FILE


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF])
def test_a_writer_to_a_pipe_knew_no_size(size):
    raw = riff(form(1, 1, 8000, 2)) + b"data" + struct.pack("<I", size) + bytes(200)
    assert read(raw).frames == 100


def test_rf64_size_of_more_than_4_gigabytes_is_taken_from_ds64():
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, 6 << 30, 0, 0))
    raw = riff(ds64, form(1, 1, 48000, 3), form=b"RF64") + b"data\xff\xff\xff\xff"
    assert read(raw, size=len(raw) + (6 << 30)).frames == 2 << 30


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "not a WAV"),
        (b"RIFX" + bytes(60), "not a WAV"),
        (riff(form(1, 1, 8000, 2)), "no data chunk"),
        (riff(chunk(b"data", bytes(8))), "no format"),
        (riff(form(1, 0, 8000, 2), chunk(b"data", bytes(8))), "0 channels"),
        (riff(form(1, 1, 0, 2), chunk(b"data", bytes(8))), "0 Hz"),
        (riff(form(1, 1, 8000, 2), chunk(b"data", b"")), "no samples"),
        (riff(form(1, 2, 8000, 2), chunk(b"data", b"123")), "no samples"),
        (riff(form(1, 1, 8000, 2), chunk(b"data", bytes(800)))[:-100], "cut"),
        (riff(b"LIST\xff\xff\xff\x0f"), "ends past"),
    ],
)
def test_damage_is_named(raw, text):
    with pytest.raises(ValueError, match=text):
        read(raw)


@given(st.integers(0, 60), st.integers(0, 255))
def test_a_flipped_header_byte_never_breaks_the_parser(byte, mask):
    raw = bytearray(wav(tone(100)))
    raw[min(byte, len(raw) - 1)] ^= mask
    try:
        head = read(bytes(raw))
    except ValueError:
        return
    assert head.offset + head.size <= len(raw)


def test_g711_tables_have_the_published_ends():
    assert mulaw_table()[[0, 0x7F, 0x80, 0xFF]].tolist() == [-32124, 0, 32124, 0]
    assert alaw_table()[[0x2A, 0xAA, 0x55, 0xD5]].tolist() == [-32256, 32256, -8, 8]


def test_only_little_endian_wave_is_wav():
    assert is_wav(b"RIFF1234WAVE")
    assert not is_wav(b"RIFF1234AVI ")
    assert not is_wav(b"fLaC")

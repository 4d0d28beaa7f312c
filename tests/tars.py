"""Small WebDataset tars for tests, sound ones and every kind of damaged one."""

import hashlib
import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import soundfile

from dist_train.archive import intact

RATE = 16000


def tone(frames=800, seed=0):
    return (np.random.default_rng(seed).uniform(-0.5, 0.5, frames) * 32767).astype("<i2")


def wav(samples, rate=RATE, subtype="PCM_16", form="WAV"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, subtype=subtype, format=form)
    return buffer.getvalue()


def chunk(name, payload):
    return name + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def riff(*chunks, form=b"RIFF"):
    body = b"WAVE" + b"".join(chunks)
    return form + struct.pack("<I", len(body)) + body


def samples(count, first=0, labels=("dog", "cat"), frames=800, **more):
    """[(name, bytes)] of `count` samples, .wav and .json; `more` goes into the JSON, lists by sample."""
    members = []
    for number in range(first, first + count):
        extra = {name: value[number] if isinstance(value, list) else value for name, value in more.items()}
        record = {"label": labels[number % len(labels)], **extra}
        members += [
            (f"k{number:03d}.wav", wav(tone(frames, number))),
            (f"k{number:03d}.json", json.dumps(record).encode()),
        ]
    return members


def pack(path: Path, members, form=tarfile.USTAR_FORMAT):
    """Write a tar of (name, bytes); returns {name: (header's byte, payload's byte)}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, payload in members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))
    with tarfile.open(path) as tar:
        return {info.name: (info.offset, info.offset_data) for info in tar}


def patch(path: Path, byte: int, mask: int = 0xFF):
    """Flip bits of one byte."""
    raw = bytearray(path.read_bytes())
    raw[byte] ^= mask
    path.write_bytes(bytes(raw))


def rewrite(folder: Path, rows, sealed=True):
    """Write other rows into an index, and their checksums unless an older version wrote them."""
    if sealed:
        intact.seal(rows)
    np.save(folder / "index.npy", rows)
    info = json.loads((folder / "index.json").read_text())
    info = {name: value for name, value in info.items() if sealed or name != "sealed"}
    info["files"]["index.npy"]["sha256"] = hashlib.sha256((folder / "index.npy").read_bytes()).hexdigest()
    (folder / "index.json").write_text(json.dumps(info))


def cut(path: Path, size: int):
    path.write_bytes(path.read_bytes()[:size])

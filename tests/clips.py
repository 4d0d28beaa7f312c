"""Clips and raw batches for tests of the front end, laid out as the index and the reader lay them out."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
import torch

from dist_train.archive.row import BYTES, CODECS, ROW
from dist_train.window import PLAN

SUBTYPES = {
    CODECS.U8: "PCM_U8",
    CODECS.S16: "PCM_16",
    CODECS.S24: "PCM_24",
    CODECS.S32: "PCM_32",
    CODECS.F32: "FLOAT",
    CODECS.F64: "DOUBLE",
    CODECS.MULAW: "ULAW",
    CODECS.ALAW: "ALAW",
}
VIEW_ROW = np.dtype([*[(name, ROW[name]) for name in ROW.names if name != "shard"], ("file", "<i4")])


def sound(frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(frames, channels) float64 noise with a slow swell, well under full scale."""
    noise = np.random.default_rng([seed, frames]).standard_normal((frames, channels))
    return noise * (0.05 + 0.1 * np.sin(np.arange(frames) / 5000)[:, None] ** 2)


def encode(wave: np.ndarray, codec: CODECS) -> tuple[bytes, np.ndarray]:
    """The PCM bytes of a wave, and the (frames, channels) float32 that soundfile reads from them (F16: numpy)."""
    if codec == CODECS.F16:
        half = wave.astype("<f2")
        return half.tobytes(), half.astype(np.float32)
    raw = {"samplerate": 16000, "format": "RAW", "subtype": SUBTYPES[codec], "endian": "LITTLE"}
    file = io.BytesIO()
    soundfile.write(file, wave, **raw)
    data = file.getvalue()
    read, _ = soundfile.read(io.BytesIO(data), channels=wave.shape[1], dtype="float32", always_2d=True, **raw)
    return data, read


def index_rows(clips: list[np.ndarray], rates: list[int] | int = 16000, codec: CODECS = CODECS.S16) -> np.ndarray:
    """Rows of a view for clips (frames, channels)."""
    rows = np.zeros(len(clips), VIEW_ROW)
    rows["rate"] = rates
    rows["codec"] = codec
    rows["label"] = np.arange(len(clips)) % 5
    for row, clip in zip(rows, clips, strict=True):
        row["frames"], row["channels"] = clip.shape
        row["rms"] = np.sqrt(np.mean(clip.mean(1) ** 2))
    return rows


def raw_batch(plan: np.ndarray, clips: list[np.ndarray]) -> Any:
    """What the reader would hand over for a plan whose ids count the clips; bytes that nobody reads are 0xFF (NaN)."""
    frame = [BYTES[CODECS(int(row["codec"]))] * int(row["channels"]) for row in plan]
    width = -(-max(int(row["count"]) * size for row, size in zip(plan, frame, strict=True)) // 64) * 64
    data = np.full((len(plan), width), 255, np.uint8)
    for row, size, target in zip(plan, frame, data, strict=True):
        encoded, _ = encode(clips[int(row["id"])], CODECS(int(row["codec"])))
        first, last = max(int(row["first"]), 0), min(int(row["first"] + row["count"]), int(row["frames"]))
        wanted = np.frombuffer(encoded[first * size : max(first, last) * size], np.uint8)
        offset = max(0, -int(row["first"])) * size
        target[offset : offset + len(wanted)] = wanted
    return SimpleNamespace(plan=plan, data=torch.from_numpy(data), bad=[], read_seconds=0.0)


def plan_of(count: int, length: int = 100, window: int = 100) -> np.ndarray:
    """Rows of a plan for what looks at positions and lengths only."""
    plan = np.zeros(count, PLAN)
    plan["position"], plan["length"], plan["window"] = np.arange(count) + 1000, length, window
    plan["weight"], plan["rms"] = 1.0, 0.1
    return plan

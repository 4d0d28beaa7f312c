"""The parts of a recording that stay when silence, or everything but speech, is cut away at packing.

    silence   one part: from the first to the last frame of 20 ms within so many dB of the loudest frame's level
    vad       every stretch of speech that Silero VAD finds (https://github.com/snakers4/silero-vad, MIT), end to end

Comes in: blocks of samples. Goes out: parts as (first, end) in frames of the recording; none where nothing was found.
A level is the mean square over the frame's samples and channels.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.sources.recordings import Block

USUAL = {"silence": 40.0, "vad": 0.5}
"""Kind -> the usual limit: dB under the loudest frame; probability of speech."""
BOUNDS = {"silence": (1, 120), "vad": (0.01, 0.99)}
FRAME = 0.02  # seconds
VAD_RATE = 16000

Part = tuple[int, int]


@dataclass(frozen=True)
class Trim:
    """What is cut. kind: silence or vad; limit: what a frame must reach to stay, see USUAL."""

    kind: str
    limit: float


def check(kind: str | None, limit: float | None, codec: str) -> None:
    """ValueError for options that do not go together, a limit out of range, and where what finds speech is missing."""
    if kind is None:
        if limit is not None:
            raise ValueError(f"--trim-limit {limit}: is for --trim {' or '.join(USUAL)}; leave it out")
        return
    if kind not in USUAL:
        raise ValueError(f"--trim {kind}: is none of {', '.join(USUAL)}")
    if codec == "original":
        raise ValueError(f"--trim {kind}: cuts, which --codec original cannot; pack with another codec")
    low, high = BOUNDS[kind]
    if limit is not None and not low <= limit <= high:
        raise ValueError(f"--trim-limit {limit}: is not from {low} to {high}, as --trim {kind} has it")
    if kind == "vad" and importlib.util.find_spec("silero_vad") is None:
        raise ValueError("--trim vad: needs the package silero-vad; install it with pip install -e '.[vad]'")


def silence(blocks: Iterable[Block], rate: int, limit: float) -> list[Part]:
    """All between the silence at the start and the silence at the end; no part where every sample is zero."""
    size = max(1, round(rate * FRAME))
    level_N, count = _levels(blocks, size)
    loudest = level_N.max(initial=0.0)
    if loudest == 0:
        return []
    loud = np.flatnonzero(level_N >= loudest * 10 ** (-limit / 10))
    return [(int(loud[0]) * size, min(count, (int(loud[-1]) + 1) * size))]


def _levels(blocks: Iterable[Block], size: int) -> tuple[NDArray[np.float64], int]:
    """Mean square of each frame, the last one perhaps shorter, and the number of samples. Blocks may end anywhere."""
    levels: list[NDArray[np.float64]] = []
    count, rest = 0, np.zeros(0)
    for block in blocks:
        count += len(block)
        square = np.concatenate([rest, np.square(block, dtype=np.float64).mean(axis=1)])
        whole = len(square) // size * size
        levels.append(square[:whole].reshape(-1, size).mean(axis=1))
        rest = square[whole:]
    if len(rest):
        levels.append(rest.mean(keepdims=True))
    return np.concatenate(levels) if levels else np.zeros(0), count


def speech(blocks: Iterable[Block], rate: int, limit: float) -> list[Part]:
    """Stretches of speech. `blocks`: one channel at 16 kHz; `rate`: of the recording, whose frames the parts count.

    Silero's own rules make stretches of its probabilities: one begins over `limit` and ends .15 under it for 100 ms;
    those under 250 ms are dropped; each is widened by 30 ms. All of the 16 kHz waveform is held in memory.
    """
    wave_T = np.concatenate([np.zeros((0, 1), np.float32), *blocks])[:, 0]
    if not len(wave_T):
        return []
    with _one_thread() as torch:  # the same sums on any machine and in any process; importing silero_vad sets it, too
        model, stretches = _silero()
        found = stretches(torch.from_numpy(wave_T), model, threshold=limit, sampling_rate=VAD_RATE)
    return [(_at(part["start"], rate), _at(part["end"], rate)) for part in found]


def _at(sample: int, rate: int) -> int:
    """A place at 16 kHz in frames of the recording: whole numbers, rounded half up."""
    return (2 * sample * rate + VAD_RATE) // (2 * VAD_RATE)


@contextmanager
def _one_thread() -> Iterator[Any]:
    """torch, on one thread."""
    import torch  # seconds, that processes which only encode do without

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield torch
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _silero() -> tuple[Any, Any]:
    """The network, from the package's own file, and what makes stretches of its probabilities."""
    import silero_vad

    return silero_vad.load_silero_vad(), silero_vad.get_speech_timestamps


def joined(blocks: Iterable[Block], parts: list[Part]) -> Iterator[Block]:
    """The parts of a recording end to end; they ascend and do not overlap."""
    at = 0
    for block in blocks:
        for first, end in parts:
            piece = block[max(0, first - at) : max(0, end - at)]
            if len(piece):
                yield piece
        at += len(block)

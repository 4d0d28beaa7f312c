"""Sound for what listens: bytes on stdin, and a stand-in for the module sounddevice, by the same callback contract.

The callback runs in a thread of its own, with memory that is used again, and a device gives silence until it is closed.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

BLOCK = 480


class PortAudioError(Exception):
    """What the real module raises."""


class Sound:
    """One machine with an output, and an input that hears `wave` (frames, channels) at `rate`, then silence.

    overflow: numbers of the blocks that come with this flag; unplugged: it stops after the wave.
    """

    PortAudioError = PortAudioError

    def __init__(
        self, wave: np.ndarray, rate: int, overflow: tuple[int, ...] = (), unplugged: bool = False, pace: float = 0.0
    ) -> None:
        self.wave, self.rate, self.overflow, self.unplugged, self.pace = wave, rate, overflow, unplugged, pace
        self.default = SimpleNamespace(device=[1, 0])
        self.opened: list[dict[str, Any]] = []

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": "Fake"}]

    def query_devices(self, device: int | str | None = None, kind: str | None = None) -> Any:
        both = [
            {"name": "Lautsprecher", "hostapi": 0, "max_input_channels": 0, "default_samplerate": 44100.0},
            {"name": "麦克风 [USB]", "hostapi": 0, "max_input_channels": 2, "default_samplerate": float(self.rate)},
        ]
        if kind is None:
            return both
        fits = [one for number, one in enumerate(both) if device in (None, number) or str(device) in one["name"]]
        fits = [one for one in fits if one["max_input_channels"]]
        if not fits:
            raise ValueError(f"No input device matching {device!r}")
        return fits[0]

    def InputStream(self, **given: Any) -> "Stream":  # the real module's name
        if given["channels"] > 2:
            raise PortAudioError("Error opening InputStream: Invalid number of channels [PaErrorCode -9998]")
        self.opened.append(given)
        return Stream(self, given)


class Stream:
    """An open device."""

    def __init__(self, sound: Sound, given: dict[str, Any]) -> None:
        assert given["dtype"] == "float32" and given["samplerate"] == sound.rate
        self.sound, self.given, self.active = sound, given, False
        self._closed = threading.Event()

    def start(self) -> None:
        self.active = True
        threading.Thread(target=self._run, daemon=True).start()

    def close(self, ignore_errors: bool = True) -> None:
        self._closed.set()

    def _run(self) -> None:
        wave = self.sound.wave[:, : self.given["channels"]]
        memory = np.zeros((BLOCK, self.given["channels"]), np.float32)
        number = 0
        while not self._closed.wait(self.sound.pace if number * BLOCK < len(wave) else 0.01):
            block = wave[number * BLOCK : (number + 1) * BLOCK]
            if not len(block) and self.sound.unplugged:
                break
            memory[:] = 0
            memory[: len(block)] = block
            status = SimpleNamespace(input_overflow=number in self.sound.overflow)
            self.given["callback"](memory, BLOCK, None, status)
            memory[:] = np.nan  # whoever kept it without a copy hears this
            number += 1
        self.active = False
        self.given["finished_callback"]()


def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """A function that puts bytes on stdin; its end is closed after the yield."""
    ends: list[int] = []

    def put(data: bytes) -> None:
        read, write = os.pipe()
        ends.append(read)

        def feed() -> None:
            with os.fdopen(write, "wb", 0) as file, suppress(BrokenPipeError):
                file.write(data)

        threading.Thread(target=feed, daemon=True).start()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: read, isatty=lambda: False))

    yield put
    for end in ends:
        os.close(end)


def wav(wave: np.ndarray, rate: int, folder: Path, subtype: str = "PCM_16") -> bytes:
    """The bytes of a WAV of (frames, channels)."""
    soundfile.write(folder / "stream.wav", wave, rate, subtype=subtype)
    return (folder / "stream.wav").read_bytes()

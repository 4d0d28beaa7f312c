"""A microphone -> blocks of samples, by sounddevice (PortAudio). Its callback copies and leaves: it never waits."""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.live.flow import Flow

AHEAD = 30.0  # seconds that may wait to be understood before they are lost


def library() -> Any:
    """The module sounddevice. ValueError: it, or PortAudio below it, is not installed."""
    try:
        return importlib.import_module("sounddevice")
    except ModuleNotFoundError:
        raise ValueError("a microphone needs the package sounddevice; install it: pip install -e '.[mic]'") from None
    except OSError as error:
        raise ValueError(
            f"a microphone needs the library PortAudio ({error}); install it: apt-get install libportaudio2"
        ) from None


def devices() -> list[tuple[str, ...]]:
    """Rows of the devices that can hear: number (`*`: the default), name, interface, channels, rate in Hz."""
    sound = library()
    chosen = sound.default.device[0]
    interfaces = [one["name"] for one in sound.query_hostapis()]
    return [
        (
            f"{number}{' *' if number == chosen else ''}",
            one["name"],
            interfaces[one["hostapi"]],
            str(one["max_input_channels"]),
            f"{one['default_samplerate']:.0f}",
        )
        for number, one in enumerate(sound.query_devices())
        if one["max_input_channels"] > 0
    ]


class Microphone:
    """A source of sound. ValueError: no such device, or one that cannot be opened so."""

    live = True

    def __init__(self, device: str | None, rate: int | None, channels: int | None) -> None:
        """`device`: a number, or a part of a name; None: the default. `rate`, `channels`: None: the device's, one."""
        self._sound = library()
        asked = int(device) if device is not None and device.isdecimal() else device
        try:
            found = self._sound.query_devices(asked, "input")
            self.name = str(found["name"])
            self.rate = rate or round(found["default_samplerate"])
            self.channels = channels or 1
            self.flow = Flow(round(AHEAD * self.rate))
            self._stream = self._sound.InputStream(
                samplerate=self.rate,
                channels=self.channels,
                device=asked,
                dtype="float32",
                callback=self._hear,
                finished_callback=self.flow.end,
            )
        except (ValueError, self._sound.PortAudioError) as error:
            raise ValueError(_refused(device, error)) from None

    def start(self) -> None:
        """Begin to hear."""
        try:
            self._stream.start()
        except self._sound.PortAudioError as error:
            raise ValueError(_refused(self.name, error)) from None

    def close(self) -> None:
        """Give the device back."""
        self.flow.close()
        self._stream.close(ignore_errors=True)

    def silent(self) -> bool:
        """Whether nothing will ever come: the device has stopped."""
        return not self._stream.active

    def _hear(self, block: NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
        """In PortAudio's thread, whose memory `block` is."""
        if status.input_overflow:
            self.flow.overruns += 1
        self.flow.offer(block.copy())


def _refused(device: str | None, error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"--device {device or '(default)'}: {said}; see --list-devices"

"""The parts of listening and recording: what is held, how loud it is, what is told, when a command runs."""

import fcntl
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import soundfile
import soxr
from clips import SUBTYPES
from hypothesis import example, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from dist_train.live import action, level, pipe
from dist_train.live.converter import Converter
from dist_train.live.debounce import Debounce, Label, Rule
from dist_train.live.flow import Flow
from dist_train.live.listener import Event, Grid, Listener
from dist_train.live.ring import Ring

PATIENCE = 60.0  # seconds for what takes none on an idle machine


def _noise(frames: int, channels: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(frames).standard_normal((frames, channels))).astype(np.float32)


def _until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@limits(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 25), max_size=12), st.integers(1, 2))
def test_ring_holds_the_newest(capacity: int, sizes: list[int], channels: int) -> None:
    ring, whole = Ring(capacity, channels), _noise(sum(sizes), channels)
    done = 0
    for size in sizes:
        ring.append(whole[done : done + size])
        done += size
        assert ring.end == done and ring.first == max(0, done - capacity)
        for first in range(ring.first, done + 1):
            np.testing.assert_array_equal(ring.view(first, done), whole[first:done])
    ring.gap(3)
    assert ring.first == ring.end == done + 3


def test_levels_of_known_sounds() -> None:
    time_T = np.arange(16000) / 16000
    sine = np.sin(2 * np.pi * 1000 * time_T + 0.5).astype(np.float32)[:, None]
    found = level.measure(0.5 * sine)
    assert found.peak == pytest.approx(-6.02, abs=0.06) and found.rms == pytest.approx(-9.03, abs=0.01)
    assert level.measure(np.zeros((5, 1), np.float32)) == level.Level(level.FLOOR, level.FLOOR)
    assert level.measure(np.zeros((0, 2), np.float32)).peak == level.FLOOR
    assert not level.measure(0.99 * sine).clipped
    assert level.measure(np.clip(2 * sine, -1, 1)).clipped > 8000  # two thirds of it
    assert level.measure(np.array([[1, 0], [0, 1], [1, 1], [0, 1]], np.float32)).clipped == 3  # of the second channel
    burst = np.concatenate([np.zeros((16000, 1), np.float32), sine[:1600], np.zeros((62400, 1), np.float32)])
    assert level.loudest(burst, 16000) == pytest.approx(-3.01, abs=0.05)


def test_the_meter_jumps_up_and_falls_slowly() -> None:
    meter = level.Meter()
    meter.hear(np.full((1600, 1), 0.5, np.float32), 16000)
    assert meter.peak == pytest.approx(-6.02, abs=0.01) and meter.rms < -6.02
    for _ in range(10):
        meter.hear(np.zeros((1600, 1), np.float32), 16000)
    assert meter.peak == pytest.approx(-26.02, abs=0.01) and meter.rms < -15


@limits(max_examples=20, deadline=None)
@given(st.sampled_from([8000, 44100, 48000]), st.lists(st.integers(0, 5000), min_size=1, max_size=8), st.booleans())
def test_conversion_does_not_depend_on_blocks(rate: int, sizes: list[int], stereo: bool) -> None:
    whole = _noise(sum(sizes), 1 + stereo)
    stream = Converter(rate, 16000)
    bounds = np.cumsum([0, *sizes])
    parts = [stream.hear(whole[first:end]) for first, end in itertools.pairwise(bounds)]
    found = np.concatenate([*parts, stream.finish()])
    expected = soxr.resample(whole.mean(1), rate, 16000, quality="VHQ") if len(whole) else whole[:, 0]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_channels_and_what_is_no_number() -> None:
    block = np.array([[0.5, 0.1], [np.nan, 0.3], [0.2, np.inf]], np.float32)
    for mix, expected in (
        ("mono", [[0.3], [0.15], [0.1]]),
        ("first", [[0.5], [0], [0.2]]),
        (3, [[0.5, 0.1, 0.5], [0, 0.3, 0], [0.2, 0, 0.2]]),
    ):
        stream = Converter(16000, 16000, mix)
        np.testing.assert_allclose(stream.hear(block), expected, atol=1e-7)
        assert stream.broken == 2


def _piped(data: bytes, *asked: str | int | None, chunk: int = 1000) -> tuple[pipe.Pipe, np.ndarray]:
    """What comes out of a pipe that is written in chunks."""
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb", 0) as file, suppress(BrokenPipeError):
            for start in range(0, len(data), chunk):
                file.write(data[start : start + chunk])

    threading.Thread(target=feed, daemon=True).start()
    try:
        source = pipe.Pipe(read, *asked)  # type: ignore[arg-type]
        source.start()
        blocks = []
        with pytest.raises(EOFError):
            while True:
                blocks.append(source.flow.take(PATIENCE).block)
        return source, np.concatenate([np.zeros((0, source.channels)), *blocks])
    finally:
        os.close(read)


@pytest.mark.parametrize("name", pipe.FORMATS)
def test_raw_samples_as_libsndfile_reads_them(name: str, tmp_path: Path) -> None:
    form = {"format": "RAW", "subtype": SUBTYPES[pipe.FORMATS[name]], "endian": "BIG" if "be" in name else "LITTLE"}
    soundfile.write(tmp_path / "raw", _noise(2000, 2), 22050, **form)
    expected, _ = soundfile.read(tmp_path / "raw", samplerate=22050, channels=2, dtype="float32", **form)
    source, found = _piped((tmp_path / "raw").read_bytes() + b"x", name, 22050, 2, chunk=777)
    np.testing.assert_array_equal(found, expected)
    assert (source.rate, source.channels, source.dropped) == (22050, 2, 1)


@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF, 0x7FFFFFFF])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_wav_of_any_length(size: int | None, subtype: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _noise(3000, 2), 48000, subtype=subtype, format="WAVEX")
    data = (tmp_path / "a.wav").read_bytes()
    at = data.index(b"data") + 4
    if size is not None:  # as writers to a pipe leave it
        data = data[:at] + size.to_bytes(4, "little") + data[at + 4 :]
    else:
        data += b"LIST\4\0\0\0abcd"  # what follows the samples is no sound
    source, found = _piped(data, None, None, None)
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert source.rate == 48000
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("data", "asked", "said"),
    [
        (b"", (None, None, None), "stdin: is empty"),
        (b"OggS" * 9, (None, None, None), "stdin: is no WAV; name raw samples with --format"),
        (b"RIFF\0\0\0\0WAVEfmt ", (None, None, None), "header is damaged"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", (None, None, None), "no format before the samples"),
        (b"\0\0", ("s16le", None, None), "give --rate"),
        (b"\0\0", (None, 16000, None), "give --format too"),
    ],
)
def test_pipes_that_cannot_be_understood(data: bytes, asked: tuple[str | int | None, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        _piped(data, *asked)
    assert "\n" not in str(error.value)


def test_a_full_flow_loses_what_is_offered_and_holds_back_what_is_given() -> None:
    flow = Flow(10)
    for _ in range(3):
        flow.offer(_noise(4))
    assert (flow.waiting, flow.overruns) == (8, 1)
    assert [flow.take(1).lost, flow.take(1).lost] == [0, 0]
    flow.offer(_noise(2))
    flow.offer(_noise(2))
    assert [flow.take(1).lost, flow.take(1).lost] == [4, 0]
    with pytest.raises(TimeoutError):
        flow.take(0.01)
    given = []
    thread = threading.Thread(target=lambda: given.extend(flow.give(_noise(6)) for _ in range(4)), daemon=True)
    thread.start()
    _until(lambda: len(given) == 2)
    time.sleep(0.05)
    assert len(given) == 2 and flow.waiting == 12  # the third waits
    flow.take(1)
    _until(lambda: len(given) == 3)
    flow.close()
    thread.join(PATIENCE)
    assert given == [True, True, True, False]
    flow.end(OSError("broken"))
    while flow.waiting:
        flow.take(1)
    with pytest.raises(OSError, match="broken"):
        flow.take(1)


def _told(rule: Rule, windows: list[list[float] | None]) -> list[str]:
    """`+N@end` and `-N@end` for windows of two seconds, a second apart."""
    heard = Debounce(rule)
    labels: list[Label] = []
    for number, window in enumerate(windows):
        labels += heard.hear(number, number + 2, None if window is None else np.array(window))
    labels += heard.finish()
    return [f"{'+' if label.begun else '-'}{label.number}@{label.start:g}-{label.end:g}" for label in labels]


A, B, C, NONE = [0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.2, 0.8], [0.4, 0.3, 0.3]


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([A, A, A, A], ["+0@0-3", "-0@0-5"]),
        ([A, A, C, B, B], ["+0@0-3", "-0@0-3", "+1@3-6", "-1@3-6"]),  # one window of C is none
        ([A, A, NONE, A, A], ["+0@0-3", "-0@0-6"]),  # a short pause is none
        ([A, A, None, None, None, A, A], ["+0@0-3", "-0@0-3", "+0@5-8", "-0@5-8"]),
        ([A, B, A, B, NONE], []),
        ([NONE, A], ["+0@1-3", "-0@1-3"]),  # the stream ended while it was heard
        ([A, NONE, A, A], ["+0@2-5", "-0@2-5"]),  # what was not told begins anew
        ([A, None], []),
        ([], []),
    ],
)
def test_labels_are_told_once(windows: list[list[float] | None], expected: list[str]) -> None:
    assert _told(Rule(False, 0.5, 1, 2, 2.0), windows) == expected


def test_smoothing_and_several_labels() -> None:
    assert _told(Rule(False, 0.5, 2, 1, 9.0), [A, B, B]) == ["+0@0-2", "+1@2-4", "-0@0-3", "-1@2-4"]
    assert _told(Rule(False, 0.5, 2, 1, 9.0), [A, None, B]) == ["+0@0-2", "+1@2-4", "-0@0-2", "-1@2-4"]
    both = [[0.9, 0.8, 0.1], [0.8, 0.9, 0.2], [0.1, 0.9, 0.2]]
    assert _told(Rule(True, 0.5, 1, 2, 0.5), both) == ["+0@0-3", "+1@0-3", "-0@0-3", "-1@0-4"]


@limits(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([None, 0, 1, 2]), max_size=30), st.integers(1, 4), st.integers(0, 5), st.integers(1, 3))
def test_what_every_stream_of_labels_keeps_to(classes: list[int | None], hold: int, gone: int, smooth: int) -> None:
    heard, on, held = Debounce(Rule(False, 0.5, smooth, hold, gone)), dict[int, float](), 0
    for number, which in enumerate(classes):
        window = None if which is None else np.eye(3)[which]
        held = held + 1 if which is not None and number and classes[number - 1] == which else int(which is not None)
        for label in heard.hear(number, number + 2, window):
            if label.begun:
                assert label.number not in on
                on[label.number] = label.end
                assert label.end == number + 2 and label.end - label.start >= 1 + hold
                assert smooth > 1 or held >= hold
            else:
                assert label.end >= on.pop(label.number) and number + 2 - label.end >= gone
    last = heard.finish()
    assert {label.number for label in last if not label.begun} == {*on, *(one.number for one in last if one.begun)}


def _ears(wave_BTC: np.ndarray) -> np.ndarray:
    """Two classes: the sum's sign."""
    up = float(wave_BTC.mean() > 0)
    return np.array([[up, 1 - up]])


def _events(listener: Listener, wave: np.ndarray, sizes: list[int]) -> list[tuple[str, float, float]]:
    events: list[Event] = []
    for start, end in zip([0, *np.cumsum(sizes)], [*np.cumsum(sizes), len(wave)], strict=True):
        events += listener.hear(wave[start:end])
    events += listener.finish()
    return [(event.kind, event.start, event.end) for event in events]


@limits(max_examples=30, deadline=None)
@given(st.integers(0, 400), st.lists(st.integers(0, 300), max_size=5))
@example(50, [])
def test_windows_do_not_depend_on_blocks(frames: int, sizes: list[int]) -> None:
    wave = _noise(frames) + np.float32(0.05) * np.sign(np.sin(np.arange(frames) / 60))[:, None].astype(np.float32)
    grid, rule = Grid(100, 1, 100, 30, -200.0), Rule(False, 0.5, 1, 2, 1.0)
    found = _events(Listener(_ears, grid, rule), wave, sizes)
    assert found == _events(Listener(_ears, grid, rule), wave, [])
    windows = [(start, end) for kind, start, end in found if kind == "window"]
    ends = [*range(100, frames + 1, 30)]
    if frames and (not ends or ends[-1] < frames):
        ends.append(frames)  # the last ends with the stream, the only one of a short stream is all of it
    assert windows == [(max(0, end - 100) / 100, end / 100) for end in ends]


def test_silence_is_not_asked_about() -> None:
    asked: list[int] = []

    def ears(wave_BTC: np.ndarray) -> np.ndarray:
        asked.append(1)
        return _ears(wave_BTC)

    quiet = 0.001 * np.ones((300, 1), np.float32)  # -60 dB
    for gate, count in ((-59.0, 0), (-61.0, 3)):
        listener = Listener(ears, Grid(100, 1, 100, 100, gate), Rule(False, 0.5, 1, 1, 1.0))
        assert len([event for event in listener.hear(quiet) if event.kind == "window"]) == 3
        assert len(asked) == count
    listener = Listener(ears, Grid(100, 1, 100, 100, -200.0), Rule(False, 0.5, 1, 1, 1.0))
    assert len(list(listener.hear(0 * quiet))) == 3 and len(asked) == 3


def test_who_falls_behind_skips_and_says_so() -> None:
    listener = Listener(_ears, Grid(100, 1, 100, 25, -200.0), Rule(False, 0.5, 1, 1, 1.0))
    waiting = [0.0]
    assert not [event for event in listener.hear(_noise(150), lambda: waiting[0]) if event.kind == "skipped"]
    waiting[0] = 5.0
    assert not list(listener.hear(_noise(100), lambda: waiting[0])) and listener.skipped == 4
    waiting[0] = 0.0
    events = list(listener.hear(_noise(25), lambda: waiting[0]))
    assert (events[0].kind, events[0].count, events[0].start, events[0].end) == ("skipped", 4, 0.75, 2.5)
    assert events[1].kind == "window" and events[1].end == 2.75
    assert list(listener.hear(_noise(1000)))[-1].end == 12.75 and listener.skipped == 4  # a pipe is never skipped


def test_no_window_reaches_over_a_gap() -> None:
    listener = Listener(_ears, Grid(100, 1, 100, 50, -200.0), Rule(False, 0.5, 1, 5, 1.0))
    events = [*listener.hear(_noise(170)), *listener.gap(40), *listener.hear(_noise(130)), *listener.finish()]
    windows = [(event.start, event.end) for event in events if event.kind == "window"]
    assert windows == [(0, 1), (0.5, 1.5), (2.1, 3.1), (2.4, 3.4)]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def actions(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., action.Actions]]:
    monkeypatch.setattr(action, "GRACE", 0.5)
    made: list[action.Actions] = []

    def make(texts: list[str], classes: list[str], seconds: float = PATIENCE) -> action.Actions:
        made.append(action.Actions(action.parse(texts, classes), seconds, said.append))
        return made[-1]

    yield make
    for one in made:
        one.close(0.0)


def test_a_command_gets_the_label_in_its_environment_only(
    actions: Callable[..., action.Actions], tmp_path: Path, said: list[str]
) -> None:
    label = f"$(touch {tmp_path}/no); `touch {tmp_path}/no` a=b 猫"
    code = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2] + os.environ['LISTEN_LABEL'])"
    one = actions([f'{label}={sys.executable} -c "{code}" {tmp_path}/yes "$LISTEN_LABEL; "'], ["a", label])
    one.run("a", {"label": "a"})
    one.run(label, {"label": label})
    one.close(PATIENCE)
    assert (tmp_path / "yes").read_text() == f"$LISTEN_LABEL; {label}" and not said
    assert [path.name for path in tmp_path.iterdir()] == ["yes"]


def test_commands_are_bounded(actions: Callable[..., action.Actions], said: list[str], tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(10)]
    waits = f"*={sys.executable} -c 'import time; time.sleep({PATIENCE})'"
    one = actions([waits, "c9=sh -c 'exit 3'"], names)
    begun = time.monotonic()
    for name in ("c9", "c0", "c0", *names[1:8], "c8"):
        one.run(name, {"label": name})
        if name == "c9":
            _until(lambda: len(said) == 1)
    assert "exit code 3" in said[0]
    assert "`c0`: left out, the one before still runs" in said[1]
    assert "`c8`: left out, 8 others still run" in said[2] and len(said) == 3
    one.close(0.1)
    assert time.monotonic() - begun < PATIENCE / 2
    assert sorted(said[3:]) == sorted(
        f"action of `{n}`: `{sys.executable}` was ended, for the program ended" for n in names[:8]
    )


def test_a_command_has_a_time_limit(actions: Callable[..., action.Actions], said: list[str]) -> None:
    one = actions(["a=sh -c 'sleep 600 & wait'"], ["a"], 0.3)
    one.run("a", {})
    _until(lambda: bool(said))
    assert said == ["action of `a`: `sh` was ended, for it ran longer than 0.3 s"]
    one.close(PATIENCE)
    one.run("a", {})  # and then it can run again


def test_a_child_that_will_not_end_is_killed(
    actions: Callable[..., action.Actions], said: list[str], tmp_path: Path
) -> None:
    script, held = tmp_path / "stubborn.sh", tmp_path / "held"
    script.write_text(f"trap '' TERM; exec 9> {held}; flock 9; touch {held}.on; sleep 600\n")
    one = actions([f"a=sh -c 'sh {script} & wait'"], ["a"], 600)
    one.run("a", {})
    _until(held.with_name("held.on").exists)
    one.close(0.0)
    assert len(said) == 1
    with held.open() as file:  # is free when the last of them is gone
        _until(lambda: _locked(file))


def _locked(file: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["b=true"], "begins with no class"),
        (["a"], "begins with no class"),
        (["a="], "there is no command ``"),
        (["a=no-such-command-anywhere x"], "there is no command `no-such-command-anywhere`"),
        (["a=true 'x"], "check the quotes"),
        (["a=true", "a=false"], "has a command already"),
    ],
)
def test_actions_that_are_none(texts: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        action.parse(texts, ["a"])
    assert "\n" not in str(error.value)


def test_the_longest_class_that_fits_is_meant() -> None:
    assert action.parse(["a=b=true x", "a=true", "*=false"], ["a", "a=b"]) == {
        "a=b": ["true", "x"],
        "a": ["true"],
        "*": ["false"],
    }

"""tools/record.py: takes are what was heard, where they should lie, and nothing that lay there is touched."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from microphones import Sound, stdin, wav

from dist_train.live import take
from dist_train.live.trigger import Pauses, Trigger, split
from dist_train.sources import layouts

RATE = 16000


@pytest.fixture
def tool(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("record")


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Puts bytes on stdin."""
    yield from stdin(monkeypatch)


def sounds(*parts: tuple[float, float], rate: int = RATE) -> np.ndarray:
    """(frames, 1): stretches of (seconds, amplitude) of noise."""
    random = np.random.default_rng(0)
    return np.concatenate([random.uniform(-level, level, (round(seconds * rate), 1)) for seconds, level in parts])


def read(path: Path) -> np.ndarray:
    """(frames, 1) of a take."""
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    return soundfile.read(path, always_2d=True)[0]


def test_takes_of_a_pipe(
    tool: ModuleType,
    piped: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wave = sounds((2.5, 0.5))
    line = [str(tmp_path / "data"), "a, 'b' <猫>", "-", "--seconds", "0.7"]
    piped(wav(wave, RATE, tmp_path))
    assert tool.main(line) == 0
    said = capsys.readouterr()
    paths = [tmp_path / f"data/a, 'b' <猫>/000{number}.wav" for number in (1, 2, 3)]
    assert said.out.splitlines() == [str(path) for path in paths]
    assert "the last 0.40 s are no whole take; they are left out" in said.err
    np.testing.assert_allclose(np.concatenate([read(path) for path in paths]), wave[: round(2.1 * RATE)], atol=1e-4)
    before = [path.read_bytes() for path in paths]
    paths[1].unlink()
    piped(wav(wave, RATE, tmp_path))
    assert tool.main([*line, "--takes", "1"]) == 0
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["0001.wav", "0003.wav", "0004.wav"]
    assert [path.read_bytes() for path in (paths[0], paths[2])] == [before[0], before[2]]
    assert layouts.read(tmp_path / "data").samples[0].labels == ("a, 'b' <猫>",)


def test_groups_make_a_table_that_can_be_packed(tool: ModuleType, piped: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for label, group in (("yes", None), ("yes", "Anna, B."), ("no", "安娜"), ("no", None)):
        piped(wav(sounds((0.5, 0.5)), RATE, tmp_path))
        line = [str(data), label, "-", "--seconds", "0.25"]
        assert tool.main([*line, *(["--group", group] if group else [])]) == 0
    (data / "yes/0002.wav").unlink()
    piped(wav(sounds((0.5, 0.5)), RATE, tmp_path))
    assert tool.main([str(data), "yes", "-", "--seconds", "0.5", "--group", "c"]) == 0
    found = {(sample.source, sample.labels[0], sample.group) for sample in layouts.read(data, "csv").samples}
    assert found == {
        ("yes/0001.wav", "yes", None),
        ("yes/Anna, B.-0001.wav", "yes", "Anna, B."),
        ("yes/Anna, B.-0002.wav", "yes", "Anna, B."),
        ("yes/c-0001.wav", "yes", "c"),
        ("no/安娜-0001.wav", "no", "安娜"),
        ("no/安娜-0002.wav", "no", "安娜"),
        ("no/0001.wav", "no", None),
        ("no/0002.wav", "no", None),
    }


@limits(max_examples=30, deadline=None)
@given(st.integers(0, 3000), st.lists(st.integers(0, 900), max_size=6), st.integers(0, 200))
def test_a_sound_begins_a_take(silent: int, sizes: list[int], before: int) -> None:
    wave = np.concatenate([np.full((silent, 1), 0.01), np.full((900, 1), 0.5)]).astype(np.float32)
    trigger, rest = Trigger(1000, -20.0, before / 1000), wave
    found = None
    for size in [*sizes, len(wave)]:
        begun, rest = trigger.hear(rest[:size]), rest[size:]
        if begun is not None:
            found = np.concatenate([begun, rest])
            break
    assert found is not None
    first = len(wave) - len(found)  # frames of 20 samples: it begins in the one that is loud, or the one after
    assert first == max(0, first) and silent - before - 20 <= first <= max(0, silent - before) + 20
    np.testing.assert_array_equal(found, wave[first:])


def test_takes_that_begin_by_themselves(tool: ModuleType, piped: Any, tmp_path: Path) -> None:
    wave = sounds((0.5, 0.001), (0.3, 0.5), (1.0, 0.001), (0.3, 0.6), (0.7, 0.001))
    piped(wav(wave, RATE, tmp_path))
    line = [str(tmp_path / "data"), "x", "-", "--seconds", "0.5", "--trigger", "-20", "--before", "0.1"]
    assert tool.main(line) == 0
    takes = [read(path) for path in sorted((tmp_path / "data/x").iterdir())]
    assert len(takes) == 2
    for sound, begins in zip(takes, (0.5, 1.8), strict=True):
        np.testing.assert_allclose(sound, wave[round((begins - 0.1) * RATE) :][: RATE // 2], atol=1e-4)


def test_pauses_cut_a_take() -> None:
    wave = sounds(
        (0.5, 1e-4), (0.2, 0.5), (0.4, 1e-4), (0.3, 0.3), (0.2, 1e-4), (0.2, 0.5), (0.4, 0), (0.02, 0.5), (0.5, 0)
    )
    found = split(wave.astype(np.float32), RATE, Pauses())
    seconds = [(first / RATE, end / RATE) for first, end in found]
    # a pause of .2 s is none; a click of .02 s is no sound
    np.testing.assert_allclose(seconds, [(0.4, 0.8), (1.0, 1.9)], atol=0.021)
    assert split(np.zeros((100, 1), np.float32), RATE, Pauses()) == []
    assert split(np.zeros((0, 1), np.float32), RATE, Pauses()) == []


@limits(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=10), st.integers(2, 40))
def test_parts_of_a_take_share_nothing(stretches: list[tuple[int, bool]], pause: int) -> None:
    wave = np.concatenate([np.full((20 * size, 1), 0.5 * loud, np.float32) for size, loud in stretches])
    found = split(wave, 1000, Pauses(pause / 50, 0.0))
    edges = [edge for part in found for edge in part]
    assert edges == sorted(edges) and (not edges or (edges[0] >= 0 and edges[-1] <= len(wave)))
    kept = np.zeros(len(wave), bool)
    for first, end in found:
        kept[first:end] = True
    assert not wave[~kept].any()


def test_split_and_level(
    tool: ModuleType,
    piped: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wave = sounds((0.5, 0), (0.3, 0.5), (0.6, 0), (0.3, 0.04), (0.6, 0), (0.3, 1.0), (0.6, 0))
    wave[wave > 0.6] = 1.0
    piped(wav(wave, RATE, tmp_path))
    assert tool.main([str(tmp_path / "data"), "x", "-", "--split", "--quiet", "-20"]) == 0
    assert len(list((tmp_path / "data/x").iterdir())) == 3
    error = capsys.readouterr().err
    assert "take 1: 3 sounds" in error
    assert error.count("too quiet: its peak is -28.0 dB; come closer") == error.count("clipped: ") == 1
    piped(wav(wave, RATE, tmp_path))
    assert tool.main([str(tmp_path / "data"), "y", "-", "--split", "--retry", "9", "--quiet", "-20"]) == 0
    assert len(list((tmp_path / "data/y").iterdir())) == 1
    assert capsys.readouterr().err.count("; thrown away") == 2


def test_a_microphone_is_asked_again(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wave = sounds((0.3, 0), (0.4, 0.01), (0.3, 0), (0.4, 0.5), (0.3, 0), (0.4, 0.4), rate=48000).astype(np.float32)
    monkeypatch.setitem(sys.modules, "sounddevice", Sound(wave, 48000, pace=0.01))
    line = [str(tmp_path / "data"), "x", "--takes", "2", "--seconds", "0.5", "--trigger", "-55", "--retry", "1"]
    assert tool.main(line) == 0
    said = capsys.readouterr()
    assert "take 1 of 2: too quiet" in said.err and "; thrown away" in said.err
    takes = [read(path) for path in sorted((tmp_path / "data/x").iterdir())]
    assert len(takes) == 2 and all(len(one) == RATE // 2 for one in takes)
    for one in takes:
        assert not one[: RATE // 10].std() > 0.01 and one[-RATE // 4 :].std() > 0.1


def test_a_key_begins_a_take(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdin, "readline", lambda: keys.append("\n") or "\n", raising=False)
    monkeypatch.setattr(tool, "pressed", lambda: False)
    monkeypatch.setitem(sys.modules, "sounddevice", Sound(sounds((5.0, 0.5)).astype(np.float32), RATE, pace=0.002))
    assert tool.main([str(tmp_path), "x", "--takes", "2", "--seconds", "0.2"]) == 0
    assert len(keys) == len(list((tmp_path / "x").iterdir())) == 2


def test_a_key_too_many_makes_no_empty_take(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [True, True, False, False]  # twice before the take, then none
    monkeypatch.setattr(tool, "pressed", lambda: bool(keys) and keys.pop(0))
    monkeypatch.setitem(sys.modules, "sounddevice", Sound(sounds((5.0, 0.5)).astype(np.float32), RATE, pace=0.002))
    line = [str(tmp_path), "x", "--seconds", "0.2"]
    assert tool.main([*line, "--countdown", "0"]) == 0
    assert [len(read(path)) for path in (tmp_path / "x").iterdir()] == [round(0.2 * RATE)]
    monkeypatch.setattr(tool, "pressed", lambda: True)
    assert tool.main([*line, "--trigger", "-20"]) == 1
    assert "take 1 of 1: ended before any sound; nothing is written" in capsys.readouterr().err
    assert len(list((tmp_path / "x").iterdir())) == 1


def test_whatever_a_class_is_called_its_folder_is_one(tmp_path: Path) -> None:
    for name in ("a/b", "..", ".hidden", "<b>$x$", "雨", "a."):
        place = tmp_path / take.folder(name)
        place.mkdir()
        assert place.parent == tmp_path and place.resolve().parent == tmp_path and place.name[0] != "."
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["a/b", "-"], "LABEL a/b: cannot name a folder"),
        ([".x", "-"], "LABEL .x: cannot name a folder"),
        ([" ", "-"], "LABEL: the label is empty"),
        (["x", "-", "--group", "a/b"], "--group a/b: cannot name a folder"),
        (["x;y", "-", "--group", "a"], "LABEL x;y: takes.csv parts labels at `;`"),
        (["x", "-", "--countdown", "3"], "--countdown: a pipe begins by itself"),
        (["x", "-", "--device", "0"], "--device: is for microphones"),
        (["x", "-", "--seconds", "0"], "--seconds 0: is not from 0.05"),
        (["x", "--device", "none"], "--device none: No input device"),
    ],
)
def test_what_is_refused(
    line: list[str],
    said: str,
    tool: ModuleType,
    piped: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Sound(np.zeros((9, 1), np.float32), RATE))
    piped(wav(sounds((1.0, 0.5)), RATE, tmp_path))
    assert tool.main([str(tmp_path / "data"), *line]) == 2
    error = capsys.readouterr().err
    assert error.startswith("record: ") and said in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_strange_table_is_left_alone(
    tool: ModuleType,
    piped: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "takes.csv").write_text("path,label,fold\n")
    piped(wav(sounds((4.0, 0.5)), RATE, tmp_path))
    assert tool.main([str(tmp_path), "x", "-", "--group", "a"]) == 2
    assert "its columns are not path,label,group" in capsys.readouterr().err
    assert not (tmp_path / "x").exists() and (tmp_path / "takes.csv").read_text() == "path,label,fold\n"


def test_nothing_was_recorded(
    tool: ModuleType,
    piped: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    piped(wav(sounds((0.5, 0.001)), RATE, tmp_path))
    assert tool.main([str(tmp_path), "x", "-", "--trigger", "-20"]) == 1
    assert "no take was kept" in capsys.readouterr().err and not (tmp_path / "x").exists()

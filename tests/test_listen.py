"""tools/listen.py: the labels of a stream in order, from a pipe and from a microphone; it ends cleanly, tells all."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from launches import Run
from microphones import Sound, stdin, wav

import dist_train
from dist_train.packing import Options, pack
from dist_train.sources import layouts

CLASSES = ("a=b", "Dog bark", "Ре\u0301ка", "<b>", "$x$", "雨, 'heavy'", "../up", "*", "-", "غراب")
FREQUENCIES = [300 * (number + 1) for number in range(10)]
RATE, WINDOW = 16000, 0.4


class Tones:
    """A model that knows ten tones: a class's probability is its share of the energy."""

    classes, sample_rate, seconds, channels, several = CLASSES, RATE, WINDOW, 1, False
    threshold: float | None = None
    config = SimpleNamespace(audio=SimpleNamespace(channels="mono"))
    slow = 0.0

    def probabilities(self, wave_BTC: np.ndarray) -> np.ndarray:
        time.sleep(self.slow)
        turns = 2j * np.pi / RATE * np.outer(FREQUENCIES, np.arange(wave_BTC.shape[1]))
        energy_BC = np.abs(np.exp(turns) @ wave_BTC[..., 0].T.astype(np.float64)).T ** 2
        return np.asarray(energy_BC / energy_BC.sum(1, keepdims=True))


def tones(order: list[int], rate: int, seconds: float = 1.0) -> np.ndarray:
    """(frames, 1) of some classes' tones, one after another."""
    time_T = np.arange(round(seconds * rate)) / rate
    return np.concatenate([0.3 * np.sin(2 * np.pi * FREQUENCIES[number] * time_T) for number in order])[:, None]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Tones:
    made = Tones()

    def load(run: Path, device: str | None, overrides: list[str]) -> Tones:
        assert torch.device(device or "cpu") and not overrides
        return made

    monkeypatch.setattr(dist_train, "load", load, raising=False)
    return made


@pytest.fixture
def tool(script: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    was = signal.getsignal(signal.SIGTERM)
    yield script("listen")
    signal.signal(signal.SIGTERM, was)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Puts bytes on stdin."""
    yield from stdin(monkeypatch)


def labels(text: str) -> list[str]:
    """The labels of plain lines."""
    return [re.fullmatch(r"\d:\d\d:\d\d\.\d\d  (.+)  [01]\.\d\d", line)[1] for line in text.splitlines()]  # type: ignore[index]


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_empty_pipe_of_raw_samples(
    model: Tones, tool: ModuleType, piped: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    piped(b"")
    assert tool.main(["run", "-", "--format", "s16le", "--rate", "16000"]) == 0
    assert capsys.readouterr().err.endswith("nothing was heard: stdin gave no sound; is what feeds it running?\n")


ORDER = [3, 0, 9, 1, 6, 2, 8, 5, 7, 4]


@pytest.mark.parametrize("form", ["wav", "f32le"])
def test_ten_labels_in_order(
    form: str, model: Tones, tool: ModuleType, piped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wave = tones(ORDER, 44100)
    raw = form != "wav"
    piped(wave.astype("<f4").tobytes() if raw else wav(wave, 44100, tmp_path))
    assert tool.main(["run", "-", *(["--format", form, "--rate", "44100"] if raw else [])]) == 0
    said = capsys.readouterr()
    assert labels(said.out) == [CLASSES[number] for number in ORDER]
    begin, end = said.err.splitlines()
    assert begin == "listen: hearing stdin, 44100 Hz; Ctrl-C ends"
    assert end.startswith("10.0 s heard, real-time factor 0.") and "skipped" not in end


def test_json_tells_when(
    model: Tones, tool: ModuleType, piped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silence = np.zeros((RATE, 1))
    piped(wav(np.concatenate([tones([2], RATE), silence, tones([2, 5], RATE)]), RATE, tmp_path))
    assert tool.main(["run", "-", "--json", "--top", "2", "--hop", "0.1", "--windows", "--gone", "0.3"]) == 0
    told = objects(capsys.readouterr().out)
    begun = [one for one in told if one["kind"] == "label"]
    assert [one["label"] for one in begun] == [CLASSES[2], CLASSES[2], CLASSES[5]]
    # heard in two windows: the first is full of it, or more than half
    assert begun[0]["start"] == 0 and begun[0]["end"] == 0.5
    assert abs(begun[1]["end"] - 2.2) < 0.11 and abs(begun[2]["end"] - 3.4) < 0.11
    assert begun[0]["probability"] > 0.99 and begun[0]["top"][0]["label"] == CLASSES[2]
    gone = [one for one in told if one["kind"] == "gone"]
    assert [one["label"] for one in gone] == [one["label"] for one in begun]
    assert abs(gone[0]["end"] - 1.3) < 0.11 and gone[-1]["end"] == 4
    windows = [one for one in told if one["kind"] == "window"]
    assert [one["end"] for one in windows] == [round(0.4 + 0.1 * number, 1) for number in range(37)]
    assert sum(not one["top"] for one in windows) == 7 and windows[0]["level"] == pytest.approx(-13.5, abs=0.1)
    assert told[-1]["kind"] == "summary" and told[-1]["labels"] == {CLASSES[2]: 2, CLASSES[5]: 1}
    assert (told[-1]["seconds"], told[-1]["windows"], told[-1]["skipped"], told[-1]["lost"]) == (4, 37, 0, 0)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}[+-]\d\d:\d\d", one["time"]) for one in told[:-1])


def test_actions_and_kept_sounds(
    model: Tones, tool: ModuleType, piped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wave = tones([6, 0], RATE)
    piped(wav(wave, RATE, tmp_path))
    (tmp_path / "note.py").write_text(
        "import os, pathlib, sys\nE = os.environ\n"
        "pathlib.Path(sys.argv[1], E['LISTEN_SECONDS']).write_text(E['LISTEN_LABEL'] + E['LISTEN_PROBABILITY'][:3])\n"
    )
    (tmp_path / "noted").mkdir()
    run = f"{sys.executable} {tmp_path}/note.py {tmp_path}/noted"
    options = ["--save", str(tmp_path / "kept"), "--margin", "0.1", "--action", f"*={run}", "--action", f"a=b={run}"]
    assert tool.main(["run", "-", "--json", *options]) == 0
    told = objects(capsys.readouterr().out)
    begun = [one for one in told if one["kind"] == "label"]
    notes = [(tmp_path / "noted" / f"{one['end']:.3f}").read_text() for one in begun]
    assert notes == [f"{one['label']}{str(one['probability'])[:3]}" for one in begun] and len(notes) == 2
    files = [Path(one["file"]) for one in told if one["kind"] == "kept"]
    assert [path.parent.name for path in files] == ["%2E.%2Fup", "a=b"]
    for path, one in zip(files, begun, strict=True):
        assert re.fullmatch(r"\d{8}-\d{6}-0001\.wav", path.name)
        sound, _ = soundfile.read(path, always_2d=True)
        first, end = max(0, one["start"] - 0.1), min(2, one["end"] + 0.1)
        np.testing.assert_allclose(sound, wave[round(first * RATE) : round(end * RATE)], atol=1e-4)


def test_no_command_outlives_what_cut_the_end_short(
    model: Tones, tool: ModuleType, piped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "pid"

    def finish(report: Any, patience: float) -> None:
        until = time.monotonic() + 60
        while not (noted.exists() and noted.read_text().endswith("\n")) and time.monotonic() < until:
            time.sleep(0.02)
        raise KeyboardInterrupt  # the second one

    monkeypatch.setattr(tool.Report, "finish", finish)
    piped(wav(tones([1], RATE), RATE, tmp_path))
    command = f"*=sh -c 'echo $$ > {noted}; exec sleep 600'"
    assert tool.main(["run", "-", "--action", command, "--action-seconds", "600"]) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)


def test_windows_are_what_the_model_says_of_them(
    finished: Run, tool: ModuleType, piped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wave = tones([1, 4], RATE, 0.5)
    piped(wav(wave, RATE, tmp_path, "FLOAT"))
    assert tool.main([str(finished.folder), "-", "--json", "--windows", "--smooth", "1", "--top", "4"]) == 0
    windows = [one for one in objects(capsys.readouterr().out) if one["kind"] == "window"]
    heard = dist_train.load(finished.folder)
    assert [one["end"] for one in windows] == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    for one in windows:
        part = wave[round(one["start"] * RATE) : round(one["end"] * RATE)].astype(np.float32)
        expected = dict(zip(heard.classes, heard.probabilities(part[None])[0], strict=True))
        for guess in one["top"]:
            assert guess["probability"] == pytest.approx(expected[guess["label"]], abs=1e-4)


def test_a_microphone(
    model: Tones, tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wave = np.repeat(tones([4, 1, 7], 48000), 2, axis=1).astype(np.float32)
    sound = Sound(wave, 48000, overflow=(100, 101))
    monkeypatch.setattr("dist_train.live.listener.PATIENCE", 1e9)  # this device is faster than time
    monkeypatch.setitem(sys.modules, "sounddevice", sound)
    assert tool.main(["run", "--device", "USB", "--channels", "2", "--seconds", "3.2", "--json"]) == 0
    told = objects(capsys.readouterr().out)
    assert [one["label"] for one in told if one["kind"] == "label"] == [CLASSES[4], CLASSES[1], CLASSES[7]]
    assert told[-1]["overruns"] == 2 and told[-1]["seconds"] == 3.2
    assert sum(one["count"] for one in told if one["kind"] == "overrun") == 2
    assert sound.opened[0]["device"] == "USB" and sound.opened[0]["channels"] == 2
    assert tool.main(["--list-devices"]) == 0
    listed = capsys.readouterr().out
    assert "麦克风 [USB]" in listed and "1 *" in listed and "Lautsprecher" not in listed


def test_a_slow_model_skips_and_says_so(
    model: Tones, tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model.slow = 0.3
    monkeypatch.setitem(sys.modules, "sounddevice", Sound(tones(ORDER, RATE).astype(np.float32), RATE))
    assert tool.main(["run", "--seconds", "10.5", "--json"]) == 0
    said = capsys.readouterr()
    total = objects(said.out)[-1]
    assert total["windows"] < 20 < total["skipped"] and total["windows"] + total["skipped"] in (102, 103)
    assert "fell behind" in said.err


def test_a_device_that_is_pulled_out(
    model: Tones, tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = Sound(tones([4, 1], RATE).astype(np.float32), RATE, unplugged=True)
    monkeypatch.setattr("dist_train.live.listener.PATIENCE", 1e9)  # this device is faster than time
    monkeypatch.setitem(sys.modules, "sounddevice", sound)
    assert tool.main(["run"]) == 1
    said = capsys.readouterr()
    assert labels(said.out) == [CLASSES[4], CLASSES[1]]
    assert "listen: 麦克风 [USB]: the device has stopped; is it still plugged in?" in said.err
    assert "s heard" in said.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "name the run"),
        (["run", "a.wav"], "a.wav: is neither `-` for stdin nor key=value"),
        (["run", "-", "--device", "1"], "--device: is for microphones"),
        (["run", "--format", "s16le"], "--format: is for sound on stdin"),
        (["run", "--live"], "--live: is for sound on stdin"),
        (["run", "-", "--format", "s12"], "--format s12: is none of wav, u8, s16le"),
        (["run", "-", "--hop", "0.5"], "--hop 0.5: is not from a sample to a window, which has 0.4 s"),
        (["run", "-", "--hold", "0"], "--hold 0: give windows"),
        (["run", "-", "--hold", "xs"], "--hold xs: give windows"),
        (["run", "-", "--gate", "3"], "--gate 3: is not from -200 to 0"),
        (["run", "-", "--threshold", "nan"], "--threshold nan: is not from 0 to 1"),
        (["run", "-", "--action", "cat=true"], "--action cat=true: begins with no class"),
        (["run", "--device", "none"], "--device none: No input device matching 'none'; see --list-devices"),
        (["run", "--channels", "9"], "Invalid number of channels"),
    ],
)
def test_what_is_refused(
    line: list[str],
    said: str,
    model: Tones,
    tool: ModuleType,
    piped: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Sound(np.zeros((9, 1), np.float32), RATE))
    piped(wav(tones([1], RATE), RATE, tmp_path))
    assert tool.main(line) == 2
    error = capsys.readouterr().err
    assert error.startswith("listen: ") and said in error and error.count("\n") == 1


def test_what_a_microphone_needs(
    model: Tones, tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert tool.main(["run"]) == 2
    assert "pip install -e '.[mic]'" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "sounddevice")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tool.main(["--list-devices"]) == 2
    assert "install it: apt-get install libportaudio2" in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_ten_recordings_of_esc10(
    esc10: Path, root: Path, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten clips that training never heard, each of another class and right when heard alone, one after another."""
    monkeypatch.chdir(tmp_path)
    assert pack(esc10, tmp_path / "shards", Options(workers=2))
    small = ("model.name=cnn4", "model.channels=24", "optim.lr=3e-3", "optim.warmup_epochs=2")
    quick = ("run.epochs=25", "run.threads=1", "data.batch_size=16", "data.micro_batch=16")
    line = ["data.shards=[shards]", "run.name=small", *small, *quick]
    train = [sys.executable, "-m", "dist_train", str(root / "configs/esc10.yaml"), *line]
    assert subprocess.run(train, env=environment, timeout=1200).returncode == 0
    alone = dist_train.load(tmp_path / "runs/small")
    clips, order = [sample for sample in layouts.read(esc10).samples if sample.fold == 1], dict[str, np.ndarray]()
    for sample in np.random.default_rng(0).permutation(np.array(clips, object)):
        wave, rate = soundfile.read(sample.path, dtype="float32")
        found = alone.predict(wave, rate)
        if sample.labels[0] not in order and found.label == sample.labels[0] and found.probability >= 0.5:
            order[found.label] = np.pad(wave, (0, max(0, 5 * rate - len(wave))))[: 5 * rate]
    assert len(order) >= 8  # so small a model may know too little of a class or two
    piped = wav(np.concatenate(list(order.values())), rate, tmp_path)
    command = [sys.executable, str(root / "tools/listen.py"), "runs/small", "-"]
    done = subprocess.run(command, env=environment, input=piped, capture_output=True, timeout=300)
    assert done.returncode == 0 and labels(done.stdout.decode()) == list(order)
    factor = re.search(r"real-time factor ([\d.]+)", done.stderr.decode())
    assert factor is not None and float(factor[1]) < 0.2


def test_ctrl_c_ends_it(finished: Run, root: Path, environment: dict[str, str]) -> None:
    line = [sys.executable, str(root / "tools/listen.py"), str(finished.folder), "-", "--threshold", "0", "--json"]
    raw = ["--format", "s16le", "--rate", "16000"]
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*line, *raw], env=environment, **given) as process:  # type: ignore[call-overload]
        process.stdin.write((tones([1], RATE) * 32768).astype("<i2").tobytes())
        process.stdin.flush()  # and stays open
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate(timeout=120)
    assert first["kind"] == "label" and process.returncode == 0, error
    total = objects(rest.decode())[-1]
    assert total["kind"] == "summary" and 0.5 <= total["seconds"] <= 1 and b"Traceback" not in error

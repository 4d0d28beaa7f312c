"""tools/predict.py: what goes in, what comes out, on a terminal and in a pipe; what is broken is named."""

import contextlib
import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from untrained import packed, recordings, untrained

from dist_train import Model, load

Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("predict")
    recordings(home / "source")
    packed(home / "source", home / "shards")
    untrained(home / "run", home / "shards", "audio.seconds=0.4")
    (home / "broken.wav").write_bytes(b"no sound")
    return home


@pytest.fixture(scope="module")
def model(home: Path) -> Model:
    return load(home / "run", "cpu")


@pytest.fixture
def tool(script: Callable[[str], ModuleType], home: Path, capsys: pytest.CaptureFixture[str]) -> Tool:
    """Runs the script in this process: exit code, stdout, stderr."""
    predict = script("predict")

    def run(*arguments: Any) -> tuple[int, str, str]:
        code = predict.main([str(home / "run"), *map(str, arguments), "--device", "cpu"])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def _names(home: Path) -> list[str]:
    return [str(path) for path in sorted((home / "source").rglob("*.*"))]


def test_a_folder_as_json_lines_is_what_predict_says(home: Path, model: Model, tool: Tool) -> None:
    code, out, err = tool(home / "source", "--json", "--top", 1)
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and not err and [one["source"] for one in found] == _names(home)
    for one, prediction in zip(found, model.predict(_names(home), top=1), strict=True):
        assert one == prediction.record() and len(one["top"]) == 1 and one["known"]
    code, out, _ = tool(home / "source/*/[ab].*", "--json", "--threshold", 1)
    assert code == 0 and [Path(json.loads(line)["source"]).name for line in out.splitlines()] == ["a.wav", "b.flac"] * 2
    assert {json.loads(line)["known"] for line in out.splitlines()} == {False}


def test_csv_and_lines(home: Path, model: Model, tool: Tool) -> None:
    code, out, _ = tool(home / "source", "--format", "csv", "--top", 9)
    head, *rows = csv.reader(io.StringIO(out))
    assert code == 0 and head == ["source", "seconds", "said", "label", "probability", "label_2", "probability_2"]
    expected = model.predict(_names(home))
    for row, one in zip(rows, expected, strict=True):
        assert row[:1] == [one.source] and row[2] == row[3] == one.label and float(row[4]) == one.probability
    code, out, _ = tool(*_names(home)[:2])
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and lines == [[one.source, one.said, f"{one.probability:.3f}"] for one in expected[:2]]
    code, out, _ = tool(_names(home)[0], "--top", 2)
    best = [text for label, value in expected[0].top for text in (label, f"{value:.3f}")]
    assert code == 0 and out.rstrip("\n").split("\t") == [*lines[0], *best]
    assert tool(_names(home)[0], "--timeline", "--top", 2)[0] == 2


def test_timelines(home: Path, model: Model, tool: Tool, tmp_path: Path) -> None:
    files, way = _names(home)[:3], ("--timeline", "--hop", 0.1, "--smooth", "exponential:0.2", "--min-duration", 0.2)
    expected = list(model.timelines(files, hop=0.1, smooth="exponential", span=0.2, min_duration=0.2))
    code, out, _ = tool(*files, *way, "--json")
    assert code == 0 and [json.loads(line) for line in out.splitlines()] == [one.record() for one in expected]
    code, out, _ = tool(*files, *way, "--format", "csv")
    head, *rows = csv.reader(io.StringIO(out))
    assert head == ["source", "start", "end", "label", "probability", "known"]
    spans = [(one.source, span) for one in expected for span in one]
    assert [(row[0], float(row[1]), float(row[2]), row[3]) for row in rows] == [
        (source, span.start, span.end, span.label) for source, span in spans
    ]
    code, out, _ = tool(home / "source", *way, "--format", "labels", "--out", tmp_path / "tracks")
    written = sorted(path.relative_to(tmp_path / "tracks") for path in (tmp_path / "tracks").rglob("*.txt"))
    assert code == 0 and written == sorted(
        path.relative_to(home / "source").with_suffix(".txt") for path in map(Path, _names(home))
    )
    code, out, _ = tool(files[0], *way, "--format", "labels")
    tracks = (tmp_path / "tracks" / Path(files[0]).relative_to(home / "source")).with_suffix(".txt")
    assert code == 0 and out == tracks.read_text()
    for line, span in zip(out.splitlines(), expected[0], strict=True):
        start, end, label = line.split("\t")
        assert (float(start), label) == (pytest.approx(span.start, abs=1e-6), span.label) and float(end) > float(start)
    assert expected[0].segments[-1].end == soundfile.info(files[0]).duration


def test_embeddings_are_written(home: Path, model: Model, tool: Tool, tmp_path: Path) -> None:
    code, out, err = tool(home / "source", home / "broken.wav", "--embeddings", tmp_path / "e.npz")
    assert code == 2 and err == f"predict: {home / 'broken.wav'}: cannot be read: Format not recognised.\n"
    with np.load(tmp_path / "e.npz", allow_pickle=False) as held:
        assert held["keys"].tolist() == _names(home)
        np.testing.assert_array_equal(held["embeddings"], model.embed(_names(home)))
    assert f"16 embeddings of 16 numbers in {tmp_path / 'e.npz'}" in out


def test_what_is_broken_is_named_and_the_others_go_on(home: Path, tool: Tool) -> None:
    files = _names(home)
    code, out, err = tool(files[0], home / "broken.wav", home / "absent.wav", files[1], "--json")
    assert code == 2 and [json.loads(line)["source"] for line in out.splitlines()] == files[:2]
    first, second = err.splitlines()
    assert first.startswith(f"predict: {home / 'broken.wav'}: ") and "absent.wav: cannot be read" in second


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["none/*.wav"], "none/*.wav: no recordings there"),
        (["--embeddings", "e.csv", "x"], "written as .npz"),
        (["--embeddings", "e.npz", "--timeline", "x"], "give one of them"),
        (["--embeddings", "e.npz", "--json", "x"], "writes no labels: leave out --format"),
        (["--embeddings", "e.npz", "--threshold", ".5", "x"], "writes no labels: leave out --format"),
        (["--out", "x", "x"], "--out is for --format labels"),
        (["--format", "labels", "a", "b"], "give --out DIR"),
        (["--format", "labels", "--out", "o", "a/x.wav", "b/x.ogg"], "x.txt: two recordings would have it"),
        (["--top", "0", "x"], "from 1 up"),
        (["--smooth", "mean", "x"], "--smooth mean: give median"),
        (["--smooth", "median:x", "x"], "--smooth median:x: give median"),
        (["--raw", "16000", "x"], "name - as AUDIO"),
        (["--raw", "16000:1:s8", "-"], "--raw 16000:1:s8: give RATE"),
        (["--raw", "fast", "-"], "--raw fast: give RATE"),
        (["--timeline", "--hop", "9", "x"], "up to the window of 0.4 s"),
        (["--timeline", "--hop", "inf", "x"], "hop=inf s: give a hop over 0"),
        (["--timeline", "--hop", "nan", "x"], "hop=nan s: give a hop over 0"),
        (["--hop", "1", "x"], "--hop: is for --timeline and --format labels"),
        (["--min-duration", "1", "--json", "x"], "--min-duration: is for --timeline"),
        (["--timeline", "--threads", "2", "x"], "--threads: a timeline is read by one"),
        (["--threshold", "2", "x"], "between 0 and 1"),
        (["--device", "cudda", "x"], "device cudda: no device; give cpu, cuda"),
        (["--set", "evaluation.clips=full", "x"], "unknown key `evaluation.clips`"),
        (["ftp://host/x.wav"], "x.wav: ftp:// is not supported"),
    ],
)
def test_refusals_are_one_line(
    given: list[str], said: str, home: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    assert script("predict").main([str(home / "run"), *given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("predict: ") and error.count("\n") == 1, error


def test_standard_input(home: Path, model: Model, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(_names(home)[1])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(file.read_bytes())))
    code, out, _ = tool("-", "--json")
    assert code == 0 and json.loads(out) == model.predict(file).record() | {"source": "-"}
    wave, _ = soundfile.read(file.parent / "h.wav", dtype="int16")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(wave.tobytes())))
    code, out, _ = tool("-", "--raw", "16000:2", "--timeline", "--json")
    assert code == 0 and json.loads(out) == model.timeline(wave, 16000).record() | {"source": "-"}


def test_a_terminal_gets_a_table(home: Path, root: Path, environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    names = [str(home / "source"), str(home / "broken.wav"), "-", "--threshold", "1"]
    command = [sys.executable, str(root / "tools/predict.py"), str(home / "run"), *names]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": theirs, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment | {"COLUMNS": "200"}, **pipes) as run:
        os.close(theirs)
        assert run.stdin is not None and run.stderr is not None
        run.stdin.write(Path(_names(home)[0]).read_bytes())
        run.stdin.close()
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 65536):
                shown += data
        assert b"broken.wav: cannot be read" in run.stderr.read()
    os.close(ours)
    text = shown.decode()
    assert run.returncode == 2 and "recording" in text and "guesses" in text and text.count("unknown") == 17
    assert '犬, "dog"' in text and "rain <b>" in text

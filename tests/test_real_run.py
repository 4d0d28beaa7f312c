"""A run of ESC-10 in use: labels without torch, and ten clips after another through a pipe. See `real_run`."""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytestmark = [pytest.mark.full, pytest.mark.timeout(3000)]

ROOT = Path(__file__).parents[1]
NEEDED = ("numpy", "onnxruntime", "soundfile", "soxr")
SURE = 0.5  # docs/live.md: a clip that the model is less sure of may lose against its neighbours


def _tool(name: str, *words: object, environment: dict[str, str], **more: Any) -> str:
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=1500, **more)
    assert done.returncode == 0, done.stderr.decode()
    return str(done.stdout.decode())


@pytest.fixture(scope="module")
def predicted(real_run: Path, esc10: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, float]]:
    """What tools/predict.py says of all 400 recordings: the probability of every class."""
    told = tmp_path_factory.mktemp("told") / "told.jsonl"
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    told.write_text(_tool("predict", real_run, esc10, "--json", "--top", 10, environment=environment))
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    return {Path(one["source"]): dict(one["top"]) for one in lines}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has what docs/export.md names and nothing else."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, with_pip=True)
    python = home / "bin/python"
    done = subprocess.run([python, "-m", "pip", "install", "-q", *NEEDED], capture_output=True, text=True, timeout=900)
    if done.returncode:
        pytest.skip(f"no packages to be had: {done.stderr.strip().splitlines()[-1:]}")
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    return python


def test_onnx_gives_the_labels_of_predict_without_torch(
    real_run: Path, predicted: dict[Path, dict[str, float]], bare: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    assert len(predicted) == 400
    model = tmp_path / "model.onnx"
    _tool("export", real_run, "--to", "onnx", "--out", model, environment=environment)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
    code = next(block for block in blocks if "soundfile" in block)
    spoken = 'f"{chances[best]:.4f}", sep="\\t")'
    assert spoken in code
    (tmp_path / "label.py").write_text(code.replace(spoken, '*chances, sep="\\t")'))
    command = [bare, tmp_path / "label.py", model, *predicted]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=900, check=True)
    classes = sorted(next(iter(predicted.values())))
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [Path(row[0]) for row in rows] == list(predicted)
    for name, label, *chances in rows:
        expected = predicted[Path(name)]
        assert label == max(expected, key=lambda one: expected[one])
        np.testing.assert_allclose([float(one) for one in chances], [expected[one] for one in classes], atol=1e-4)


def _sure(predicted: dict[Path, dict[str, float]]) -> list[Path]:
    """Of each class the first recording of fold 1 of which the model is right and sure."""
    found: dict[str, Path] = {}
    for path, chances in sorted(predicted.items()):
        label = path.parent.name.split(" - ")[1]
        if path.name.startswith("1-") and chances[label] >= SURE:
            found.setdefault(label, path)
    return list(found.values())


def test_ten_clips_through_a_pipe(
    real_run: Path, predicted: dict[Path, dict[str, float]], environment: dict[str, str], tmp_path: Path
) -> None:
    paths = _sure(predicted)
    assert len(paths) >= 7, paths  # after 15 epochs some classes are not known yet
    parts = [soundfile.read(path, dtype="float32", always_2d=True) for path in paths]
    assert {rate for _, rate in parts} == {44100}
    raw = np.concatenate([sound.mean(1) for sound, _ in parts]).astype("<f4").tobytes()
    words = (real_run, "-", "--format", "f32le", "--rate", 44100, "--json")
    lines = _tool("listen", *words, environment=environment, input=raw).splitlines()
    told = [json.loads(line) for line in lines]
    assert [one["label"] for one in told if one["kind"] == "label"] == [path.parent.name[6:] for path in paths]
    assert told[-1]["kind"] == "summary" and told[-1]["skipped"] == 0

"""Names of classes in any script, with markup, commas and quotes, stay what they were in the output of every tool.

From recordings to every tool; marked `full`: it trains and exports.
"""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import soundfile
from launches import Run, train
from PIL import Image

from dist_train import scored

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

NAMES = ("狗叫", "雨声", "كلب", "<b>x</b>", "$x$", "a,b", '"q"', "🐶👍🏽")
RATE, CLIPS = 16000, 3
Tool = Callable[..., str]


class Page(HTMLParser):
    """The text of a page, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def _recordings(home: Path) -> Path:
    """A table, with a mark at its beginning, of three tones of each class."""
    rows = []
    for number, name in enumerate(NAMES):
        for take in range(CLIPS):
            path = home / name.replace("/", "／") / f"录音 {take}（１）.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            time_T = np.arange(8000 + 500 * take + 10 * number) / RATE
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * 200 * (number + 1) * time_T), RATE)
            rows.append((path.relative_to(home).as_posix(), name, take + 1))
    with (home / "标签.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("path", "label", "fold"), *rows])
    return home / "标签.csv"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("我的 录音　")


@pytest.fixture(scope="module")
def run(home: Path, script: Callable[[str], ModuleType]) -> Run:
    table = _recordings(home / "源 （一）")
    assert script("make_shards").main(["pack", str(table), str(home / "分片 一"), "--workers", "1"]) == 0
    return train(home, home / "分片 一", "run.epochs=1", "run.name=训 练")


@pytest.fixture
def tool(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> Tool:
    """Run a tool; what it printed."""

    def call(name: str, *given: object) -> str:
        capsys.readouterr()
        code = script(name).main([*map(str, given)])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    return call


@pytest.fixture
def folder(home: Path, run: Run) -> Path:
    return home / "训 练"


def test_scores_keep_the_names(folder: Path, tool: Tool, tmp_path: Path) -> None:
    given = (folder, "--draws", 100, "--csv", tmp_path / "分.csv", "--picture", tmp_path / "图.png")
    said = tool("evaluate", *given)
    assert [name for name in NAMES if name not in said] == []
    with (tmp_path / "分.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["truth"] for row in rows} == set(NAMES) <= set(rows[0])
    assert all(abs(sum(float(row[name]) for name in NAMES) - 1) < 1e-6 for row in rows)
    assert Image.open(tmp_path / "图.png").size[0] > 300
    assert Image.open(folder / "confusion.png").size[0] > 300


def test_predictions_keep_the_names(folder: Path, home: Path, tool: Tool) -> None:
    sounds = (home / "源 （一）" / "狗叫", home / "源 （一）" / "a,b")
    records = [
        json.loads(line) for line in tool("predict", folder, *sounds, "--json", "--top", len(NAMES)).splitlines()
    ]
    assert len(records) == 2 * CLIPS
    assert all({name for name, _ in record["top"]} == set(NAMES) for record in records)
    rows = list(csv.DictReader(tool("predict", folder, *sounds, "--format", "csv", "--threshold", 0).splitlines()))
    assert [row["label"] for row in rows] == [record["label"] for record in records]
    assert [row["source"] for row in rows] == [record["source"] for record in records]
    one = next(sounds[0].iterdir())
    labels = tool("predict", folder, one, "--format", "labels", "--threshold", 0).splitlines()
    assert labels and all(line.split("\t")[2] in NAMES for line in labels)


def test_the_report_shows_names_as_text(folder: Path, tool: Tool, tmp_path: Path) -> None:
    tool("report", folder, "--out", tmp_path / "页.html", "--no-audio")
    page, written = Page(), (tmp_path / "页.html").read_text(encoding="utf-8")
    page.feed(written)
    assert set(NAMES) <= set(page.text)
    assert "<b>x</b>" not in written


def test_an_exported_file_names_its_classes(folder: Path, tool: Tool, tmp_path: Path) -> None:
    tool("export", folder, "--to", "onnx", "--out", tmp_path / "模型 一.onnx")
    facts = {one.key: one.value for one in onnx.load(tmp_path / "模型 一.onnx").metadata_props}
    assert set(json.loads(facts["classes"])) == set(NAMES)


def test_two_runs_are_compared_by_name(folder: Path, tool: Tool, tmp_path: Path) -> None:
    for name, shift in (("全 对", 0), ("全 错", 1)):  # one is always right, the other never
        shutil.copytree(folder, tmp_path / name)
        one = scored.read(folder)
        chances_NC = np.roll(np.eye(len(NAMES))[one.truth], shift, axis=1)
        scored.write(tmp_path / name / "scores.npz", dataclasses.replace(one, probability_NC=chances_NC))
    tool("compare", tmp_path / "全 对", tmp_path / "全 错", "--csv", tmp_path / "比.csv", "--png", tmp_path / "比.png")
    with (tmp_path / "比.csv").open(encoding="utf-8", newline="") as file:
        assert {row["truth"] for row in csv.DictReader(file)} == set(NAMES)
    assert Image.open(tmp_path / "比.png").size[0] > 300

"""docs/models.md: its table is what tools/models_table.py counts, and its text names settings that there are."""

import re
from collections.abc import Callable
from types import ModuleType

import pytest

from dist_train import models


@pytest.fixture(scope="module")
def tool(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("models_table")


def test_the_table_is_the_counted_one(tool: ModuleType) -> None:
    page = tool.PAGE.read_text(encoding="utf-8")
    others = tool.kept(page)
    assert list(others) == list(models.ARCHITECTURES)
    assert all(len(row) == len(tool.KEPT) for row in others.values())
    assert tool.FIRST + tool.table(others) + tool.LAST in page


@pytest.mark.parametrize(
    ("name", "multiplications"), [("m5", 276.4e6), ("eres2net", 5.0415e9), ("xvector", 0.8057e9), ("crnn", 52.7e6)]
)
def test_multiplications_are_those_of_the_originals(tool: ModuleType, name: str, multiplications: float) -> None:
    assert tool.count(name).multiplications == pytest.approx(multiplications, rel=2e-3)


def test_every_network_and_every_setting_has_its_words(tool: ModuleType) -> None:
    page = tool.PAGE.read_text(encoding="utf-8").partition(tool.LAST)[2]
    told = {name.strip() for names in re.findall(r"\*\*([^*]+)\*\*", page) for name in names.split(",")}
    assert models.ARCHITECTURES.keys() <= told | {f"resnetish{n}" for n in told}
    settings = {setting for names in models.SETTINGS.values() for setting in names}
    assert [name for name in sorted(settings) if f"model.{name}" not in page] == []


def test_speed_is_a_number(tool: ModuleType) -> None:
    assert float(tool.speed("cnn4")) > 0

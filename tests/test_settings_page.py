"""docs/settings.md: equal to the classes of the configuration, every key once, its examples accepted."""

import re
import shlex
from collections.abc import Callable
from types import ModuleType

import pytest
from pydantic import BaseModel

from dist_train import config
from dist_train.settings import Config


@pytest.fixture(scope="module")
def tool(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("settings_page")


@pytest.fixture(scope="module")
def page(tool: ModuleType) -> str:
    text: str = tool.PAGE.read_text(encoding="utf-8")
    return text


def test_the_page_is_what_the_classes_say(tool: ModuleType, page: str) -> None:
    assert tool.page() == page, "run: python tools/settings_page.py"


def _keys(section: type[BaseModel], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, field in section.model_fields.items():
        found.append((f"{prefix}{key}", field.description or ""))
        inner = config._section(field.annotation)
        found += _keys(inner, f"{prefix}{key}.") if inner is not None else []
    return found


def test_every_key_is_told_once_with_its_description(page: str) -> None:
    rows = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in page.splitlines() if line.startswith("| `")]
    assert all(len(cells) == 4 for cells in rows)
    told = {cells[0].strip("`"): cells[3].replace("\\|", "|") for cells in rows}
    assert len(told) == len(rows)
    assert told == dict(_keys(Config))
    assert all(told.values())


def test_links_inside_the_page_have_their_heading(page: str) -> None:
    headings = {re.sub(r"[^\w-]", "", title.lower()) for title in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= headings


def test_defaults_of_the_page_are_taken_as_defaults(page: str) -> None:
    """A value copied from the page is the one that is there without it."""
    plain = dict(config.flat(config.plain(config.load())))
    rows = re.findall(r"^\| `([\w.]+)` \| .*? \| `([^`]*)` \|", page, re.MULTILINE)
    told = [(key, value) for key, value in rows if key in plain]
    assert len(told) > 150
    for key, value in told:
        assert dict(config.flat(config.plain(config.load(None, [f"{key}={value}"]))))[key] == plain[key], key


def test_examples_are_accepted_and_change_something(tool: ModuleType) -> None:
    for name, line in tool.EXAMPLES.items():
        words = shlex.split(line)
        assert all(word.startswith(f"{name}.") for word in words)
        assert config.load(None, words) != config.load(), name


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ({"type": "integer", "minimum": 1}, "whole number ≥ 1"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "number > 0, < 1"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or `null`"),
        ({"enum": ["a", "b"], "type": "string"}, "`a`, `b`"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, "list (2 or more): whole number"),
        ({"type": "array", "prefixItems": [{"type": "number"}] * 2}, "[number, number]"),
    ],
)
def test_types_in_words(tool: ModuleType, field: dict[str, object], told: str) -> None:
    assert tool.kind(field) == told

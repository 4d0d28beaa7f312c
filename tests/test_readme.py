"""What the pages say exists: the files, options and settings of every command, every link, every setting's default."""

import re
import shlex
from pathlib import Path

import helps
import pytest

from dist_train import config

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"
PAGES = [ENGLISH, CHINESE, ROOT / "CONTRIBUTING.md", ROOT / "shards/README.md", *sorted((ROOT / "docs").glob("*.md"))]
STARTS = (
    "./launch.sh",
    "python",
    "torchrun",
    "accelerate",
    ".venv",
    *("NNODES", "NPROC", "LAUNCHER", "RESTARTS", "DRY"),
)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _commands() -> list[str]:
    """Commands in fences and in back-ticks, without `NAME=value` before them."""
    found: set[str] = set()
    for page in PAGES:
        fences = re.findall(r"^```[a-z]*\n(.*?)^```", _text(page), re.MULTILINE | re.DOTALL)
        lines = [line for fence in fences for line in fence.replace("\\\n", "").splitlines()]
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", _text(page), flags=re.MULTILINE | re.DOTALL))
        commands = {line.split("  #")[0].strip() for line in lines if line.startswith(STARTS)}
        found |= {command for command in commands if " " in command}
    return sorted(found)


def _words(command: str) -> list[str]:
    words = shlex.split(command, comments=True)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


def _fields(section: object) -> list[str]:
    return list(section) if isinstance(section, dict) else []


@pytest.mark.parametrize("command", _commands())
def test_command_names_files_that_exist(command: str) -> None:
    names = [
        word for word in _words(command) if re.fullmatch(r"(\./)?(configs|tools|tests|docs)/\S+|\./launch\.sh", word)
    ]
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("command", [line for line in _commands() if "python tools/" in line])
def test_tool_has_the_options(command: str) -> None:
    _, tool, *arguments = _words(command)
    found = helps.of(Path(tool).stem)
    text = found.get(" ".join([Path(tool).stem, *arguments[:1]]), found[Path(tool).stem]).text
    assert [word for word in arguments if word.startswith("--") and word not in text] == []


@pytest.mark.parametrize("command", [line for line in _commands() if re.search(r"\w\.\w+=", line)])
def test_command_sets_keys_that_exist(command: str) -> None:
    words = _words(command)
    overrides = [word for word in words if re.match(r"[a-z]+(\.[a-z_]+)+=", word)]
    recipes = [ROOT / word for word in words if re.fullmatch(r"configs/\w+\.yaml", word)]
    assert config.load(recipes[0] if recipes else None, overrides)


def test_settings_table_tells_the_defaults() -> None:
    values = dict(config.flat(config.plain(config.load())))
    table = re.findall(
        r"^\| `([a-z_.]+)` \| ([^|]+) \|", _text(ROOT / "README.md").split("## Settings")[1], re.MULTILINE
    )
    assert len(table) > 10
    for key, said in table:
        override = [f"{key}={said.strip().strip('`')}"]
        assert dict(config.flat(config.plain(config.load(None, override))))[key] == values[key], key


def test_mentioned_settings_exist() -> None:
    values = config.plain(config.load())
    known = {
        *dict(config.flat(values)),
        *(f"{section}.{key}" for section in values for key in _fields(values[section])),
    }
    sections = {key.split(".")[0] for key in known if "." in key}
    said = {key for page in PAGES for key in re.findall(r"`([a-z]+\.[a-z_]+)(?:=[^`]*)?`", _text(page))}
    keys = {key for key in said if key.split(".")[0] in sections and not key.endswith((".py", ".md", ".yaml", ".json"))}
    assert {key for key in keys if key not in known and not any(name.startswith(f"{key}.") for name in known)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", _text(page)) if not link.startswith("http")]
    recipes = re.findall(r"`(configs/[\w/]+\.(?:yaml|json))`", _text(page))
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [recipe for recipe in recipes if not (ROOT / recipe).exists()] == []


def _fenced(page: Path) -> list[list[str]]:
    """The lines of each fence without comments; what is drawn is left out."""
    fences = re.findall(r"^```[a-z]*\n(.*?)^```", _text(page), re.MULTILINE | re.DOTALL)
    return [[line.split("  #")[0].rstrip() for line in text.splitlines()] for text in fences if "──" not in text]


def _rows(page: Path) -> list[tuple[list[str], list[str], list[str]]]:
    """Of every row of every table, in any order of words: what is in back-ticks, figures outside of them, links."""
    found = []
    for line in re.findall(r"^\|.*\|$", _text(page), re.MULTILINE):
        words = re.sub(r"`[^`]+`|\]\([^)]+\)", " ", line)
        figures = re.findall(r"\d*\.?\d+", words)
        found.append((sorted(re.findall(r"`([^`]+)`", line)), sorted(figures), re.findall(r"\]\(([^)]+)\)", line)))
    return found


def test_both_languages_hold_the_same_commands() -> None:
    assert len(_fenced(ENGLISH)) > 5
    assert _fenced(CHINESE) == _fenced(ENGLISH)


def test_both_languages_hold_the_same_tables() -> None:
    """Figures, commands, settings and links of all tables: neither page is changed without the other."""
    english, chinese = _rows(ENGLISH), _rows(CHINESE)
    assert len(english) > 50
    assert [(ours, theirs) for ours, theirs in zip(chinese, english, strict=True) if ours != theirs] == []

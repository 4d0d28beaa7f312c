"""docs/tour.md: every command of the page is run, in order, in one folder, and prints what the page says.

Fences of the page: `yaml` is a file that its first line names, `bash` holds commands, `python` a program, `text` what
those before it printed: lines in their order. `...` stands for any text, `[...]` alone for lines left out, a number
with a point or comma for any such number and a class for any class, as they are measured. All else must be there.
"""

import argparse
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from stages import staged

from dist_train import config
from dist_train.demo.sources import SOURCES

PAGE = Path(__file__).parents[1] / "docs/tour.md"
PATIENCE = 280.0  # seconds for what takes a few on an idle machine
KINDS = ("yaml", "bash", "python", "text")
NUMBER = r"-?(?:\d*\.\d+(?:e[-+]\d+)?|\d+(?:,\d{3})+)"
CLASS = rf"(?:{'|'.join(SOURCES)})"


def blocks() -> list[tuple[str, str]]:
    """Kind and text of each fence."""
    return re.findall(r"^```([a-z]*)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for kind, text in blocks() if kind == "bash" for line in text.splitlines()]


class Parsed(BaseException):
    """Arguments were understood; no tool may take it for an error of its own."""


def pattern(said: str) -> re.Pattern[str]:
    """What a line of the page matches: spaces for spaces, and what the head says."""
    ends = r"(?<![\w.])", r"(?![\w.]*\w)"
    parts = re.split(rf"(\.\.\.|\s+|{ends[0]}{NUMBER}{ends[1]}|{CLASS})", said.strip())
    return re.compile("".join(form(part) if at % 2 else re.escape(part) for at, part in enumerate(parts)))


def form(part: str) -> str:
    """The pattern of what may be different."""
    if part == "...":
        return ".*"
    if part.isspace():
        return r"\s+"
    return CLASS if part in SOURCES else NUMBER


def missing(said: str, printed: str) -> list[str]:
    """Lines of the page that what was printed lacks, or has in another order."""
    lines = iter(line.strip() for line in printed.splitlines())
    wanted = [line for line in said.splitlines() if line.strip() not in ("", "[...]")]
    return [line for line in wanted if not any(pattern(line).fullmatch(found) for found in lines)]


def write(home: Path, text: str) -> None:
    (home / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")


def test_lines_match_as_the_head_says() -> None:
    printed = "a  1 b 0.51\nc\nfolds: 3, 1.2e-07 s\nd 7 e"
    assert missing("a 1 b 0.75\n[...]\nfolds: 3, 9.9 s\nd ... e", printed) == []
    assert missing("siren: 0.75", "drilling:  0.5") == []
    assert missing("a 2 b 0.75", printed) == ["a 2 b 0.75"]
    assert missing("d 7 e\nc", printed) == ["c"]
    assert missing("a 1 b 0.51 more", printed) == ["a 1 b 0.51 more"]


def test_page_has_commands_and_what_they_print() -> None:
    kinds = [kind for kind, _ in blocks()]
    assert set(kinds) == set(KINDS)
    assert all(kinds[at - 1] in ("bash", "python") for at, kind in enumerate(kinds) if kind == "text")


@pytest.mark.parametrize("line", commands())
def test_command_is_understood(
    line: str, script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the arguments, or the settings of a training; nothing is run."""
    staged(tmp_path / "stage", lambda name: None)
    monkeypatch.chdir(tmp_path / "stage")
    for kind, text in blocks():
        if kind == "yaml":
            write(Path(), text)
    words = shlex.split(line.rpartition(" | ")[2])
    if "dist_train" in words:
        given = words[words.index("dist_train") + 1 :]
        assert config.load(given[0], given[1:])
        return
    understand(monkeypatch)
    assert words[0] == "python"
    with pytest.raises(Parsed):
        script(Path(words[1]).stem).main(words[2:])


def understand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsers go no further than to parse."""
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)

        def stop(self: argparse.ArgumentParser, *given: object, parse: Callable[..., object] = parse) -> None:
            parse(self, *given)
            raise Parsed

        monkeypatch.setattr(argparse.ArgumentParser, name, stop)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of the tour, with the project's own folders."""
    found = staged(tmp_path / "tour", lambda name: None).home
    monkeypatch.chdir(found)
    yield found


def obey(line: str, script: Callable[[str], ModuleType], environment: dict[str, str]) -> int:
    """The exit code of a command: trainings and pipes are processes of their own, tools are called in this one."""
    words = shlex.split(line)
    if "|" in words or "dist_train" in words:
        command = ["bash", "-o", "pipefail", "-c", line]
        return subprocess.run(command, env=environment, timeout=PATIENCE).returncode
    try:
        return int(script(Path(words[1]).stem).main(words[2:]))
    except SystemExit as ended:  # argparse's own no
        return int(ended.code or 0)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_tour(
    home: Path,
    script: Callable[[str], ModuleType],
    environment: dict[str, str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The whole page; transcript.txt in the folder holds all that was printed."""
    printed = ""
    wrong: list[str] = []
    for kind, text in blocks():
        if kind == "yaml":
            write(home, text)
        elif kind == "text":
            wrong += missing(text, printed)
            continue
        printed = ""
        for line in text.splitlines() if kind == "bash" else []:
            code = obey(line, script, environment)
            out, err = capfd.readouterr()
            note(line, out, err)
            assert code == 0, f"{line}: exit code {code}\n{out}{err}"
            printed += out + err
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), {"__name__": "tour"})
            out, err = capfd.readouterr()
            note(text, out, err)
            printed = out
    assert wrong == []


def note(line: str, out: str, err: str) -> None:
    """One command in the transcript, by which the page is renewed."""
    with Path("transcript.txt").open("a", encoding="utf-8") as file:
        file.write(f"$ {line}\n{out}--- stderr\n{err}\n")

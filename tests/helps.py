"""What every command says with --help, and the examples in it. One Python is started, and forks once a command.

A command is named `make_shards pack`: the tool, and its subcommand if it has any; `dist_train` is the package itself.
"""

import json
import os
import re
import runpy
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchaudio", "matplotlib", "scipy", "sklearn", "pandas", "transformers", "onnx", "onnxruntime", "av")
TOOLS = (*sorted(path.stem for path in (ROOT / "tools").glob("*.py")), "dist_train")
STARTS = re.compile(r"(?:\S.* )?(?:python (?:tools/|-m )|torchrun |accelerate launch |\./launch\.sh )\S.*")


@dataclass(frozen=True)
class Help:
    """text, exit code, heavy modules that were imported, seconds of one core's time."""

    text: str
    code: int
    heavy: tuple[str, ...]
    seconds: float

    def examples(self) -> list[str]:
        """The command lines behind the word `example`: indented, a line each."""
        lines = re.split(r"example", self.text, maxsplit=1, flags=re.IGNORECASE)[1:]
        return [line.strip() for text in lines for line in text.splitlines() if re.match(r"  +" + STARTS.pattern, line)]


@cache
def helps() -> dict[str, Help]:
    """Of every command what it says."""
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, cwd=ROOT, timeout=240, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    return {
        name: Help(text, code, tuple(heavy), seconds)
        for name, (text, code, heavy, seconds) in json.loads(done.stdout).items()
    }


def of(tool: str) -> dict[str, Help]:
    """A tool's own help and those of its subcommands."""
    return {name: found for name, found in helps().items() if name.split()[0] == tool}


def _ask(tool: str, *subcommand: str) -> tuple[str, int, list[str], float]:
    """One command's --help, in a process forked from this one, which has imported nothing."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        code: object = 0
        try:
            sys.argv = [f"tools/{tool}.py", *subcommand, "--help"]
            if tool == "dist_train":
                runpy.run_module("dist_train", run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(ROOT / f"tools/{tool}.py"), run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        except BaseException as error:
            print(repr(error))
            code = 70
        heavy = [name for name in HEAVY if name in sys.modules]
        print(
            "\0"
            + json.dumps([code if isinstance(code, int) else 0 if code is None else 1, heavy, time.process_time()]),
            flush=True,
        )
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as file:
        text, _, rest = file.read().partition("\0")
    os.waitpid(child, 0)
    code, heavy, seconds = json.loads(rest)
    return text, code, heavy, seconds


def _main() -> None:
    os.environ["COLUMNS"] = "200"
    sys.path.insert(0, str(ROOT))
    found = {}
    for tool in TOOLS:
        found[tool] = _ask(tool)
        below = re.search(r"\{([\w,-]+)\} \.\.\.", found[tool][0])
        for name in below[1].split(",") if below else ():
            found[f"{tool} {name}"] = _ask(tool, name)
    print(json.dumps(found))


if __name__ == "__main__":
    _main()

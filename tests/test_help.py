"""Every tool says how it is used, quickly, and its examples work as they are written, on tiny data (stages.py).

A new tool is found by itself. Its example's words that are not in stages.PROVIDED are taken for what it makes; what
makes an example cheap is in CHEAP, what takes minutes in LONG, what wants a server or parts of others in LATER.
"""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import helps
import pytest
import test_fetch
from servers import Seaweed
from sites import serving
from stages import Stage, enter, entered, staged
from stores import upload

from dist_train.fetch import catalogue

SHORT = ["run.max_steps=2", "data.batch_size=8", "audio.seconds=0.5", "log.tensorboard=false"]
CHEAP: dict[str, list[str]] = {
    "bench": ["--times", "1"],
    "compare": ["--draws", "100"],
    "crossval": [*SHORT, "data.micro_batch=8", "--seeds", "0", "--folds", "1,2"],
    "dist_train": SHORT,
    "evaluate": ["--draws", "100"],
    "make_demo": ["--recordings", "50"],
    "make_shards pack": ["--workers", "1"],
    "preview": ["--variants", "1"],
}
"""Command -> what is added to its examples: the same work, less of it."""
LONG = {"bench", "crossval", "dist_train", "export", "make_demo", "models_table", "preview"}
"""Tools whose examples take minutes, or seconds for what tests of their own show too."""
LATER = ("s3://", "/data/", "/shared/")
"""In lines that only the long test runs."""
WAIT = 240  # seconds for what takes a few on an idle machine
TIMES = 2.0  # seconds of one core's time that --help may take; torch alone would take more


@pytest.mark.parametrize("tool", helps.TOOLS)
def test_help_is_quick_and_has_an_example(tool: str) -> None:
    found = helps.of(tool)
    assert found
    for name, told in found.items():
        assert told.code == 0, f"{name}: {told.text}"
        assert told.heavy == (), f"{name} --help imports {told.heavy}"
        assert told.seconds < TIMES, f"{name} --help takes {told.seconds:.1f} s"
        assert told.examples(), f"{name} --help has no example: the word, then an indented command line"


def test_launch_script_says_how(root: Path) -> None:
    begin = time.monotonic()
    done = subprocess.run([root / "launch.sh", "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begin < 20
    lines = re.findall(r"e\.g\.: (\./launch\.sh .*)", done.stdout)
    assert len(lines) == 2
    for line in lines:  # test_launch.py runs the script; here what its examples name
        words = line.split()[1:]
        names = [word for word in words if "/" in word]
        assert names and all((root / name).exists() for name in names)


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """An empty stage as the working directory; `ffmpeg` there gives a second of noise as WAV, whatever is asked."""
    found = staged(tmp_path / "stage", request.getfixturevalue)
    (found.home / "bin").mkdir()
    (found.home / "bin/ffmpeg").write_text(f"#!/bin/sh\nexec cat {found.home}/take.wav\n")
    (found.home / "bin/ffmpeg").chmod(0o755)
    (found.home / "take.wav").write_bytes(test_fetch.SOUND)
    monkeypatch.chdir(found.home)
    return found


def obey(stage: Stage, script: Callable[[str], ModuleType], line: str, environment: dict[str, str]) -> int:
    """The exit code of an example: in this process, in forked ranks, or by a shell where it is a pipe."""
    words = stage.words(line)
    if "|" in words:
        path = f"{stage.home / 'bin'}{os.pathsep}{environment['PATH']}"
        command = ["bash", "-o", "pipefail", "-c", line]
        return subprocess.run(command, env=environment | {"PATH": path}, timeout=WAIT).returncode
    piped = words.pop() if "<" in words else None
    words = [word for word in words if word != "<"]
    ranks = next((int(word.partition("=")[2]) for word in words if word.startswith("--nproc_per_node=")), 1)
    place = next(at for at, word in enumerate(words) if word == "dist_train" or word.endswith(".py"))
    tool, arguments = Path(words[place]).stem, words[place + 1 :]
    command_name = f"{tool} {arguments[0]}" if arguments else tool
    arguments += CHEAP.get(command_name, CHEAP.get(tool, []))
    if tool == "dist_train":
        from launches import Job

        return _worst(Job(arguments, stage.home, ranks, partial(enter, stage.home)).ranks)
    if ranks > 1 or piped:
        from launches import fork

        outputs = [stage.home / f"output-{rank}.txt" for rank in range(ranks)]
        code = _worst(fork(entered, [[stage.home, tool, arguments, piped]] * ranks, outputs))
        print(*(output.read_text() for output in outputs if output.exists()))
        return code
    module = script(tool)
    if isinstance(page := getattr(module, "PAGE", None), Path):  # it writes into docs/: here into a copy
        module.PAGE = stage.home / page.name
        module.PAGE.write_bytes(page.read_bytes())
    try:
        return int(module.main(arguments))
    except SystemExit as ended:  # argparse's own no
        return int(ended.code or 0)


def _worst(jobs: list[Any]) -> int:
    """The largest exit code of processes; one that does not end is ended, and counts as 1."""
    for job in jobs:
        job.join(WAIT)
        if job.is_alive():
            job.kill()
    return max(job.exitcode if job.exitcode is not None else 1 for job in jobs)


def play(
    stage: Stage,
    script: Callable[[str], ModuleType],
    tool: str,
    environment: dict[str, str],
    wanted: Callable[[str], bool],
) -> Iterator[str]:
    """Every example of a tool, run; the lines that were."""
    for name, told in helps.of(tool).items():
        for line in filter(wanted, told.examples()):
            for word in shlex.split(line):
                stage.provide(word, name)
            assert obey(stage, script, line, environment) == 0, line
            yield line


@pytest.fixture
def sites(stage: Stage, script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The official address of ESC-50 is on loopback."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as site:
        monkeypatch.setitem(catalogue.DATASETS, "esc50", test_fetch.esc50(site))
        yield


TOOLS = [pytest.param(tool, marks=[pytest.mark.full] if tool in LONG else []) for tool in helps.TOOLS]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.usefixtures("sites")
def test_examples_work_as_they_are_written(
    stage: Stage, script: Callable[[str], ModuleType], tool: str, environment: dict[str, str]
) -> None:
    done = list(play(stage, script, tool, environment, lambda line: not any(word in line for word in LATER)))
    assert done


@pytest.mark.full
def test_examples_of_packing_elsewhere(
    stage: Stage, script: Callable[[str], ModuleType], environment: dict[str, str], seaweed: Seaweed
) -> None:
    """From a store and to one; a part of several machines, when the others have done theirs."""
    seaweed._send("PUT", "sounds")
    stage.provide("recordings", "")
    lines = ["path,label", *(f"{kind}{number}.wav,{kind}" for kind in ("dog", "rain") for number in range(3))]
    (stage.home / "raw").mkdir()
    (stage.home / "raw/table.csv").write_text("\n".join(lines))
    for kind in ("dog", "rain"):
        for number in range(3):
            (stage.home / f"raw/{kind}{number}.wav").write_bytes(
                (stage.home / f"recordings/{kind}/{number}.wav").read_bytes()
            )
    upload(stage.home / "raw", "raw", "sounds")
    pack = script("make_shards").main
    told = []
    for line in helps.helps()["make_shards pack"].examples():
        if not any(word in line for word in LATER):
            continue
        stage.provide("/data/esc50", "")
        if "index" in line:  # when all three are done
            for part in ("1/3", "3/3"):
                assert (
                    pack(
                        [
                            *map(str, ("pack", stage.inside("/data/esc50"), stage.inside("/shared/esc50"))),
                            "--part",
                            part,
                        ]
                    )
                    == 0
                )
        assert obey(stage, script, line, environment) == 0, line
        told.append(line)
    assert len(told) == 3

"""How scripts end: their exit codes, one line on stderr, and a reader that leaves before the end."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dist_train import command


def fails(error: BaseException) -> Callable[[], int | None]:
    def work() -> int | None:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (fails(ValueError("no run there")), 2, "tool: no run there\n"),
        (fails(FileNotFoundError("gone")), 2, "tool: gone\n"),
        (fails(PermissionError(13, "Permission denied", "/a")), 2, "tool: /a: Permission denied\n"),
        (fails(OSError(28, "full", "/a")), 2, "tool: /a: full; free space there, or name another place\n"),
        (fails(BrokenPipeError("a connection")), 2, "tool: a connection\n"),
        (fails(KeyboardInterrupt()), 130, "tool: stopped half-way\n"),
    ],
)
def test_exit_codes(work: Callable[[], int | None], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run("tool", work, "stopped half-way") == code
    assert capsys.readouterr().err == said


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        command.run("tool", fails(KeyError("ours")))


@pytest.mark.parametrize("lines", [1, 10**6])
def test_a_full_disk_under_stdout_is_told_once(lines: int, environment: dict[str, str]) -> None:
    """Whether a buffer of lines meets it on the way, or at the very end."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    code = (
        f"import sys; from dist_train import command\ndef work():\n    for number in range({lines}): print(number)\n"
        "sys.exit(command.run('tool', work))"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, env=environment)
    told = b"tool: No space left on device; free space there, or name another place\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_streams_may_be_closed(environment: dict[str, str]) -> None:
    code = (
        "import sys; from dist_train import command\n"
        "def work():\n    print('told'); return 3 if sys.stdout.isatty() or sys.stdin.buffer.read() else 0\n"
        "sys.exit(command.run('tool', work))"
    )
    command_line = ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(command_line, env=environment).returncode == 0


def test_a_reader_may_leave(environment: dict[str, str]) -> None:
    """As `| head -1` does; and a name that the terminal's encoding lacks is shown in another way."""
    code = (
        "import sys; from dist_train import command\n"
        "def work():\n    print('狗')\n    for number in range(10**6): print(number, flush=True)\n"
        "sys.exit(command.run('tool', work))"
    )
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment | {"PYTHONIOENCODING": "ascii"}}
    with subprocess.Popen([sys.executable, "-c", code], **given) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"\\u72d7\n"
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")

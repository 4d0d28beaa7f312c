"""How scripts end: their exit codes, one line on stderr, and a reader that leaves before the end."""

import subprocess
import sys
from collections.abc import Callable

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


def test_a_reader_may_leave(environment: dict[str, str]) -> None:
    """As `| head -1` does; and a name that the terminal's encoding lacks is shown in another way."""
    code = (
        "import sys; from dist_train import command\n"
        "def work():\n    print('狗')\n    for number in range(10**6): print(number, flush=True)\n"
        "sys.exit(command.run('tool', work, piped=True))"
    )
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment | {"PYTHONIOENCODING": "ascii"}}
    with subprocess.Popen([sys.executable, "-c", code], **given) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"\\u72d7\n"
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")

"""The allocator keeps what is freed: a real process asks glibc what it holds."""

import os
import subprocess
import sys

import pytest

HELD = """
import ctypes, sys
from dist_train import memory
libc = ctypes.CDLL(None)
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena a b hblks hblkhd c d used free keepcost".split()]
libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == "keep":
    assert memory.keep()
blocks = [libc.malloc(ctypes.c_size_t(20_000_000)) for _ in range(8)]
for block in blocks:
    libc.free(block)
print(libc.mallinfo2().free)
"""


def held(how: str) -> int:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run([sys.executable, "-c", HELD, how], capture_output=True, text=True, env=plain)
    if "mallinfo2" in run.stderr:
        pytest.skip("a C library without mallinfo2")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_is_freed_is_kept_for_the_next_step() -> None:
    assert held("keep") > 150_000_000 > held("as it is")


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    from dist_train import memory

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert not memory.keep()

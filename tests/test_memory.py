"""The allocator keeps what is freed: a real process counts its page faults."""

import os
import subprocess
import sys

import pytest

ROUNDS = """
import resource, sys, torch
from dist_train import memory
if sys.argv[1] == "keep":
    assert memory.keep()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        held = [torch.ones(5_000_000) for _ in range(8)]  # 160 MB at once: more than malloc keeps by itself
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(how: str, **more: str) -> int:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run([sys.executable, "-c", ROUNDS, how], capture_output=True, text=True, env=plain | more)
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_is_freed_is_not_faulted_in_again() -> None:
    kept = faults("keep")
    assert kept < 2000  # 5 x 160 MB hold 200,000 pages of 4 KB
    assert faults("as it is") > 10 * kept


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    from dist_train import memory

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert not memory.keep()

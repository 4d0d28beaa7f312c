"""Checkpoints: whole or absent whatever happens, rotated, and no flipped bit is ever loaded."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dist_train import checkpoint
from dist_train.checkpoint import Checkpoints

KILLED = """
import sys, torch
from pathlib import Path
from dist_train.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), 2, print)
checkpoints.save(1, {"weight": torch.ones(3)})
checkpoints.wait()
print("saved", flush=True)
checkpoints.save(2, {"weight": torch.zeros(300_000_000, dtype=torch.uint8)})
checkpoints.wait()
"""


def _payload(number: int = 1) -> dict[str, Any]:
    return {
        "model": {"weight": torch.arange(6.0) * number},
        "step": number,
        "lr": 0.1,
        "names": ["a", "b"],
        "none": None,
    }


def _checkpoints(folder: Path, keep: int = 2) -> tuple[Checkpoints, list[str]]:
    warnings: list[str] = []
    return Checkpoints(folder, keep, warnings.append), warnings


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.pt"))


def _newest(folder: Path) -> dict[str, Any]:
    found = _checkpoints(folder)[0].newest()
    assert found is not None
    return found[1]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoints, warnings = _checkpoints(tmp_path / "checkpoints")
    assert checkpoints.newest() is None and not (tmp_path / "checkpoints").exists()
    path = checkpoints.save(1200, _payload())
    checkpoints.wait()
    assert path.name == "step-00001200.pt" and path == checkpoints.path(1200)
    found = checkpoints.newest()
    assert found is not None and found[0] == path
    assert found[1]["model"]["weight"].tolist() == list(range(6))
    assert {**found[1], "model": 0} == {**_payload(), "model": 0}
    assert warnings == []


def test_the_caller_may_change_its_tensors_at_once(tmp_path: Path) -> None:
    checkpoints, _ = _checkpoints(tmp_path)
    weight = torch.ones(5_000_000)
    checkpoints.save(1, {"weight": weight, "moments": {0: {"square": weight}}})
    weight.zero_()
    checkpoints.wait()
    found = _newest(tmp_path)
    assert bool((found["weight"] == 1).all()) and bool((found["moments"][0]["square"] == 1).all())


def test_a_view_does_not_drag_its_storage_along(tmp_path: Path) -> None:
    checkpoints, _ = _checkpoints(tmp_path)
    path = checkpoints.save(1, {"row": torch.zeros(1000, 1000)[3]})
    checkpoints.wait()
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize("value", [np.float64(1.0), {1, 2}, Path("x"), {"inner": [np.int64(1)]}, {np.int64(1): 0}])
def test_only_plain_values_may_be_saved(tmp_path: Path, value: object) -> None:
    with pytest.raises(AssertionError, match="checkpoint"):
        _checkpoints(tmp_path)[0].save(1, {"value": value})


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_and_the_best_stay(tmp_path: Path, keep: int) -> None:
    checkpoints, _ = _checkpoints(tmp_path, keep)
    for step in range(1, 7):
        checkpoints.save(step, _payload(step))
        if step == 2:
            checkpoints.mark_best(step, 0.5)
    checkpoints.wait()
    assert _steps(tmp_path) == sorted({2, *range(7 - keep, 7)})
    best = Checkpoints(tmp_path, keep, print).best()
    assert best == (checkpoints.path(2), 0.5)
    checkpoints.mark_best(6, 0.75)
    checkpoints.wait()
    assert _steps(tmp_path) == list(range(7 - keep, 7))
    assert checkpoints.best() == (checkpoints.path(6), 0.75)


def test_a_held_file_waits_for_the_choice(tmp_path: Path) -> None:
    checkpoints, _ = _checkpoints(tmp_path, 1)
    checkpoints.save(1, _payload(1), hold=True)
    checkpoints.save(2, _payload(2))
    checkpoints.wait()
    assert _steps(tmp_path) == [1, 2]
    checkpoints.mark_best(2, 0.5)
    checkpoints.wait()
    assert _steps(tmp_path) == [2]


def test_a_broken_checkpoint_is_named_and_skipped(tmp_path: Path) -> None:
    checkpoints, warnings = _checkpoints(tmp_path, 4)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, _payload(step))
    checkpoints.wait()
    cut, changed = checkpoints.path(4), bytearray(checkpoints.path(3).read_bytes())
    cut.write_bytes(cut.read_bytes()[:-300])
    changed[changed.find((torch.arange(6.0) * 3).numpy().tobytes()) + 9] ^= 1
    checkpoints.path(3).write_bytes(changed)
    checkpoints.path(2).write_bytes(b"")
    found = checkpoints.newest()
    assert found is not None and found[0] == checkpoints.path(1)
    assert [str(checkpoints.path(step)) in line for step, line in zip((4, 3, 2), warnings, strict=True)] == [True] * 3


def test_a_broken_later_file_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    (tmp_path / "step-00000500.pt").write_bytes(b"broken")
    checkpoints, _ = _checkpoints(tmp_path, 1)
    for step in (440, 450):
        checkpoints.save(step, _payload(step))
    checkpoints.wait()
    assert _newest(tmp_path)["step"] == 450 and _steps(tmp_path) == [450, 500]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_harmless(place: float, bit: int) -> None:
    data = bytearray(checkpoint.encode(_payload(7)))
    data[int(place * len(data))] ^= 1 << bit
    try:
        found = checkpoint.decode(bytes(data), "bytes")
    except ValueError as error:
        assert str(error).startswith("bytes: broken checkpoint (") and "\n" not in str(error)
    else:
        assert torch.equal(found.pop("model")["weight"], torch.arange(6.0) * 7)
        assert found == {name: value for name, value in _payload(7).items() if name != "model"}


def test_torch_alone_would_not_find_it(tmp_path: Path) -> None:
    """Why the checksums are read at all; if this fails, torch has learnt it."""
    data = bytearray(checkpoint.encode({"weight": torch.full((1000,), 3.0)}))
    data[len(data) // 2] ^= 1
    (tmp_path / "x.pt").write_bytes(data)
    assert torch.load(tmp_path / "x.pt", weights_only=True)["weight"].unique().numel() == 2
    with pytest.raises(ValueError, match="broken"):
        checkpoint.load(tmp_path / "x.pt")


def test_a_missing_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.pt: checkpoint cannot be read"):
        checkpoint.load(tmp_path / "nowhere.pt")


def test_an_abandoned_line_is_put_aside(tmp_path: Path) -> None:
    checkpoints, _ = _checkpoints(tmp_path, 3)
    for step in (10, 20, 30):
        checkpoints.save(step, _payload(step))
    checkpoints.mark_best(30, 0.9)
    checkpoints.wait()
    checkpoints.cut(10)
    assert _steps(tmp_path) == [10] and _steps(tmp_path / "old") == [20, 30] and checkpoints.best() is None
    checkpoints.save(15, _payload(15))
    checkpoints.wait()
    assert _newest(tmp_path)["step"] == 15
    checkpoints.cut(-1)
    assert _steps(tmp_path) == [] and _steps(tmp_path / "old") == [10, 15]


def test_a_kill_in_a_save_leaves_the_one_before(tmp_path: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "saved\n"
    part = tmp_path / ".step-00000002.pt.tmp"
    while process.poll() is None and not part.exists():
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert part.exists() and _steps(tmp_path) == [1]
    assert _newest(tmp_path)["weight"].tolist() == [1, 1, 1]
    checkpoints, _ = _checkpoints(tmp_path)
    checkpoints.save(3, _payload())
    checkpoints.wait()
    assert _steps(tmp_path) == [1, 3] and not part.exists()


def test_a_full_disk_is_one_line_and_costs_no_older_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # its limit of file sizes stands for a full disk
    checkpoints, _ = _checkpoints(tmp_path, 1)
    checkpoints.save(1, _payload())
    checkpoints.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        checkpoints.save(2, {"weight": torch.zeros(1_000_000)})
        with pytest.raises(ValueError, match=r"checkpoint not written \(File too large\); free") as caught:
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
    checkpoints.mark_best(2, 0.5)  # of a file that never came to be
    checkpoints.save(3, _payload())
    checkpoints.wait()
    assert _steps(tmp_path) == [3] and checkpoints.best() is None


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    checkpoints, _ = _checkpoints(tmp_path / "file" / "checkpoints")
    checkpoints.save(1, _payload())
    with pytest.raises(ValueError, match=r"checkpoints: checkpoint not written \(Not a directory\)"):
        checkpoints.save(2, _payload())
    checkpoints.wait()  # told once


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpus_later_work_does_not_enter_the_copy(tmp_path: Path) -> None:
    checkpoints, _ = _checkpoints(tmp_path)
    weight = torch.ones(64, 1_000_000, device="cuda")
    for step in range(1, 4):
        weight.fill_(step)
        checkpoints.save(step, {"weight": weight, "column": weight[:, 7], "half": weight[0].half()})
        weight.zero_()
    checkpoints.wait()
    found = _newest(tmp_path)
    assert {float(found[name].double().mean()) for name in ("weight", "column", "half")} == {3.0}
    assert found["weight"].device.type == "cpu"

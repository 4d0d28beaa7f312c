"""A run's folder: one writer at a time, lines that survive a kill, files that are whole."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_train import disk
from dist_train.runs import RunFolder

HOLDER = """
import sys
from pathlib import Path
from dist_train.runs import RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.open()
for step in range(1, 6):
    folder.append({"kind": "train", "step": step, "loss": 1 / 3})
print("here", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.open()
    yield folder
    folder.close()


def _lines(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_second_job_is_refused_and_told_of_the_first(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "here\n"
        second = RunFolder(tmp_path)
        with pytest.raises(
            ValueError, match=rf"in use by process {holder.pid} on \S+ since \S+ \(.*run\.name"
        ) as caught:
            second.open()
        assert "\n" not in str(caught.value)
        assert json.loads((tmp_path / ".owner").read_text())["pid"] == holder.pid
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    second.open()  # the lock died with its process, and no line of the metrics did
    assert [record["loss"] for record in _lines(second)] == [1 / 3] * 5
    second.close()


def test_the_lock_holds_within_a_process_and_ends_with_close(folder: RunFolder) -> None:
    second = RunFolder(folder.path)
    with pytest.raises(ValueError, match="in use by process"):
        second.open()
    folder.close()
    second.open()
    second.close()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"one: the run's folder cannot be written \(Not a directory\); mend that or give another"
    ):
        RunFolder(tmp_path / "file" / "one").open()


def test_opening_changes_nothing_of_a_finished_run(folder: RunFolder) -> None:
    folder.begin("seed: 1\n")
    folder.write_result({"value": 0.5})
    folder.close()
    folder.open()
    assert json.loads((folder.path / "result.json").read_text()) == {"value": 0.5}


def test_a_run_begins_without_result_and_stop(folder: RunFolder) -> None:
    folder.write_result({"value": float("nan"), "confusion": [[1, 2], [3, 4]], "name": "语言"})
    assert json.loads((folder.path / "result.json").read_text(encoding="utf-8"))["value"] is None
    (folder.path / "STOP").touch()
    assert folder.stop_requested()
    folder.begin("classes: [语言]\n", {"ranks": 2})
    assert not folder.stop_requested() and not (folder.path / "result.json").exists()
    assert (folder.path / "config.yaml").read_text(encoding="utf-8") == "classes: [语言]\n"
    facts = json.loads((folder.path / "environment.json").read_text())
    assert facts["ranks"] == 2 and facts["packages"]["torch"].startswith("2.") and {"host", "commit"} <= facts.keys()
    folder.clear_stop()  # nothing there: nothing happens


def test_nothing_is_left_beside_the_files(folder: RunFolder) -> None:
    folder.begin("seed: 1\n")
    folder.write_result({})
    names = {path.name for path in folder.path.iterdir()}
    assert names == {".lock", ".owner", "config.yaml", "environment.json", "result.json"}


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_every_bit(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.append({"step": 1, "loss": value})
    folder.close()
    assert _lines(folder)[0]["loss"].hex() == value.hex()


def test_metrics_are_json_even_where_a_loss_is_not(folder: RunFolder) -> None:
    folder.append({"step": 1, "loss": float("inf"), "norms": [1.0, float("nan")]})
    assert _lines(folder) == [{"step": 1, "loss": None, "norms": [1.0, None]}]


def _history(folder: RunFolder) -> None:
    for step in (10, 20, 30):
        folder.append({"kind": "train", "step": step})
        folder.append({"kind": "eval", "step": step})


@pytest.mark.parametrize("keep", [True, False])
def test_resume_cuts_the_metrics_at_its_step(folder: RunFolder, keep: bool) -> None:
    _history(folder)
    folder.cut_metrics(20, keep_evaluation=keep)
    kept = [(record["kind"], record["step"]) for record in _lines(folder)]
    assert kept == [("train", 10), ("eval", 10), ("train", 20), *([("eval", 20)] if keep else [])]
    folder.append({"kind": "train", "step": 25})
    assert _lines(folder)[-1]["step"] == 25 and len(_lines(folder)) == len(kept) + 1


@pytest.mark.parametrize(
    "rest", [b'{"kind": "train", "st', b'{"kind": "train", "step": 9', b"\xff\xfe", b"\0" * 40, b"\n", b"3\n"]
)
def test_a_half_written_line_goes(folder: RunFolder, rest: bytes) -> None:
    _history(folder)
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(rest)
    folder.cut_metrics(1000)
    folder.append({"kind": "train", "step": 40})
    assert [record["step"] for record in _lines(folder)] == [10, 10, 20, 20, 30, 30, 40]


def test_a_run_from_the_start_has_empty_metrics(folder: RunFolder) -> None:
    folder.cut_metrics(-1)
    assert not (folder.path / "metrics.jsonl").exists()
    _history(folder)
    folder.cut_metrics(-1)
    assert _lines(folder) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    disk.replace_json(path, {"old": 1})

    def fill(file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        disk.replace(path, fill)
    assert json.loads(path.read_text()) == {"old": 1} and list(tmp_path.iterdir()) == [path]

"""Real launchers: torchrun and accelerate start the same run; a stop reaches it through them."""

import os
import signal
from pathlib import Path

from launcher import Launch, torchrun
from launches import arguments

SAME = ("step", "consumed", "loss", "accuracy", "lr", "stream", "grad_norm")
STEPS = 20


def _accelerate(home: Path, shards: Path, *overrides: str, flags: tuple[str, ...]) -> list[str]:
    given = arguments(home, shards, *overrides)
    return ["accelerate.commands.launch", *flags, "-m", "dist_train", *given]


def test_accelerate_and_torchrun_through_a_stop(
    shards: Path, tmp_path: Path, root: Path, environment: dict[str, str]
) -> None:
    length = f"run.max_steps={STEPS}"
    whole = ("--config_file", "configs/accelerate/cpu.yaml")
    first = Launch(_accelerate(tmp_path / "one", shards, length, flags=whole), tmp_path / "one", root, environment)
    assert first.code() == 0, first.output.read_text()
    assert first.run.finished

    command = torchrun(tmp_path / "two", shards, length)
    second = Launch(command, tmp_path / "two", root, environment)
    second.until_step(2)
    second.process.send_signal(signal.SIGTERM)
    second.code()
    assert "stopped and saved at step" in second.output.read_text()
    assert not second.run.finished
    assert 2 <= second.run.last()["progress"]["step"] == second.run.steps() < STEPS

    third = Launch(command, tmp_path / "two", root, environment)
    assert third.code() == 0, third.output.read_text()
    assert third.run.column("step") == list(range(1, STEPS + 1))
    for name in SAME:
        assert third.run.column(name) == first.run.column(name)  # to the last digit
    assert third.run.metrics("eval") == first.run.metrics("eval")
    assert third.run.result() == first.run.result()


def test_one_process_for_several_is_refused(
    shards: Path, tmp_path: Path, root: Path, environment: dict[str, str]
) -> None:
    command = _accelerate(tmp_path, shards, flags=("--cpu", "--num_processes", "2"))
    launch = Launch(command, tmp_path, root, environment)
    assert launch.code() != 0
    lines = [line for line in launch.output.read_text().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "accelerate started one process for several" in lines[0]
    assert not os.path.exists(tmp_path / "tiny")

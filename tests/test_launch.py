"""launch.sh, really run, in a project whose Python is a short script: what it starts, installs, repairs and refuses."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = f"""#!/usr/bin/env bash
# Stands for python3: `-m venv` copies itself, `-m pip install` obeys $PIP, whatever else is only written down.
echo "$*" >> "$LOG"
case "$*" in
    "-P "*) exit 1 ;;
    "-c import fcntl"*) exec {sys.executable} "$@" ;;
    "-m venv"*) home=${{@: -1}}; mkdir -p "$home/bin" && touch "$home/pyvenv.cfg" && cp "$0" "$home/bin/python" ;;
    "-m pip install"*)
        case ${{PIP:-}} in fail) exit 1 ;; hang) touch "$LOG.pip"; sleep 60 ;; slow) sleep 0.5 ;; esac ;;
    *"-m dist_train wait"*) trap 'exit 7' TERM; touch "$LOG.started"; while :; do sleep 0.05; done ;;
esac
"""


class Project:
    """A folder with launch.sh and pyproject.toml, and an environment in which python3 is the script above."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.log = home / "log"
        (home / "bin").mkdir()
        (home / "bin/python3").write_text(PYTHON)
        (home / "bin/python3").chmod(0o755)
        (home / "bin/nvidia-smi").write_text('#!/bin/sh\nfor i in $GPUS; do echo "GPU $i: H100"; done\n')
        (home / "bin/nvidia-smi").chmod(0o755)
        (home / "tools/cluster").mkdir(parents=True)
        for name in ("launch.sh", "pyproject.toml", "tools/cluster/machines.sh"):
            shutil.copy(ROOT / name, home / name)
        self.environment = environment | {"PATH": f"{home}/bin:/usr/bin:/bin", "LOG": str(self.log)}
        for name in ("VIRTUAL_ENV", "OMP_NUM_THREADS"):
            self.environment.pop(name, None)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.home / "launch.sh", *arguments],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def dry(self, *arguments: str, **environment: str) -> list[str]:
        code, out, err = self.run(*arguments, DRY="1", **environment)
        assert (code, err) == (0, "")
        return shlex.split(out)

    def wait_for(self, name: str) -> None:
        until = time.monotonic() + 30
        while not Path(f"{self.log}.{name}").exists():
            assert time.monotonic() < until, f"{name} never happened"
            time.sleep(0.01)

    def count(self, start: str) -> int:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return sum(line.startswith(start) for line in lines)

    @property
    def installs(self) -> int:
        return self.count("-m pip install")


@pytest.fixture
def project(tmp_path: Path, environment: dict[str, str]) -> Project:
    if os.name != "posix":
        pytest.skip("launch.sh needs a POSIX shell")
    return Project(tmp_path, environment)


def test_without_arguments_it_trains_the_demo_in_two_processes(project: Project) -> None:
    threads, *command = project.dry()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert threads == f"OMP_NUM_THREADS={max(1, cores // 2)}"
    assert command[:3] == [f"{project.home}/.venv/bin/python", "-m", "torch.distributed.run"]
    assert {"--standalone", "--nproc-per-node=2", "--max-restarts=0"} < set(command)
    assert command[-3:] == ["-m", "dist_train", "configs/demo.yaml"]
    assert not (project.home / ".venv").exists()


def test_arguments_arrive_as_they_were_given(project: Project) -> None:
    arguments = ["my config.yaml", "run.name=a b", "data.shards=[one, 'two']", "run.dir=$HOME", "model.name="]
    assert project.dry(*arguments)[-5:] == arguments


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 2),
        ({"GPUS": "0 1 2 3"}, 4),
        ({"GPUS": "0 1 2 3", "CUDA_VISIBLE_DEVICES": "1,3,0"}, 3),
        ({"GPUS": "0 1 2 3", "CUDA_VISIBLE_DEVICES": ""}, 2),
        ({"GPUS": "0 1 2 3", "CUDA_VISIBLE_DEVICES": "-1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 2),
        ({"GPUS": "0 1 2 3", "NPROC": "1"}, 1),
    ],
)
def test_one_process_a_visible_gpu(project: Project, environment: dict[str, str], count: int) -> None:
    assert f"--nproc-per-node={count}" in project.dry("a.yaml", **environment)


def test_restarts_and_threads_are_the_callers(project: Project) -> None:
    command = project.dry("a.yaml", RESTARTS="3", OMP_NUM_THREADS="5")
    assert command[0] == "OMP_NUM_THREADS=5"
    assert "--max-restarts=3" in command


@pytest.mark.parametrize(("gpus", "config"), [("", "cpu"), ("0 1", "gpu")])
def test_accelerate(project: Project, gpus: str, config: str) -> None:
    command = project.dry("a.yaml", LAUNCHER="accelerate", GPUS=gpus)
    assert command[2:4] == ["-m", "accelerate.commands.launch"]
    assert command[command.index("--config_file") + 1].endswith(f"configs/accelerate/{config}.yaml")
    assert command[command.index("--num_processes") + 1] == "2"


def test_plain_python_is_one_process(project: Project) -> None:
    assert project.dry("a.yaml", LAUNCHER="python", GPUS="0 1")[2:] == ["-m", "dist_train", "a.yaml"]


def test_several_machines(project: Project) -> None:
    nodes = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "head", "NPROC": "4"}
    command = project.dry("a.yaml", **nodes)
    assert {"--nnodes=2", "--node-rank=1", "--master-addr=head", "--master-port=29500", "--nproc-per-node=4"} < set(
        command
    )
    assert "--standalone" not in command
    command = project.dry("a.yaml", LAUNCHER="accelerate", MASTER_PORT="7000", **nodes)
    for option, value in {
        "num_processes": "8",
        "num_machines": "2",
        "machine_rank": "1",
        "main_process_port": "7000",
    }.items():
        assert command[command.index(f"--{option}") + 1] == value


def test_elastic_machines_meet_at_the_first(project: Project) -> None:
    nodes = {"NNODES": "2:4", "MASTER_ADDR": "127.0.0.1"}
    command = project.dry("a.yaml", **nodes)
    assert {"--nnodes=2:4", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:29500", "--max-restarts=10"} < set(
        command
    )
    assert not any(word.startswith(("--node-rank", "--master", "--standalone")) for word in command)
    assert "--max-restarts=2" in project.dry("a.yaml", RESTARTS="2", **nodes)
    (host,) = (word for word in project.dry("a.yaml", NODE_RANK="0", **nodes) if word.startswith("--rdzv-conf="))
    (guest,) = (word for word in project.dry("a.yaml", NODE_RANK="1", **nodes) if word.startswith("--rdzv-conf="))
    assert host.endswith("is_host=1") and guest.endswith("is_host=0")


def test_an_elastic_machine_tells_its_address_on_the_way_to_the_first(project: Project) -> None:
    (project.home / "bin/python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (project.home / "dist_train").mkdir()
    (project.home / "dist_train/__init__.py").touch()
    ours = {"PYTHONPATH": str(project.home), "NNODES": "2:3"}
    command = project.dry("a.yaml", MASTER_ADDR="127.0.0.1", **ours)
    assert "--local-addr=127.0.0.1" in command
    assert next(word for word in command if word.startswith("--rdzv-conf=")).endswith("is_host=1")
    code, out, err = project.run("a.yaml", MASTER_ADDR="no.such.machine.invalid", **ours)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "MASTER_ADDR=no.such.machine.invalid" in err
    # what is wrong with the configuration ends it before it meets the others, and once only
    (project.home / "dist_train/__main__.py").write_text(
        "import sys\nsys.exit(print('error: a.yaml', file=sys.stderr) or 2)\n"
    )
    code, out, err = project.run("a.yaml", MASTER_ADDR="127.0.0.1", **ours)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: a.yaml")


SLURM = {
    **{"SLURM_JOB_ID": "70123", "SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "node[7-8]"},
    **{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_RESTART_COUNT": "3"},
}


def test_slurm(project: Project) -> None:
    (project.home / "bin/scontrol").write_text('#!/bin/sh\necho "$3" > "$LOG.nodes"; echo node7; echo node8\n')
    (project.home / "bin/scontrol").chmod(0o755)
    command = project.dry("a.yaml", **SLURM)
    endpoint = f"--rdzv-endpoint=node7:{20000 + 70123 % 20000}"
    assert {"--nnodes=2", "--rdzv-backend=c10d", endpoint, "--rdzv-id=70123.3", "--max-restarts=0"} < set(command)
    assert Path(f"{project.log}.nodes").read_text() == "node[7-8]\n"
    assert "--max-restarts=4" in project.dry("a.yaml", RESTARTS="4", **SLURM)
    command = project.dry("a.yaml", LAUNCHER="accelerate", **SLURM)
    assert command[command.index("--main_process_ip") + 1] == "node7"
    assert command[command.index("--machine_rank") + 1] == "1"
    assert "--standalone" in project.dry("a.yaml", SLURM_JOB_ID="5", SLURM_NNODES="1")


def test_kubeflow_trainers_variables_are_left_to_torchrun(project: Project) -> None:
    pod = {
        **{"PET_NNODES": "2", "PET_NPROC_PER_NODE": "8", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "x-node-0-0.x"},
        **{"PET_MASTER_PORT": "29500", "SLURM_JOB_ID": "5"},
    }
    assert project.dry("a.yaml", **pod)[2:] == ["-m", "torch.distributed.run", "-m", "dist_train", "a.yaml"]
    assert "--nproc-per-node=3" in project.dry("a.yaml", NPROC="3", **pod)
    assert "--max-restarts=1" in project.dry("a.yaml", RESTARTS="1", **pod)


def test_skypilot(project: Project) -> None:
    sky = {
        **{"SKYPILOT_NUM_NODES": "3", "SKYPILOT_NODE_RANK": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "4"},
        "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5\n10.0.0.6",
    }
    command = project.dry("a.yaml", GPUS="0 1 2 3", **sky)
    assert {"--nnodes=3", "--node-rank=2", "--master-addr=10.0.0.4", "--nproc-per-node=4"} < set(command)


def test_what_is_only_printed_is_printed_once(project: Project) -> None:
    assert project.run("a.yaml", "--print-folder", NNODES="2:3", MASTER_ADDR="x")[0] == 0
    assert project.log.read_text().splitlines()[-1] == "-m dist_train a.yaml --print-folder"


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"NNODES": "3:2", "MASTER_ADDR": "head"}, "NNODES=3:2"),
        ({"NNODES": "2:", "MASTER_ADDR": "head"}, "NNODES=2:"),
        ({"NNODES": "2:3"}, "MASTER_ADDR"),
        ({"NNODES": "2:3", "MASTER_ADDR": "head", "LAUNCHER": "accelerate"}, "LAUNCHER=accelerate"),
        ({"PET_NNODES": "2", "LAUNCHER": "accelerate"}, "LAUNCHER=accelerate"),
        (SLURM | {"SLURM_STEP_ID": "", "SLURM_STEP_NUM_TASKS": ""}, "srun --ntasks-per-node=1"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "8"}, "srun --ntasks-per-node=1"),
        ({"LAUNCHER": "mpirun"}, "LAUNCHER=mpirun"),
        ({"NPROC": "two"}, "NPROC=two"),
        ({"NNODES": "2"}, "NODE_RANK"),
        ({"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "head", "RESTARTS": "1"}, "RESTARTS"),
        ({"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "head", "LAUNCHER": "python"}, "LAUNCHER=python"),
    ],
)
def test_a_wrong_setting_is_one_line_and_installs_nothing(
    project: Project, environment: dict[str, str], named: str
) -> None:
    code, out, err = project.run("a.yaml", **environment)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert named in err
    assert project.installs == 0


def test_no_python_is_one_line(project: Project) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python"):
        (project.home / "bin" / name).write_text("#!/bin/sh\nexit 1\n")
        (project.home / "bin" / name).chmod(0o755)
    code, _, err = project.run("a.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert "PYTHON=" in err


def test_help_names_every_variable(project: Project) -> None:
    code, out, _ = project.run("--help")
    assert code == 0
    assert all(
        name in out for name in ("NPROC", "LAUNCHER", "RESTARTS", "VENV", "PYTHON", "DRY", "NNODES", "MASTER_ADDR")
    )


def test_installs_once_and_again_when_pyproject_changes(project: Project) -> None:
    assert project.run("a.yaml")[0] == 0
    assert project.run("a.yaml")[0] == 0
    assert (project.installs, project.count("-m venv")) == (1, 1)
    with (project.home / "pyproject.toml").open("a") as file:
        file.write("# another dependency\n")
    assert project.run("a.yaml")[0] == 0
    assert (project.installs, project.count("-m venv")) == (2, 1)


def test_tests_need_more_and_serve_training_too(project: Project) -> None:
    project.run("a.yaml")
    assert project.run("test", "tests/test_x.py", "-k", "a b")[0] == 0
    assert project.count(f"-m pip install -qq --no-input --disable-pip-version-check -e {project.home}[test]") == 1
    assert project.count("-m pytest tests/test_x.py -k a b") == 1
    project.run("a.yaml")
    assert project.installs == 2


def test_a_failed_installation_is_said_and_tried_again(project: Project) -> None:
    code, out, err = project.run("a.yaml", PIP="fail")
    assert (code, out) == (2, "")
    assert "the installation failed" in err
    assert project.run("a.yaml")[0] == 0
    assert (project.installs, project.count("-m venv")) == (2, 1)


def test_an_environment_torn_by_a_kill_is_made_anew(project: Project) -> None:
    process = project.start("a.yaml", PIP="hang")
    project.wait_for("pip")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert project.run("a.yaml")[0] == 0
    assert (project.installs, project.count("-m venv --clear")) == (2, 2)


def test_two_at_once_install_once(project: Project) -> None:
    both = [project.start("a.yaml", PIP="slow") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    assert (project.installs, project.count("-m torch.distributed.run")) == (1, 2)


def test_a_folder_that_is_no_environment_is_left_alone(project: Project) -> None:
    (project.home / "mine").mkdir()
    (project.home / "mine/thesis.txt").write_text("dear")
    code, _, err = project.run("a.yaml", VENV=str(project.home / "mine"))
    assert code == 2
    assert "is not a virtual environment" in err
    assert [path.name for path in (project.home / "mine").iterdir()] == ["thesis.txt"]


def test_a_signal_reaches_the_run_and_its_exit_code_the_caller(project: Project) -> None:
    process = project.start("wait")
    project.wait_for("started")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 7


@pytest.mark.parametrize("ours", [True, False])
def test_an_active_environment_is_used_if_it_holds_this_checkout(project: Project, ours: bool) -> None:
    (project.home / "bin/python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (project.home / "dist_train").mkdir()
    (project.home / "dist_train/__init__.py").touch()
    python = project.dry("a.yaml", PYTHONPATH=str(project.home if ours else ROOT))[1]
    assert python == str(project.home / ("bin/python3" if ours else ".venv/bin/python"))

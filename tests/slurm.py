"""A Slurm cluster on the machines of tests/hosts.py: munge, a controller, two daemons; no cgroups, no accounting."""

import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import hosts

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONF = """ClusterName=tests
SlurmctldHost={head}({address})
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=30
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


def absent() -> str:
    """Why there can be none here; empty where there can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=hosts.environment()["PATH"]) is None]
    return f"not installed: {', '.join(missing)} (slurm-wlm, munge)" if missing else hosts.absent()


class Slurm:
    """Two machines under Slurm; commands run on the first."""

    def __init__(self, home: Path) -> None:
        self.home, self.hurried = home, set[tuple[str, str]]()
        self.hosts = hosts.Hosts(2, home)
        self.environment = hosts.environment() | {"SLURM_CONF": f"{home}/slurm.conf"}
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def run(self, *command: str, seconds: float = 60) -> str:
        """Standard output of a command on the first machine."""
        name = self.hosts.names[0]
        done = subprocess.run(
            ["ip", "netns", "exec", name, *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *words: str) -> str:
        """Number of a job."""
        return self.run("sbatch", "--parsable", *words).strip()

    def facts(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says, by name."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def hurry(self, job: str) -> None:
        """A requeued job waits two minutes for its machines to be clean; here 10 s."""
        facts = self.facts(job)
        if facts["Reason"] == "BeginTime" and (start := (job, facts["Restarts"])) not in self.hurried:
            self.hurried.add(
                start
            )  # at once would be too soon: a daemon takes it for the start that it has just killed
            self.run("scontrol", "update", f"JobId={job}", "StartTime=now+10")

    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in sorted(self.home.glob("*.log")))

    def close(self) -> None:
        self.hosts.close()

    def _start(self) -> None:
        names = self.hosts.names
        nodes = "\n".join(f"NodeName={n} NodeAddr={self.hosts.address(i)} CPUs=2" for i, n in enumerate(names))
        conf = CONF.format(head=names[0], address=self.hosts.address(0), home=self.home, nodes=nodes)
        (self.home / "slurm.conf").write_text(conf)
        (self.home / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\n"
        )  # the one that wants nothing until it is used
        (self.home / "munge.key").write_bytes(secrets.token_bytes(128))
        (self.home / "munge.key").chmod(0o600)
        (self.home / "state").mkdir()
        files = {"key-file": "munge.key", "log-file": "munge.log", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        options = [f"--{option}={self.home / name}" for option, name in files.items()]
        self._serve(0, "munged", "--foreground", "--force", f"--socket={self.home}/munge.socket", *options)
        _until((self.home / "munge.socket").exists, self.log)
        self._serve(0, "slurmctld", "-D")
        for number, name in enumerate(names):
            (self.home / f"spool-{name}").mkdir()
            self._serve(number, "slurmd", "-D", "-N", name)
        _until(self._idle, self.log)

    def _idle(self) -> bool:
        done = subprocess.run(
            ["ip", "netns", "exec", self.hosts.names[0], "sinfo", "-h", "-t", "idle", "-o", "%D"],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip() == "2"

    def _serve(self, number: int, *command: str) -> None:
        self.hosts.start(number, list(command), self.environment, self.home / f"{command[0]}-{number}.log")


def _until(happened: Callable[[], bool], log: Callable[[], str]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, log()
        time.sleep(0.2)

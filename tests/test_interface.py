"""The interface that leads to another machine, as gloo is told."""

import socket
import subprocess
import sys
from pathlib import Path

import hosts
import pytest

from dist_train.hosts import interface

LOOK = "import sys; from dist_train import interface; print(interface.toward(sys.argv[1], 29500))"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell")
def test_the_loopback_leads_to_the_loopback() -> None:
    names = {name for _, name in socket.if_nameindex()}
    assert interface.toward("127.0.0.1", 29500) in names
    assert interface.toward("127.0.0.1", 29500) == interface.toward("localhost", 29500)


def test_no_way_is_no_interface() -> None:
    assert interface.toward("no.such.machine.invalid", 29500) is None


@pytest.mark.cluster
def test_between_machines_it_is_never_the_loopback(tmp_path: Path, environment: dict[str, str]) -> None:
    if why := hosts.absent():
        pytest.skip(why)
    machines = hosts.Hosts(2, tmp_path)
    try:
        # its own name is an address of the loopback (as Debian installs it), its neighbour's is not
        for number, host in enumerate(("dt0", machines.address(0), "dt1", machines.address(1))):
            output = tmp_path / f"output-{number}.txt"
            process = machines.start(0, [sys.executable, "-c", LOOK, host], environment, output)
            process.wait(60)
            assert output.read_text().strip() == "eth0", host
        plain = subprocess.run(
            [sys.executable, "-c", LOOK, "127.0.0.1"], env=environment, capture_output=True, text=True
        )
        assert plain.stdout.strip() == "lo"
    finally:
        machines.close()

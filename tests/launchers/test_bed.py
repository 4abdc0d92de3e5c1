"""The bed itself: hosts that see each other and nothing else, and nothing left behind."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from .bed import HEAD, NODES, ROOT, Bed, wait_until
from .conftest import obstacle

pytestmark = pytest.mark.launchers


def leftovers(bed: str) -> list[str]:
    """Return what still bears the mark of a bed: processes, mounts, links, and its folder."""
    found = [f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines() if bed in line]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it may have ended meanwhile
            found += [f"process {path}"] if bed in path.read_text(errors="replace") else []
    return found + [name for name in os.listdir("/sys/class/net") if name.startswith(("veth1", "br0"))]


@pytest.fixture
def possible() -> None:
    """Skip, or in CI fail, where there can be no bed."""
    reason = obstacle()
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.mark.usefixtures("possible")
def test_hosts_have_names_and_addresses_and_a_private_tmp(tmp_path: Path) -> None:
    with Bed() as bed:
        for name in (HEAD, *NODES):
            assert bed.run(name, ["hostname"]).out == f"{name}\n"
            assert bed.run(name, ["getent", "hosts", HEAD]).out.split()[0] == bed.hosts[HEAD].address
        assert bed.run(HEAD, [bed.ssh(), "gpu-b07", "hostname"]).out == "gpu-b07\n"
        assert tmp_path.exists()
        assert bed.run(HEAD, ["ls", tmp_path]).code != 0
        assert bed.run(HEAD, ["false"]).code == 1


@pytest.mark.usefixtures("possible")
def test_nothing_is_left_behind_also_after_a_failure() -> None:
    folders: list[str] = []

    def fail() -> None:
        with Bed() as bed:
            folders.append(str(bed.folder))
            bed.start("gpu-a01", ["sleep", "1000"])
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert leftovers(folders[0]) == []
    assert not Path(folders[0]).exists()


@pytest.mark.usefixtures("possible")
def test_a_bed_whose_owner_is_killed_takes_its_processes_along() -> None:
    program = "from tests.launchers.bed import Bed\nwith Bed() as bed:\n    print(bed.folder, flush=True)\n    input()"
    command = [sys.executable, "-c", program]
    owner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder = owner.stdout.readline().strip()
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    wait_until(lambda: leftovers(folder) == [], "all processes of the killed bed end")
    subprocess.run(["rm", "-r", folder], check=True)

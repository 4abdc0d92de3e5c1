"""The bed itself: hosts that see each other and nothing else, and nothing left behind."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import obstacle
from .testbed import HEAD, NODES, ROOT, Bed, sweep, wait_until

pytestmark = pytest.mark.launchers


KINDS = ("net", "uts", "mnt", "pid_for_children")


def namespaces(process: Path) -> set[str]:
    """Return the namespaces of a process, or nothing where it has ended."""
    with suppress(OSError):
        return {os.readlink(process / "ns" / kind) for kind in KINDS}
    return set()


def made(bed: Bed) -> set[str]:
    """Return the namespaces that a bed has made: those of its hosts which are not ours."""
    holders = [Path(f"/proc/{host.holder}") for host in bed.hosts.values()]
    return set[str]().union(*map(namespaces, holders)) - namespaces(Path("/proc/self"))


def leftovers(made: set[str], folder: str) -> list[str]:
    """Return what is left of a bed: processes in its namespaces, mounts, and links."""
    found = [f"process {path.name}" for path in Path("/proc").glob("[0-9]*") if namespaces(path) & made]
    found += [f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines() if folder in line]
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
    bed = Bed()
    spaces: set[str] = set()

    def fail() -> None:
        with bed:
            spaces.update(made(bed))
            bed.start("gpu-a01", ["sleep", "1000"])
            assert len(leftovers(spaces, str(bed.folder))) > len(bed.hosts)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert leftovers(spaces, str(bed.folder)) == []
    assert not bed.folder.exists()


OWNER = """
import signal
from tests.launchers.__main__ import terminable
from tests.launchers.testbed import Bed
from tests.launchers.test_testbed import made
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
with terminable(), Bed() as bed:
    print(bed.folder, *made(bed), flush=True)
    input()
"""


@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_bed_ends_with_its_owner_and_what_a_killed_one_left_goes_with_the_next(number: signal.Signals) -> None:
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        folder, *spaces = owner.stdout.readline().split()
        assert leftovers(set(spaces), folder)
        owner.send_signal(number)
        owner.wait(30)
        assert Path(folder).exists() == (number == signal.SIGKILL)
    wait_until(lambda: leftovers(set(spaces), folder) == [], "all processes of the bed end")
    sweep()
    assert not Path(folder).exists()


@pytest.mark.usefixtures("possible")
def test_two_beds_at_once_do_not_meet() -> None:
    with Bed() as one, Bed() as other:
        assert not made(one) & made(other)
        assert one.run("gpu-a01", ["touch", "/tmp/mine"]).code == 0
        assert other.run("gpu-a01", ["test", "-e", "/tmp/mine"]).code == 1
        assert one.folder.exists()

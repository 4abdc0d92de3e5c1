"""Where plain torch starts, ranks start here: names and addresses of rank 0 that lead elsewhere on each host."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.pace import pace

from .testbed import ROOT, Bed

pytestmark = pytest.mark.launchers

FIRST, SECOND, THIRD = "gpu-a01", "gpu-a02", "gpu-b07"
PROGRAM = ROOT / "tests/programs/ranks.py"
LOCALHOST = "127.0.0.1 localhost\n::1 localhost\n"


@attrs.frozen
class Ranks:
    """One process on each place, which joins one world after the other."""

    bed: Bed
    folder: Path
    processes: "dict[str, subprocess.Popen[str]]"

    def join(self, tasks: Mapping[str, tuple[str, Mapping[str, str]]], timeout: float = 60) -> list[dict[str, Any]]:
        """Have a world's ranks join, each with a text of /etc/hosts and variables; return what each says, by rank."""
        for rank, (place, (hosts, variables)) in enumerate(tasks.items()):
            (self.folder / place).write_text(hosts)
            said = {"WORLD_SIZE": str(len(tasks)), "RANK": str(rank), **variables}
            task = {"timeout": timeout * pace(), "variables": said}
            stdin = self.processes[place].stdin
            assert stdin is not None
            stdin.write(json.dumps(task) + "\n")
            stdin.flush()
        return [self._said(place) for place in tasks]

    def _said(self, place: str) -> dict[str, Any]:
        stdout = self.processes[place].stdout
        assert stdout is not None
        line = stdout.readline()
        assert line, f"the process on {place} ended: {self.processes[place].communicate()[1]}"
        return dict(json.loads(line))


@pytest.fixture(scope="module")
def ranks(bed: Bed) -> Iterator[Ranks]:
    """Start one process on each of two hosts, and a second one on the first."""
    folder = bed.folder / "names"
    folder.mkdir()
    settings = {"PYTHONPATH": str(ROOT)}
    places = {FIRST: FIRST, SECOND: SECOND, f"{FIRST} again": FIRST}
    for place in places:
        (folder / place).write_text("")
    mounted = 'mount --bind "$0" /etc/hosts && exec "$@"'
    processes = {
        place: subprocess.Popen(
            bed.command(host, ["unshare", "-m", "sh", "-c", mounted, folder / place, sys.executable, PROGRAM], 280),
            env=bed.environment(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place, host in places.items()
    }
    try:
        yield Ranks(bed, folder, processes)
    finally:
        for process in processes.values():
            process.communicate(timeout=30)


def address(bed: Bed, host: str) -> str:
    return bed.hosts[host].address


def debian(bed: Bed, own: str, *others: str) -> str:
    """Return /etc/hosts as Debian's installer writes it: the host's own name is 127.0.1.1."""
    lines = [f"127.0.1.1 {own}\n", *(f"{address(bed, host)} {host}\n" for host in others)]
    return LOCALHOST + "".join(lines)


def assert_all_sum(said: list[dict[str, Any]]) -> None:
    """Hold what the ranks say against a world of theirs."""
    size = len(said)
    assert [one.get("sum") for one in said] == [size * (size + 1) / 2] * size, said


def test_rank_0_is_told_localhost_and_the_others_its_name(ranks: Ranks) -> None:
    """As the master pod of a PyTorchJob."""
    names = debian(ranks.bed, THIRD, FIRST, SECOND)
    port = {"MASTER_PORT": "23401"}
    world = {
        FIRST: (names, {"MASTER_ADDR": "localhost", **port}),
        SECOND: (names, {"MASTER_ADDR": FIRST, **port}),
    }
    assert_all_sum(ranks.join(world))


@pytest.mark.parametrize("by", ["name", "address"])
def test_a_hosts_own_name_leads_to_loopback(ranks: Ranks, by: str) -> None:
    """As on Debian and Ubuntu: rank 0 is reached all the same, and gloo publishes an address that others reach."""
    master = FIRST if by == "name" else address(ranks.bed, FIRST)
    told = {"MASTER_ADDR": master, "MASTER_PORT": "23402"}
    first, second = debian(ranks.bed, FIRST, SECOND), debian(ranks.bed, SECOND, FIRST)
    assert_all_sum(ranks.join({FIRST: (first, told), SECOND: (second, told)}))
    again = {FIRST: (first, told), f"{FIRST} again": (first, told), SECOND: (second, told)}
    assert_all_sum(ranks.join(again))


def test_the_user_names_the_interface_himself_and_is_told_what_it_leads_to(ranks: Ranks) -> None:
    told = {"MASTER_ADDR": address(ranks.bed, FIRST), "MASTER_PORT": "23403", "GLOO_SOCKET_IFNAME": "lo"}
    names = debian(ranks.bed, THIRD, FIRST, SECOND)
    said = ranks.join({FIRST: (names, told), SECOND: (names, told)}, timeout=5)
    for one in said:
        assert "a rank published 127.0.0.1" in one["text"], said
        assert "GLOO_SOCKET_IFNAME is 'lo'" in one["text"], said


def test_a_name_leads_each_rank_to_another_address_of_rank_0s_host(ranks: Ranks) -> None:
    other = "10.77.0.112"
    ranks.bed.run(FIRST, ["ip", "address", "add", f"{other}/24", "dev", "eth0"])
    told = {"MASTER_ADDR": "head", "MASTER_PORT": "23404"}
    first = f"{debian(ranks.bed, THIRD, FIRST, SECOND)}{address(ranks.bed, FIRST)} head\n"
    second = f"{debian(ranks.bed, THIRD, FIRST, SECOND)}198.51.100.7 head\n{other} head\n"
    assert_all_sum(ranks.join({FIRST: (first, told), SECOND: (second, told)}))


def test_a_name_has_addresses_of_both_families_and_a_rank_reaches_one(ranks: Ranks) -> None:
    told = {"MASTER_ADDR": "head", "MASTER_PORT": "23405"}
    names = debian(ranks.bed, THIRD, FIRST, SECOND)
    ranks.bed.run(FIRST, ["ip", "address", "add", "fd00::12/64", "dev", "eth0", "nodad"])
    world = {
        FIRST: (f"{names}fd00::12 head\n", told),
        SECOND: (f"{names}{address(ranks.bed, FIRST)} head\n", told),
    }
    assert_all_sum(ranks.join(world))


FORWARDER = """
import os, socket, sys, threading
def pump(one, other):
    try:
        while some := one.recv(65536):
            other.sendall(some)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass
listener = socket.create_server(("", int(sys.argv[2])))
print("up", os.getpid(), flush=True)
while True:
    one, _ = listener.accept()
    try:
        other = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    except OSError:
        one.close()
        continue
    for pair in ((one, other), (other, one)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def test_the_address_is_a_forwarders_in_front_of_rank_0(ranks: Ranks) -> None:
    """As a Kubernetes Service or a NAT: rank 0 has no such address, and a connection to it comes back to rank 0."""
    bed, port = ranks.bed, "23406"
    forwarder = bed.start(THIRD, [sys.executable, "-c", FORWARDER, address(bed, FIRST), port])
    assert forwarder.stdout is not None
    up, pid = forwarder.stdout.readline().split()
    assert up == "up"
    told = {"MASTER_ADDR": address(bed, THIRD), "MASTER_PORT": port}
    names = debian(bed, "nobody", FIRST, SECOND, THIRD)
    try:
        assert_all_sum(ranks.join({FIRST: (names, told), SECOND: (names, told)}))
    finally:
        bed.run(THIRD, ["kill", pid])
        forwarder.communicate()


def test_an_address_of_another_host_is_refused_with_one_that_helps(ranks: Ranks) -> None:
    told = {"MASTER_ADDR": THIRD, "MASTER_PORT": "23407"}
    names = debian(ranks.bed, FIRST, SECOND, THIRD)
    first, second = ranks.join({FIRST: (names, told), SECOND: (names, told)}, timeout=4)
    assert first["error"] == "NotMyAddress"
    assert f"export MASTER_ADDR={address(ranks.bed, FIRST)} on every rank" in first["text"]
    assert second["error"] == "RankZeroUnreachable"
    helped = {**told, "MASTER_ADDR": address(ranks.bed, FIRST)}
    assert_all_sum(ranks.join({FIRST: (names, helped), SECOND: (names, helped)}))


def test_ranks_that_all_are_told_localhost_learn_that_it_leads_each_to_its_own_host(ranks: Ranks) -> None:
    told = {"MASTER_ADDR": "localhost", "MASTER_PORT": "23408"}
    names = debian(ranks.bed, THIRD, FIRST, SECOND)
    first, second = ranks.join({FIRST: (names, told), SECOND: (names, told)}, timeout=3)
    assert (first["error"], second["error"]) == ("MissingRanks", "RankZeroUnreachable")
    for one in (first, second):
        assert "'localhost'" in one["text"], one
        assert "leads each host to itself" in one["text"], one
    assert f"export MASTER_ADDR={address(ranks.bed, FIRST)}" in first["text"]

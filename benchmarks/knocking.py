"""How often ranks knock at rank 0's port before it listens, what that costs its host, and when the last one is in.

python -m benchmarks.knocking RANKS [--seconds 60] [--importing 0]
"""

import argparse
import gc
import heapq
import json
import multiprocessing
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from benchmarks.measure import ROOT, Figure, Finding
from colossalai_env._rendezvous import rendezvous
from colossalai_env._rendezvous.finder import StoreFinder
from colossalai_env._rendezvous.listener import BACKLOG
from colossalai_env._rendezvous.tcp_store import PING, PONG, VALIDATE
from colossalai_env._rendezvous.torch_store import import_torch, serve

QUESTION = "knocking"

SIZES: Mapping[int, float] = {1024: 10.0, 4096: 10.0, 16384: 60.0}
"""Ranks, and the seconds for which they wait."""

PROCESSES = 4
"""Which play the ranks: each holds two or three files a rank."""

NODE = 8
"""Ranks of a node."""


class CountingFinder(StoreFinder):
    """Looks for a store, and counts how often it knocks."""

    knocks = 0

    def _connect(self, probe: Any) -> None:
        CountingFinder.knocks += 1
        super()._connect(probe)

    def look_now(self) -> object:
        """Do what is due now."""
        self._until = float("inf")
        return self.look(0.0)

    @property
    def due(self) -> float:
        """When there is something to do next, if nothing comes."""
        return min(probe.due if probe.connection is None else probe.overdue for probe in self._probes)


def finder(target: tuple[str, int], rank: int, size: int) -> CountingFinder:
    """Return what a rank looks with; the nodes of this machine are told apart by the job."""
    job = f"7.0 on node {rank // NODE}"
    slowest = min(rendezvous.SLOWEST, 0.02 * (1 + size / 128))
    return CountingFinder([target], slowest, job, crowd=size >= rendezvous.CROWD)


@attrs.define
class Followers:
    """The ranks that wait for another of their node, played by plain sockets once that has found the store.

    As finders they would take 200 µs each of the cores that rank 0 has here; real ones have cores of their own.
    """

    target: tuple[str, int]
    poll: select.epoll
    waiting: dict[int, int] = attrs.field(factory=dict[int, int])
    """How many, by their nodes."""
    asking: dict[int, socket.socket] = attrs.field(factory=dict[int, socket.socket])
    answered: list[socket.socket] = attrs.field(factory=list[socket.socket])

    due: list[float] = attrs.field(factory=list[float])
    """When some of them connect."""

    def go(self, node: int) -> None:
        """Let those of a node connect next."""
        for _ in range(self.waiting.pop(node, 0)):
            heapq.heappush(self.due, time.monotonic())

    def connect(self) -> None:
        """Let those connect whose time it is."""
        while self.due and self.due[0] <= time.monotonic():
            heapq.heappop(self.due)
            one = socket.socket()
            one.setblocking(False)  # noqa: FBT003 - the socket's own spelling
            one.connect_ex(self.target)
            self.asking[one.fileno()] = one
            self.poll.register(one, select.EPOLLOUT)

    def go_on(self, file: int, event: int) -> None:
        """Take the next step of one, which comes again where rank 0's host breaks off."""
        one = self.asking[file]
        with suppress(OSError):
            if event == select.EPOLLOUT:
                one.send(VALIDATE + PING)
                self.poll.modify(file, select.EPOLLIN)
                return
            if one.recv(len(PONG)) == PONG:
                self.poll.unregister(file)
                self.answered.append(self.asking.pop(file))
                return
        self.asking.pop(file).close()
        heapq.heappush(self.due, time.monotonic())


def knock(  # noqa: C901, PLR0912, PLR0915 - one loop in which thousands take their turns
    target: tuple[str, int], ranks: Sequence[int], size: int, seconds: float, gate: Any, told: Any
) -> None:
    """Let some ranks look for the store until all have found it; tell how often they knocked in the seconds."""
    os.nice(10)  # real ranks do not take rank 0's core
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    finders = [finder(target, rank, size) for rank in ranks]
    poll = select.epoll()
    numbers = {one._selector.fileno(): number for number, one in enumerate(finders)}  # pyright: ignore[reportAttributeAccessIssue]
    for file in numbers:
        poll.register(file, select.EPOLLIN)
    followers = Followers(target, poll)
    gc.disable()
    gate.wait()
    began = time.monotonic()
    due = [(began + 2.0 * number / len(finders), number) for number in range(len(finders))]  # started within 2 s
    left = len(finders)
    kept: list[socket.socket | None] = []
    knocks = cpu = last_cpu = 0.0
    counted = counting = False
    while left or followers.waiting or followers.due or followers.asking:
        now = time.monotonic()
        if not counting and now > began + 4.0:  # each rank's first tries follow each other fast
            counting, knocks, cpu = True, CountingFinder.knocks, time.process_time()
        if not counted and now > began + 4.0 + seconds:
            counted, knocks, cpu = True, CountingFinder.knocks - knocks, time.process_time() - cpu
            for file, number in list(numbers.items()):
                if finders[number]._gate.ahead is not None:
                    followers.waiting[number // NODE] = followers.waiting.get(number // NODE, 0) + 1
                    poll.unregister(file)
                    del numbers[file]
            left = len(numbers)
            due = [(when, number) for when, number in due if finders[number]._gate.ahead is None]
            heapq.heapify(due)
            gate.wait()
            last_cpu = time.process_time()
        followers.connect()
        ready: list[int] = []
        for file, event in poll.poll(
            max(0.0, min([now + 0.05, *(when for when, _ in due[:1]), *followers.due[:1]]) - now), 512
        ):
            if file in numbers:
                ready.append(numbers[file])
            else:
                followers.go_on(file, event)
        while due and due[0][0] <= now:
            ready.append(heapq.heappop(due)[1])
        for number in ready:
            one = finders[number]
            file = one._selector.fileno()  # pyright: ignore[reportAttributeAccessIssue]
            if file not in numbers:
                continue
            if one.look_now() is not None:
                left -= 1
                del numbers[file]
                poll.unregister(file)
                kept.append(one.taken())  # and goes on over it
                followers.go(number // NODE)
            elif one.due < float("inf"):
                heapq.heappush(due, (max(one.due, now + 0.001), number))
    told.put((knocks, cpu, time.process_time() - last_cpu, time.monotonic()))
    gate.wait()


@attrs.frozen
class Cost:
    """What ranks that wait for rank 0 cost."""

    knocks: float
    """A second, of all ranks."""
    cpu: float
    """Microseconds of a knock, of both hosts and of the simulation."""
    refused: float
    """Microseconds of a connection that is refused, of both hosts, in a bare loop."""
    last: float
    """Seconds from the moment when rank 0 listened until the last rank was answered."""
    leader_cpu: float
    """Seconds of the process that serves the store, meanwhile."""
    clients_cpu: float
    """Seconds of the simulation, meanwhile."""
    queue: int
    """Connections that waited at most to be accepted, looked at every few milliseconds."""
    left_out: int
    """Connections that found that queue full."""


def refused(target: tuple[str, int], count: int = 5000) -> float:
    """Return the CPU time of a connection that is refused, in microseconds, with what its socket takes."""
    began = time.process_time()
    for _ in range(count):
        with socket.socket() as one:
            one.connect_ex(target)
    return 1e6 * (time.process_time() - began) / count


def left_out() -> int:
    """Return how many connections have found a full queue or a full backlog, in this network namespace."""
    with open("/proc/net/netstat", encoding="ascii") as file:
        names, values = (line.split() for line in file if line.startswith("TcpExt:"))
    counters = dict(zip(names, values, strict=True))
    return sum(int(counters[name]) for name in ("ListenDrops", "TCPReqQFullDrop", "TCPReqQFullDoCookies"))


@attrs.define
class Queue:
    """How many connections wait to be accepted: looks until it is told to end."""

    listener: socket.socket
    most: int = 0
    ended: threading.Event = attrs.field(factory=threading.Event)

    def watch(self) -> None:
        """Look every few milliseconds."""
        while not self.ended.wait(0.005):
            said = self.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
            self.most = max(self.most, struct.unpack_from("=I", said, 24)[0])  # tcpi_unacked, of a socket that listens


def measured(size: int, seconds: float, importing: float) -> Cost:
    """Let ranks wait for some seconds, then listen, and serve the store when torch would be imported."""
    import_torch().result()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    target = listener.getsockname()
    bare = refused(target)
    spawn = multiprocessing.get_context("spawn")
    gate, results = spawn.Barrier(PROCESSES + 1, timeout=seconds + 60), spawn.Queue()
    nodes = range(0, size, NODE)
    shares = [
        [rank for node in nodes[share::PROCESSES] for rank in range(node, node + NODE)] for share in range(PROCESSES)
    ]
    played = [
        spawn.Process(target=knock, args=(target, share, size, seconds, gate, results), daemon=True) for share in shares
    ]
    for process in played:
        process.start()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gate.wait()
    gate.wait()
    before, cpu = left_out(), time.process_time()
    queue = Queue(listener.dup())
    watching = threading.Thread(target=queue.watch)
    began = time.monotonic()
    listener.listen(BACKLOG)
    watching.start()
    time.sleep(importing)
    store = serve(listener, target, 300).result()
    told = [results.get(timeout=60) for _ in played]
    took = time.process_time() - cpu
    queue.ended.set()
    watching.join()
    knocks = sum(number for number, _, _, _ in told)
    cost = Cost(
        knocks / seconds,
        1e6 * sum(waiting for _, waiting, _, _ in told) / knocks,
        bare,
        max(last for _, _, _, last in told) - began,
        took,
        sum(last for _, _, last, _ in told),
        queue.most,
        left_out() - before,
    )
    gate.wait()
    for process in played:
        process.join()
    del store
    return cost


OWN = 'ip link set lo up && echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range && exec "$0" "$@"'

ALONE = ("unshare", "--map-root-user", "--net", "sh", "-c", OWN)
"""Runs a command in a network namespace of its own, whose counters and ports are its own.

A host has some 28,000 ports to connect from, and looks through half of them for each connection where these are taken:
of thousands of hosts none comes near that.
"""


def measure(pairs: int) -> Iterator[Finding]:
    """Let worlds of several sizes wait, each once for as long as an image is pulled or torch imported."""
    del pairs
    for size, seconds in SIZES.items():
        command = [*ALONE, sys.executable, "-m", "benchmarks.knocking", str(size), "--seconds", str(seconds)]
        ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
        cost = Cost(**json.loads(ran.stdout))
        case = f"{size} ranks wait {seconds:.0f} s"
        most = 6000.0 if size == max(SIZES) else None
        yield Figure(QUESTION, case, "knocks a second", cost.knocks, most=most)
        yield Figure(QUESTION, case, "CPU of a knock, with the simulation's", cost.cpu, "µs")
        yield Figure(QUESTION, case, "CPU of a refused connection alone", cost.refused, "µs")
        yield Figure(QUESTION, case, "from listening until the last rank is answered", cost.last, "s", most=1.0)
        yield Figure(QUESTION, case, "CPU of rank 0 and its store meanwhile", cost.leader_cpu, "s")
        yield Figure(QUESTION, case, "CPU of the simulation meanwhile", cost.clients_cpu, "s")
        yield Figure(QUESTION, case, "longest queue", cost.queue)
        yield Figure(QUESTION, case, "connections that found it full", cost.left_out)


def main() -> None:
    """Measure once, and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.knocking", description=__doc__)
    parser.add_argument("ranks", type=int)
    parser.add_argument("--seconds", type=float, default=60.0, help="for which they wait (default %(default)s)")
    parser.add_argument("--importing", type=float, default=0.0, help="seconds from listening to serving the store")
    asked = parser.parse_args()
    print(json.dumps(attrs.asdict(measured(asked.ranks, asked.seconds, asked.importing))))


if __name__ == "__main__":
    main()

"""How often ranks knock at rank 0's port before it listens, what that costs, and when the last one is in.

python -m benchmarks.knocking RANKS [--seconds 60] [--importing 0]
"""

import argparse
import gc
import heapq
import json
import multiprocessing
import resource
import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from benchmarks.measure import Figure, Finding
from colossalai_env._rendezvous import rendezvous
from colossalai_env._rendezvous.finder import StoreFinder
from colossalai_env._rendezvous.listener import BACKLOG
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
        if not hasattr(rendezvous, "SLOWEST"):  # an earlier build, which this one is measured against
            return self.find(time.monotonic() + 1e-6)
        self._until = float("inf")
        return self.look(0.0)

    @property
    def due(self) -> float:
        """When there is something to do next, if nothing comes."""
        return min(
            probe.due if probe.connection is None else getattr(probe, "overdue", float("inf")) for probe in self._probes
        )


def finder(target: tuple[str, int], rank: int, size: int) -> CountingFinder:
    """Return what a rank looks with; the nodes of this machine are told apart by the job."""
    job = f"7.0 on node {rank // NODE}"
    if not hasattr(rendezvous, "SLOWEST"):
        return CountingFinder([target], min(1.0, 0.02 * (1 + size / 256)), job)
    slowest = min(rendezvous.SLOWEST, 0.02 * (1 + size / 128))
    return CountingFinder([target], slowest, job, crowd=size >= rendezvous.CROWD)


def knock(target: tuple[str, int], ranks: Sequence[int], size: int, seconds: float, gate: Any, told: Any) -> None:
    """Let some ranks look for the store until all have found it; tell how often they knocked in the seconds."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    finders = [finder(target, rank, size) for rank in ranks]
    poll = select.epoll()
    by_file = {one._selector.fileno(): one for one in finders}  # pyright: ignore[reportAttributeAccessIssue]
    for file in by_file:
        poll.register(file, select.EPOLLIN)
    gc.disable()
    gate.wait()
    began = time.monotonic()
    due = [(began + 2.0 * number / len(finders), number) for number in range(len(finders))]  # started within 2 s
    numbers = {id(one): number for number, one in enumerate(finders)}
    found: dict[int, float] = {}
    knocks = cpu = 0.0
    counted = counting = False
    while len(found) < len(finders):
        now = time.monotonic()
        if not counting and now > began + 4.0:  # each rank's first tries follow each other fast
            counting, knocks, cpu = True, CountingFinder.knocks, time.process_time()
        if not counted and now > began + 4.0 + seconds:
            counted, knocks, cpu = True, CountingFinder.knocks - knocks, time.process_time() - cpu
            gate.wait()
        ready = [by_file[file] for file, _ in poll.poll(min(0.05, max(0.0, due[0][0] - now)) if due else 0.05, 512)]
        while due and due[0][0] <= now:
            ready.append(finders[heapq.heappop(due)[1]])
        for one in ready:
            number = numbers[id(one)]
            if number in found:
                continue
            if one.look_now() is not None:
                found[number] = time.monotonic()
                poll.unregister(one._selector.fileno())  # pyright: ignore[reportAttributeAccessIssue]
                one.close()
            elif one.due < float("inf"):
                heapq.heappush(due, (max(one.due, now + 0.001), number))
    told.put((knocks, cpu, max(found.values())))


@attrs.frozen
class Cost:
    """What ranks that wait for rank 0 cost."""

    knocks: float
    """A second, of all ranks."""
    cpu: float
    """Microseconds of a knock, of both hosts and of the simulation."""
    last: float
    """Seconds from the moment when rank 0's store was served until the last rank was answered."""


def measured(size: int, seconds: float, importing: float) -> Cost:
    """Let ranks wait for some seconds, then listen, and serve the store when torch would be imported."""
    import_torch().result()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    target = listener.getsockname()
    spawn = multiprocessing.get_context("spawn")
    gate, results = spawn.Barrier(PROCESSES + 1), spawn.Queue()
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
    listener.listen(BACKLOG)
    time.sleep(importing)
    began = time.monotonic()
    store = serve(listener, target, 300).result()
    told = [results.get() for _ in played]
    knocks = sum(number for number, _, _ in told)
    cost = Cost(
        knocks / seconds, 1e6 * sum(cpu for _, cpu, _ in told) / knocks, max(last for _, _, last in told) - began
    )
    for process in played:
        process.join()
    del store
    return cost


def measure(pairs: int) -> Iterator[Finding]:
    """Let worlds of several sizes wait, each once for as long as an image is pulled or torch imported."""
    del pairs
    for size, seconds in SIZES.items():
        cost = measured(size, seconds, 0.0)
        case, largest = f"{size} ranks that wait for rank 0", size == max(SIZES)
        yield Figure(QUESTION, case, "knocks a second", cost.knocks, most=6000.0 if largest else None)
        yield Figure(QUESTION, case, "CPU of a knock, of both hosts and the simulation", cost.cpu, "µs")
        yield Figure(QUESTION, case, "until the last rank is answered", cost.last, "s", most=1.0)


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

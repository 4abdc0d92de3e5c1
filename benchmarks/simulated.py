"""Simulated ranks: many clients of one store, which speak as torch's TCPStore does; run alone, it plays one world.

python -m benchmarks.simulated PLAY RANKS [--late]
"""

import argparse
import gc
import json
import multiprocessing
import resource
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import attrs

from colossalai_env._rendezvous.listener import bind
from colossalai_env._rendezvous.protocol import requests as protocol_requests
from colossalai_env._rendezvous.protocol.keys import full
from colossalai_env._rendezvous.protocol.report import RankReport
from colossalai_env._rendezvous.protocol.requests import Add, Append, Await, Deadline, Post, Protocol, Read
from colossalai_env._rendezvous.protocol.roll_call import leader, member
from colossalai_env._rendezvous.store_client import StoreClient
from colossalai_env._rendezvous.tcp_store import (
    ADD,
    APPEND,
    GET,
    MULTI_SET,
    VALIDATE,
    WAIT,
    _key,
    _keys,
    _packed,
)
from colossalai_env._rendezvous.torch_store import serve

PROCESSES = 2
"""Which play the ranks, beside the one of rank 0 and its store."""

CONNECTIONS = 18_000
"""Clients of one store, at most: beyond, some ranks share a connection, since a process may open so many files."""

PREFIX = ""
"""What the keys of a launch begin with besides; in a real one its job and rank 0's process, some 50 bytes."""

TOGETHER: Any = getattr(protocol_requests, "Together", ())
"""What goes out in one message; an earlier build, which this one is measured against, had no such request."""

MULTI_GET = 10
BATCH = 200
"""Keys that gloo reads at once with its batched reads."""


def report(rank: int, world_size: int) -> RankReport:
    """Return a reply as a rank of a cluster would give it."""
    return RankReport(
        rank=rank, world_size=world_size, host=f"gpu-node-{rank // 8:05}.cluster.example", boot="0f3c2a71",
        pid=100000 + rank, backend="nccl", torch="2.13.0+cu130", resolver="slurm", local_rank=rank % 8,
        local_world_size=8, node_rank=rank // 8, num_nodes=-(-world_size // 8),
        devices=(f"GPU-8a7b{rank:04}-1234",), visible=1, kind="cuda", index=0,
    )  # fmt: skip


@attrs.frozen
class ReadAll:
    """Read keys that are there, in one request."""

    keys: tuple[str, ...]


Play = Callable[[int, int], Protocol[Any]]
"""What one client says, by its rank and the world's size."""


def roll_call(rank: int, size: int) -> Protocol[Any]:
    """Hold the roll call as a member."""
    return member(report(rank, size), "pid 1 on n0", Deadline(time.monotonic, time.monotonic(), 300))


def _address(rank: int, numbers: int = 0) -> str:
    """Return as many bytes as gloo's address of a rank has: name and socket, and 8 for each of its numbers."""
    return f"gpu-node-{rank // 8:05}.cluster.example".ljust(160 + 8 * numbers)


def one_by_one(rank: int, size: int) -> Protocol[None]:
    """Publish an address and read all, as gloo does: wait, and a get that waits once more."""
    yield Post({f"gloo/{rank}": _address(rank, size)})
    for other in range(size):
        yield Await((f"gloo/{other}",), float("inf"))
        yield Read(f"gloo/{other}", float("inf"))


def tuned(rank: int, size: int) -> Protocol[None]:
    """Publish an address and read all, as gloo does with batched reads and ranks for numbers."""
    yield Post({f"gloo/{rank}": _address(rank)})
    for first in range(0, size, BATCH):
        keys = tuple(f"gloo/{other}" for other in range(first, min(first + BATCH, size)))
        yield Await(keys, float("inf"))
        yield ReadAll(keys)


PLAYS: dict[str, Play] = {play.__name__: play for play in (roll_call, one_by_one, tuned)}


@attrs.frozen
class Step:
    """One message, and what comes before the next one is sent: numbers, texts, and the word that keys are there."""

    said: bytes
    numbers: int = 0
    texts: int = 0
    wait: bytes = b""
    """The request, behind what is said, whose answer is that word."""
    requests: int = 1


def steps(protocol: Protocol[Any], size: int) -> Iterator[Step]:
    """Return what a rank says where all goes well."""
    value: object = None
    while True:
        try:
            request = protocol.send(value)
        except StopIteration:
            return
        value = None
        match request:
            case Append() | Post():
                yield Step(_said(request))
            case Add():
                yield Step(_said(request), numbers=1)
                value = 1
            case Await(keys, _):
                yield Step(b"", wait=_wait(keys))
                value = True
            case Read(key, _):
                yield Step(b"", wait=_wait((key,)))
                yield Step(bytes([GET]) + _packed(_name(key)), texts=1)
                value = f"ok {size}"
            case ReadAll(keys):
                yield Step(bytes([MULTI_GET]) + _keys([full(key, PREFIX) for key in keys]), texts=len(keys))
            case _ if isinstance(request, TOGETHER):
                asked: Any = request
                numbers = sum(isinstance(one, Add) for one in asked.requests)
                said = b"".join(map(_said, asked.requests))
                begun = protocol.send([1 if isinstance(one, Add) else None for one in asked.requests])
                yield Step(said, numbers, wait=_wait((asked.then,)), requests=len(asked.requests) + 1)
                if isinstance(begun, Read):
                    yield Step(bytes([GET]) + _packed(_name(begun.key)), texts=1)
                value = f"ok {size}" if isinstance(begun, Read) else True
            case _:
                raise AssertionError(request)


def _said(request: Append | Add | Post) -> bytes:
    match request:
        case Append(key, text):
            return bytes([APPEND]) + _packed(_name(key), text)
        case Add(key, amount):
            return bytes([ADD]) + _packed(_name(key)) + struct.pack("=q", amount)
        case Post(entries):
            pairs = b"".join(_packed(_name(key), text) for key, text in entries.items())
            return struct.pack("=BQ", MULTI_SET, len(entries)) + pairs


def _wait(keys: Sequence[str]) -> bytes:
    return bytes([WAIT]) + _keys([full(key, PREFIX) for key in keys])


def _name(key: str) -> str:
    return _key(full(key, PREFIX))


def _as_one(those: Sequence[Step]) -> Step:
    """Return the steps of ranks that share a connection as one, in which they wait once."""
    if len(those) == 1:
        return those[0]
    numbers, texts = sum(step.numbers for step in those), sum(step.texts for step in those)
    return Step(b"".join(step.said for step in those), numbers, texts, those[0].wait, those[0].requests)


@attrs.define
class Client:
    """A plain socket on which a rank takes its steps, or some take theirs together.

    A world of torch's own clients takes minutes to connect on one machine, each on a thread of its own.
    """

    steps: Iterator[Step]
    connection: socket.socket
    last: float
    """The number that tells a rank that it is the last, and has it wake rank 0, once and at once."""
    step: Step | None = None
    heard: bytearray = attrs.field(factory=bytearray)
    requests: int = 0
    sent: int = 0
    """Bytes."""

    def go_on(self) -> None:
        """Take steps until one has an answer to wait for, or none is left."""
        while True:
            self.step = next(self.steps, None)
            if self.step is None:
                return
            message = self.step.said + self.step.wait
            self.connection.sendall(message)
            self.requests += self.step.requests
            self.sent += len(message)
            if self.step.numbers or self.step.texts or self.step.wait:
                return

    def hear(self) -> None:
        """Take what came, and go on when the answer is whole."""
        some = self.connection.recv(1 << 18)
        if not some:
            raise ConnectionResetError
        self.heard += some
        step, end = self.step, 0
        if step is None or len(self.heard) < 8 * step.numbers:
            return
        if step.numbers and struct.unpack_from("=q", self.heard, 8 * step.numbers - 8)[0] >= self.last:
            self.connection.sendall(_said(Post({"wake": "1"})))
            self.last = float("inf")
        if len(self.heard) < 8 * step.numbers + bool(step.wait):
            return
        for _ in range(step.texts):
            if len(self.heard) < end + 8:
                return
            end += 8 + int(struct.unpack_from("=Q", self.heard, end)[0])
        if len(self.heard) >= end:
            self.heard.clear()
            self.go_on()


def clients(play: str, target: tuple[str, int], ranks: Sequence[int], size: int, gate: Any, told: Any) -> None:
    """Play some ranks in one process: connect, wait for the gate, say what is to be said."""
    selector = selectors.EpollSelector()
    shared = -(-size // CONNECTIONS)
    here: list[Client] = []
    for first in range(0, len(ranks), shared):
        connection = socket.create_connection(target, timeout=60)
        connection.sendall(VALIDATE)
        alike = [steps(PLAYS[play](rank, size), size) for rank in ranks[first : first + shared]]
        together = map(_as_one, zip(*alike, strict=True))
        prepared = iter([*together]) if play == roll_call.__name__ else together  # each real rank has a core of its own
        here.append(Client(prepared, connection, size))
        selector.register(connection, selectors.EVENT_READ, here[-1])
    gc.disable()  # real ranks have each their own memory
    gate.wait()
    began = time.process_time()
    for one in here:
        one.go_on()
    waiting = len(here)
    while waiting:
        for key, _ in selector.select():
            one = key.data
            one.hear()
            if one.step is None:
                selector.unregister(one.connection)
                waiting -= 1
    cpu = time.process_time() - began
    told.put((max(one.requests for one in here), max(one.sent for one in here) / shared, cpu))


@attrs.frozen
class Cost:
    """What one play of all ranks took."""

    requests: int
    """Of the rank that made most."""
    sent: float
    """Bytes of the rank that sent most."""
    leader_requests: int
    wall: float
    """Seconds from the moment when all clients are connected until the last one has its answer."""
    cpu: float
    """Seconds of the process that serves the store, and is rank 0 in a roll call."""
    leader_cpu: float
    """Seconds of these that are rank 0's own, on the thread that reads the reports and judges."""
    clients_cpu: float
    """Seconds of the processes that play the other ranks."""
    memory: float
    """By how many MB rank 0's process grew at its peak, from the moment when rank 0 began."""


def simulated(play: str, world_size: int, *, late: bool = False) -> Cost:
    """Play ranks that are all there at once; in a roll call rank 0 is real, in the process of its store.

    `late` lets rank 0 begin when all have reported, so that what it needs itself is seen beside what its store holds.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = bind(("127.0.0.1", 0))
    target = listener.getsockname()[:2]
    store = serve(listener, target, 300).result()
    client = StoreClient(target)
    client.prefix = PREFIX
    spawn = multiprocessing.get_context("spawn")
    gate, results = spawn.Barrier(PROCESSES + 1), spawn.Queue()
    first = 1 if play == roll_call.__name__ else 0
    shares = [range(first + share, world_size, PROCESSES) for share in range(PROCESSES)]
    args = [(play, target, share, world_size, gate, results) for share in shares]
    played = [spawn.Process(target=clients, args=one, daemon=True) for one in args]
    for process in played:
        process.start()
    gate.wait()
    requests = 0
    began, cpu, own = time.monotonic(), time.process_time(), time.thread_time()
    while late and client.perform(Add("count", 0)) < world_size - 1:
        time.sleep(0.05)
    before = _memory("VmRSS")
    if first:
        protocol = leader(report(0, world_size), "farewells", Deadline(time.monotonic, began, 300), lambda _: None)
        value = None
        with suppress(StopIteration):
            while True:
                value = client.perform(protocol.send(value))
                requests += 1
    told = [results.get() for _ in played]
    cost = Cost(
        max(most for most, _, _ in told),
        max(sent for _, sent, _ in told),
        requests,
        time.monotonic() - began,
        time.process_time() - cpu,
        time.thread_time() - own,
        sum(took for _, _, took in told),
        _memory("VmHWM") - before,
    )
    for process in played:
        process.join()
    client.close()
    del store
    return cost


def _memory(field: str) -> float:
    with open("/proc/self/status", encoding="ascii") as file:
        return int(file.read().split(f"{field}:")[1].split()[0]) / 1024


def main() -> None:
    """Play one world, and print what it cost as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated", description=__doc__)
    parser.add_argument("play", choices=PLAYS)
    parser.add_argument("ranks", type=int)
    parser.add_argument("--late", action="store_true", help="rank 0 begins when all others have reported")
    asked = parser.parse_args()
    print(json.dumps(attrs.asdict(simulated(asked.play, asked.ranks, late=asked.late))))


if __name__ == "__main__":
    main()

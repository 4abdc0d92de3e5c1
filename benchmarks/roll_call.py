"""What the roll call asks of rank 0's store, by simulated clients, beside what gloo then asks of it itself."""

import multiprocessing
import resource
import selectors
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from benchmarks.drawing import curves
from benchmarks.measure import Figure, Finding, Picture
from colossalai_env._rendezvous.listener import bind
from colossalai_env._rendezvous.protocol.keys import full
from colossalai_env._rendezvous.protocol.report import RankReport
from colossalai_env._rendezvous.protocol.requests import Add, Append, Await, Deadline, Post, Protocol, Read, Request
from colossalai_env._rendezvous.protocol.roll_call import leader, member
from colossalai_env._rendezvous.store_client import StoreClient
from colossalai_env._rendezvous.tcp_store import ADD, APPEND, GET, MULTI_SET, VALIDATE, WAIT, _key, _keys, _packed
from colossalai_env._rendezvous.torch_store import serve

QUESTION = "roll call"
CLIENTS = (64, 256, 1024, 4096)
GLOO_CLIENTS = 1024
"""Gloo's traffic is played up to here: with 4096 ranks each reads 130 MB."""

OURS, ONE_BY_ONE, BATCHED = "colossalai-env", "gloo, address by address", "gloo, batched reads"

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


def _name(key: str) -> str:
    return full(key, "")


Play = Callable[[int, int], Protocol[Any]]
"""What one client says, by its rank and the world's size."""


def roll_call(rank: int, size: int) -> Protocol[Any]:
    """Hold the roll call as a member."""
    return member(report(rank, size), "pid 1 on n0", Deadline(time.monotonic, time.monotonic(), 300))


def _address(rank: int, size: int) -> str:
    """Return as many bytes as gloo's address of a rank has: 8 for each other rank besides name and socket."""
    return f"gpu-node-{rank // 8:05}.cluster.example".ljust(160 + 8 * size)


def one_by_one(rank: int, size: int) -> Protocol[None]:
    """Publish an address and read all, as gloo does: wait, and a get that waits once more."""
    yield Post({f"gloo/{rank}": _address(rank, size)})
    for other in range(size):
        yield Await((f"gloo/{other}",), float("inf"))
        yield Read(f"gloo/{other}", float("inf"))


def batched(rank: int, size: int) -> Protocol[None]:
    """Publish an address and read all, as gloo does with batched reads."""
    yield Post({f"gloo/{rank}": _address(rank, size)})
    for first in range(0, size, BATCH):
        keys = tuple(f"gloo/{other}" for other in range(first, min(first + BATCH, size)))
        yield Await(keys, float("inf"))
        yield ReadAll(keys)


@attrs.define
class Client:
    """One simulated rank: its protocol, and a plain socket that speaks as torch's TCPStore does (TCPStoreBackend.hpp).

    A world of torch's own clients takes minutes to connect on one machine, each on a thread of its own.
    """

    protocol: Protocol[Any]
    connection: socket.socket
    asked: "Request | ReadAll | None" = None
    answers: int = 0
    """How many texts are still to come, each with its length before it."""
    expected: str = ""
    heard: bytearray = attrs.field(factory=bytearray)
    requests: int = 0
    sent: int = 0
    done: bool = False

    def go_on(self, value: object = None) -> None:
        """Send requests until one has an answer to wait for, or the protocol has ended."""
        while not self.done:
            try:
                self.asked = self.protocol.send(value)
            except StopIteration:
                self.done = True
                return
            self.expected = self._ask(self.asked)
            value = None
            if self.expected:
                return

    def _ask(self, request: "Request | ReadAll") -> str:
        """Send one request; return what its answer is, nothing where it has none."""
        match request:
            case Append(key, text):
                return self._send(APPEND, _packed(_key(_name(key)), text))
            case Post(entries):
                pairs = b"".join(_packed(_key(_name(key)), text) for key, text in entries.items())
                return self._send(MULTI_SET, struct.pack("=Q", len(entries)) + pairs)
            case Add(key, amount):
                return self._send(ADD, _packed(_key(_name(key))) + struct.pack("=q", amount), "number")
            case Read(key, _):
                return self._send(WAIT, _keys([_name(key)]), "word")
            case Await(keys, _):
                return self._send(WAIT, _keys([*map(_name, keys)]), "word")
            case ReadAll(keys):
                self.answers = len(keys)
                return self._send(MULTI_GET, _keys([*map(_name, keys)]), "texts")
            case _:
                raise AssertionError(request)

    def _send(self, kind: int, body: bytes, answer: str = "") -> str:
        message = bytes([kind]) + body
        self.connection.sendall(message)
        self.requests += 1
        self.sent += len(message)
        return answer

    def hear(self) -> None:
        """Take what came, and go on when it is a whole answer."""
        self.heard += self.connection.recv(1 << 18)
        if self.expected == "number" and len(self.heard) == 8:
            self._take(struct.unpack("=q", self.heard)[0])
        elif self.expected == "word" and len(self.heard) == 1:
            self.heard.clear()
            if isinstance(self.asked, Read):
                self.answers = 1
                self.expected = self._send(GET, _packed(_key(_name(self.asked.key))), "texts")
            else:
                self.go_on(value=True)
        elif self.expected == "texts":
            self._hear_texts()

    def _hear_texts(self) -> None:
        text = ""
        while self.answers and len(self.heard) >= 8:
            (length,) = struct.unpack_from("=Q", self.heard)
            if len(self.heard) < 8 + length:
                return
            text = self.heard[8 : 8 + length].decode()
            del self.heard[: 8 + length]
            self.answers -= 1
        if not self.answers:
            self._take(text)

    def _take(self, value: object) -> None:
        self.heard.clear()
        self.go_on(value)


def clients(play: Play, target: tuple[str, int], ranks: Sequence[int], world_size: int, gate: Any, told: Any) -> None:
    """Play some ranks in one process: connect, wait for the gate, say what is to be said."""
    selector = selectors.EpollSelector()
    here: list[Client] = []
    for rank in ranks:
        connection = socket.create_connection(target, timeout=60)
        connection.sendall(VALIDATE)
        here.append(Client(play(rank, world_size), connection))
        selector.register(connection, selectors.EVENT_READ, here[-1])
    gate.wait()
    for one in here:
        one.go_on()
    waiting = len(here)
    while waiting:
        for key, _ in selector.select():
            one = key.data
            one.hear()
            if one.done:
                selector.unregister(one.connection)
                waiting -= 1
    told.put((max(one.requests for one in here), max(one.sent for one in here)))


@attrs.frozen
class Cost:
    """What one play of all ranks took."""

    requests: int
    """Of the rank that made most."""
    sent: int
    """Bytes of the rank that sent most."""
    leader_requests: int
    wall: float
    """Seconds from the moment when all clients are connected until the last one has its answer."""
    cpu: float
    """Seconds of the process that serves the store, and is rank 0 in a roll call."""


def simulated(play: Play, world_size: int, processes: int = 2) -> Cost:
    """Play ranks that are all there at once; in a roll call rank 0 is real, in the process of its store."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    listener = bind(("127.0.0.1", 0))
    target = listener.getsockname()[:2]
    store = serve(listener, listener.getsockname()[:2], 300).result()
    client = StoreClient(target)
    fork = multiprocessing.get_context("spawn")
    gate, results = fork.Barrier(processes + 1), fork.Queue()
    first = 1 if play is roll_call else 0
    shares = [range(first + share, world_size, processes) for share in range(processes)]
    played = [fork.Process(target=clients, args=(play, target, share, world_size, gate, results)) for share in shares]
    for process in played:
        process.start()
    gate.wait()
    began, cpu, requests = time.monotonic(), time.process_time(), 0
    if play is roll_call:
        protocol = leader(report(0, world_size), "farewells", Deadline(time.monotonic, began, 300), lambda _: None)
        value = None
        with suppress(StopIteration):
            while True:
                value = client.perform(protocol.send(value))
                requests += 1
    told = [results.get() for _ in played]
    cost = Cost(
        max(most for most, _ in told),
        max(sent for _, sent in told),
        requests,
        time.monotonic() - began,
        time.process_time() - cpu,
    )
    for process in played:
        process.join()
    client.close()
    del store
    return cost


MEASURED: Mapping[str, tuple[str, str]] = {
    "requests": ("requests of a rank", ""),
    "sent": ("bytes sent by a rank", ""),
    "wall": ("until the last rank is told", "s"),
    "cpu": ("CPU of rank 0 and its store", "s"),
}


def measure(pairs: int) -> Iterator[Finding]:
    """Hold roll calls of all sizes, and let gloo's clients read each other's addresses beside them."""
    rounds = max(3, pairs // 3)
    found: dict[int, dict[str, Cost]] = {}
    for size in CLIENTS:
        plays = {OURS: roll_call} | ({ONE_BY_ONE: one_by_one, BATCHED: batched} if size <= GLOO_CLIENTS else {})
        found[size] = {
            name: _median([simulated(play, size) for _ in range(rounds if size < 1000 or play is roll_call else 1)])
            for name, play in plays.items()
        }
    most = CLIENTS[-1]
    unplayed = f"is not played with {most} ranks: each would read {8 * most * most / 1e6:.0f} MB"
    for field, (case, unit) in MEASURED.items():
        for size, costs in found.items():
            beside = {
                name: getattr(costs[name], field) if name in costs else unplayed for name in (ONE_BY_ONE, BATCHED)
            }
            limit = {"requests": 12.0, "sent": 1000.0, "wall": 2.0 if size == most else None}.get(field)
            value = getattr(costs[OURS], field)
            yield Figure(QUESTION, case, f"{size} simulated ranks", value, unit, most=limit, beside=beside)
    for size, costs in found.items():
        yield Figure(QUESTION, "requests of rank 0", f"{size} simulated ranks", costs[OURS].leader_requests)
    drawn = {
        name: [(size, costs[name].wall) for size, costs in found.items() if name in costs]
        for name in (OURS, ONE_BY_ONE, BATCHED)
    }
    title = "Until the last rank is told"
    yield Picture("roll-call", title, curves(title, "simulated ranks", "seconds", drawn))


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*map(attrs.astuple, costs), strict=True)))

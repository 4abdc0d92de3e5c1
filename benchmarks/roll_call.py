"""What the roll call costs: by itself for many simulated clients, and beside plain init for a few real processes.

python benchmarks/roll_call.py [--clients 64 256 1024 4096] [--pairs 15]
"""

import argparse
import json
import multiprocessing
import os
import resource
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs

from colossalai_env.reply import Reply
from colossalai_env.rollcall import (
    Add,
    Append,
    Post,
    Protocol,
    Read,
    Request,
    Watch,
    leader,
    member,
)
from colossalai_env.scout import bind
from colossalai_env.store import Ledger, serve
from colossalai_env.wire import VALIDATE


def reply(rank: int, world_size: int) -> Reply:
    """Return a reply as a rank of a cluster would give it."""
    return Reply(
        rank=rank, world_size=world_size, host=f"gpu-node-{rank // 8:05}.cluster.example", boot="0f3c2a71",
        pid=100000 + rank, backend="nccl", torch="2.13.0+cu130", resolver="slurm", local_rank=rank % 8,
        local_world_size=8, node_rank=rank // 8, num_nodes=-(-world_size // 8),
        device=f"GPU-8a7b6c5d-1234-5678-9abc-{rank:012}", visible=8,
    )  # fmt: skip


def _text(text: str) -> bytes:
    return struct.pack("=Q", len(text)) + text.encode()


@attrs.define
class Client:
    """One simulated rank: its protocol, and a plain socket that speaks as torch's TCPStore does (TCPStoreBackend.hpp).

    A world of torch's own clients takes minutes to connect on one machine, each on a thread of its own.
    """

    protocol: Protocol[Any]
    connection: socket.socket
    asked: Request | None = None
    expected: str = ""
    heard: bytes = b""
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

    def _ask(self, request: Request) -> str:
        """Send one request; return what its answer is, nothing where it has none."""
        match request:
            case Append(key, text):
                return self._send(9, _text(f"/{key}"), _text(text))
            case Post(entries):
                for key, text in entries.items():
                    self._send(1, _text(f"/{key}"), _text(text))
                return ""
            case Add(key, amount):
                return self._send(4, _text(f"/{key}"), struct.pack("=q", amount), answer="number")
            case Read(key, _, _):
                return self._send(6, struct.pack("=Q", 1), _text(f"/{key}"), answer="wait")
            case _:
                raise AssertionError(request)

    def _send(self, kind: int, *parts: bytes, answer: str = "") -> str:
        message = bytes([kind]) + b"".join(parts)
        self.connection.sendall(message)
        self.requests += 1
        self.sent += len(message)
        return answer

    def hear(self) -> None:
        """Take what came, and go on when it is a whole answer."""
        self.heard += self.connection.recv(65536)
        if self.expected == "number" and len(self.heard) == 8:
            self._take(struct.unpack("=q", self.heard)[0])
        elif self.expected == "wait" and len(self.heard) == 1:
            self.heard = b""
            key = self.asked.key if isinstance(self.asked, Read) else ""
            self.expected = self._send(3, _text(f"/{key}"), answer="text")
        elif self.expected == "text" and len(self.heard) >= 8:
            (length,) = struct.unpack_from("=Q", self.heard)
            if len(self.heard) == 8 + length:
                self._take(self.heard[8:].decode())

    def _take(self, value: object) -> None:
        self.heard = b""
        self.go_on(value)


def clients(target: tuple[str, int], ranks: Sequence[int], world_size: int, gate: Any, results: Any) -> None:
    """Play some ranks in one process: connect, wait for the gate, hold the roll call."""
    selector = selectors.EpollSelector()
    here: list[Client] = []
    for rank in ranks:
        connection = socket.create_connection(target, timeout=60)
        connection.sendall(VALIDATE)
        watch = Watch(time.monotonic, time.monotonic(), 300)
        here.append(Client(member(reply(rank, world_size), "pid 1 on n0", watch), connection))
        selector.register(connection, selectors.EVENT_READ, here[-1])
    gate.wait()
    began = time.monotonic()
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
    most = max(one.requests for one in here), max(one.sent for one in here)
    results.put((*most, time.monotonic() - began))


def simulated(world_size: int, processes: int = 2) -> dict[str, float]:
    """Hold one roll call of `world_size` ranks, all there at once; rank 0 is real, in the process of its store."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    listener = bind(("127.0.0.1", 0))
    target = listener.getsockname()[:2]
    store = serve(listener, 300).result()
    ledger = Ledger(target, "")
    fork = multiprocessing.get_context("spawn")
    gate, results = fork.Barrier(processes + 1), fork.Queue()
    shares = [range(1 + share, world_size, processes) for share in range(processes)]
    played = [fork.Process(target=clients, args=(target, share, world_size, gate, results)) for share in shares]
    for process in played:
        process.start()
    watch = Watch(time.monotonic, time.monotonic(), 300)
    protocol = leader(reply(0, world_size), "farewells", watch, lambda _: None)
    gate.wait()
    began, cpu = time.monotonic(), time.process_time()
    requests, value = 0, None
    with suppress(StopIteration):
        while True:
            value = ledger.perform(protocol.send(value))
            requests += 1
    told = [results.get() for _ in played]
    wall, used = time.monotonic() - began, time.process_time() - cpu
    for process in played:
        process.join()
    ledger.close()
    del store
    return {
        "clients": world_size,
        "requests per rank": max(one[0] for one in told),
        "bytes per rank": max(one[1] for one in told),
        "requests of rank 0": requests,
        "seconds": round(wall, 3),
        "CPU seconds of rank 0 and its store": round(used, 3),
        "gloo's own requests per rank": 3 * world_size,
    }


PROGRAM = """
import os, sys, time
import torch, torch.distributed as dist, colossalai_env.init, colossalai_env.group
rank, late, plain = int(os.environ["RANK"]), float(sys.argv[1]), sys.argv[2] == "plain"
open(sys.argv[3] + f".{rank}", "w").close()
while not os.path.exists(sys.argv[3]): time.sleep(0.001)
if rank == 0: time.sleep(late)
ready = time.time()
if plain: dist.init_process_group("gloo")
else: job = colossalai_env.init_from_env(timeout=60)
print("READY", ready, time.time(), flush=True)
if plain: dist.destroy_process_group()
else: job.close()
"""


def real(size: int, late: float, kind: str, folder: str) -> float:
    """Form a group of real processes; return the seconds from the last one's readiness to the last one's group."""
    gate = os.path.join(folder, f"{kind}-{size}-{late}-{time.monotonic_ns()}")
    with bind(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(late), kind, gate]
    started = [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    while not all(os.path.exists(f"{gate}.{rank}") for rank in range(size)):
        time.sleep(0.01)
    open(gate, "w", encoding="ascii").close()
    told = [process.communicate(timeout=120)[0].split("READY ")[1].split() for process in started]
    return max(float(end) for _, end in told) - max(float(ready) for ready, _ in told)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="*", default=[64, 256, 1024, 4096])
    parser.add_argument("--pairs", type=int, default=15)
    asked = parser.parse_args()
    for count in asked.clients:
        print(json.dumps(simulated(count)), flush=True)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for size in (2, 4, 8):
            for late in (0.0, 0.1, 1.0):
                pairs = [
                    (real(size, late, "ours", folder), real(size, late, "plain", folder)) for _ in range(asked.pairs)
                ]
                ours, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
                ratio = statistics.median(mine / theirs for mine, theirs in pairs)
                figures = {"processes": size, "rank 0 late by": late, "ours ms": round(1000 * ours, 1)}
                print(json.dumps({**figures, "plain ms": round(1000 * plain, 1), "ratio": round(ratio, 2)}), flush=True)


if __name__ == "__main__":
    main()

"""What the roll call costs: by itself for many simulated clients, and beside plain init for a few real processes.

python benchmarks/roll_call.py [--clients 64 256 1024 4096] [--pairs 15]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import attrs
from torch import distributed

from colossalai_env.reply import Reply
from colossalai_env.rollcall import (
    Add,
    Alive,
    Append,
    Await,
    Pause,
    Post,
    Protocol,
    Read,
    Request,
    Watch,
    leader,
    member,
)
from colossalai_env.scout import bind
from colossalai_env.store import client, serve

c10d: Any = distributed


def reply(rank: int, world_size: int) -> Reply:
    """Return a reply as a rank of a cluster would give it."""
    return Reply(
        rank=rank, world_size=world_size, host=f"gpu-node-{rank // 8:05}.cluster.example", boot="0f3c2a71",
        pid=100000 + rank, backend="nccl", torch="2.13.0+cu130", resolver="slurm", local_rank=rank % 8,
        local_world_size=8, node_rank=rank // 8, num_nodes=-(-world_size // 8),
        device=f"GPU-8a7b6c5d-1234-5678-9abc-{rank:012}", visible=8,
    )  # fmt: skip


@attrs.define
class Client:
    """One simulated rank: its protocol, its connection, and what it has sent."""

    protocol: Protocol[Any]
    store: Any
    request: Request | None = None
    requests: int = 0
    sent: int = 0
    done: bool = False

    def step(self) -> bool:
        """Go on as far as the store answers; tell whether anything happened."""
        if self.request is None:
            return self._send(None)
        answered, value = self._perform(self.request)
        return answered and self._send(value)

    def _send(self, value: object) -> bool:
        try:
            self.request = self.protocol.send(value)
            self.requests += 2 if isinstance(self.request, Read) else 1  # torch's get is a wait and a get
        except StopIteration:
            self.done = True
        return True

    def _perform(self, request: Request) -> tuple[bool, Any]:  # noqa: PLR0911
        store = self.store
        match request:
            case Append(key, text):
                self.sent += len(text)
                return True, store.append(key, text)
            case Add(key, amount):
                return True, store.add(key, amount)
            case Post(entries):
                self.sent += sum(map(len, entries.values()))
                for key, text in entries.items():
                    store.set(key, text)
                return True, None
            case Read(key, _):
                return (True, store.get(key).decode()) if store.check([key]) else (False, None)
            case Await(keys, _):
                return (True, True) if store.check(list(keys)) else (False, None)
            case Alive(_):
                return True, True
            case Pause(_):
                return True, None
            case _:
                raise AssertionError(request)


def clients(target: tuple[str, int], ranks: Sequence[int], world_size: int, gate: Any, results: Any) -> None:
    """Play some ranks in one process: connect, wait for the gate, hold the roll call."""
    here = [Client(_protocol(rank, world_size), client(target, 300, 60)) for rank in ranks]
    gate.wait()
    began, cpu = time.monotonic(), time.process_time()
    waiting = list(here)
    while waiting:
        moved = [one.step() for one in waiting]
        waiting = [one for one in waiting if not one.done]
        if not any(moved):
            time.sleep(0.002)
    most = max(one.requests for one in here), max(one.sent for one in here)
    results.put((ranks[0], *most, time.monotonic() - began, time.process_time() - cpu))


def _protocol(rank: int, world_size: int) -> Protocol[Any]:
    watch = Watch(time.monotonic, time.monotonic(), 300)
    one = reply(rank, world_size)
    return leader(one, watch, lambda _: None) if rank == 0 else member(one, "pid 1 on n0", watch)


def simulated(world_size: int, processes: int = 2) -> dict[str, float]:
    """Hold one roll call of `world_size` ranks, all there at once; rank 0 in a process with the server."""
    listener = bind(("127.0.0.1", 0))
    target = listener.getsockname()[:2]
    store = serve(listener, 300)
    fork = multiprocessing.get_context("spawn")
    gate, results = fork.Barrier(processes + 1), fork.Queue()
    shares = [range(1 + share, world_size, processes) for share in range(processes)]
    played = [fork.Process(target=clients, args=(target, share, world_size, gate, results)) for share in shares]
    for process in played:
        process.start()
    first = Client(_protocol(0, world_size), client(target, 300, 60))
    gate.wait()
    began, cpu = time.monotonic(), time.process_time()
    while not first.done:
        if not first.step():
            time.sleep(0.002)
    told = [results.get() for _ in played]
    wall, used = time.monotonic() - began, time.process_time() - cpu
    for process in played:
        process.join()
    del store
    return {
        "clients": world_size,
        "requests per rank": max(one[1] for one in told),
        "bytes per rank": max(one[2] for one in told),
        "requests of rank 0": first.requests,
        "seconds": round(wall, 3),
        "CPU seconds of rank 0": round(used, 3),
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
    parser.add_argument("--pairs", type=int, default=5)
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

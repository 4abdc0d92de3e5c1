"""What an answer costs once the plugins are loaded: in large worlds, with long host lists, and beside torch."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ClusterShell.NodeSet import NodeSet
from colossalai_env_slurm.hostlist import HostList
from hostlist import expand_hostlist

from benchmarks.drawing import curves
from benchmarks.installations import installation
from benchmarks.measure import ROOT, Figure, Finding, Picture, Program, ratio, turns
from benchmarks.spec_known import RECORDS, USUAL, environment
from colossalai_env import resolve

QUESTION = "at scale"

NODES, TASKS = 12_500, (4, 6, 8, 10, 12)
"""Nodes of the large world, and how many tasks they have by turns: 100,000 in all."""

FAKE_RANKS = 4096


def measure(pairs: int) -> Iterator[Finding]:
    """Measure all of it."""
    yield from _warm(pairs)
    yield from _host_lists(pairs)
    yield from _large_world()
    yield from _fake_group()
    yield from _memory(pairs)


WARM = """
import os, statistics, time, colossalai_env
def once(call):
    began = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - began) / 1000
pairs = [(once(colossalai_env.resolve), once(lambda: dict(os.environ))) for _ in range(320)][20:]
print(*map(statistics.median, zip(*pairs)), flush=True)
"""


def _warm(pairs: int) -> Iterator[Figure]:
    """Resolve again and again among 100 variables, in fresh processes of all launchers by turns."""
    runs: dict[str, list[tuple[float, ...]]] = {launcher: [] for launcher in RECORDS}
    with tempfile.TemporaryDirectory() as folder:
        python = installation(Path(folder), *USUAL)
        programs = {launcher: Program(python, WARM, _among_100(environment(launcher))) for launcher in RECORDS}
        for launcher in turns(programs, 2 * pairs):
            runs[launcher].append(tuple(map(float, programs[launcher].told().split())))
    for launcher, done in runs.items():
        took, copied = (statistics.median(column) for column in zip(*done, strict=True))
        case = f"{launcher}, 100 variables, {USUAL[1]} plugins of others"
        beside = {"a copy of os.environ": copied}
        yield Figure(QUESTION, case, "resolve() when warm", took, "µs", most=150, beside=beside)


def _among_100(found: Mapping[str, str]) -> dict[str, str]:
    return {f"SITE_SETTING_{number}": f"/opt/site/{number}" for number in range(100 - len(found))} | dict(found)


def _ragged(count: int) -> str:
    """Return a list with a hole after every eleventh node: 100,000 just fit into an environment variable of Linux."""
    return f"n[{','.join(f'{first:06}-{first + 10:06}' for first in range(0, count // 11 * 12, 12))}]"


SIZES = (100, 1_000, 10_000, 100_000)
LISTS: Mapping[str, Callable[[int], str]] = {
    "one range": lambda count: f"n[000001-{count:06}]",
    "two brackets": lambda count: f"rack[01-10]-n[00001-{count // 10:05}]",
    "holes": _ragged,
}


def _host_lists(pairs: int) -> Iterator[Finding]:
    readers: dict[str, Callable[[str], Sequence[str]]] = {
        "colossalai-env": lambda text: list(HostList.parse(text)),
        "python-hostlist": expand_hostlist,
        "ClusterShell": lambda text: list(NodeSet(text)),
    }
    firsts: dict[str, Callable[[str], str]] = {
        "colossalai-env": lambda text: HostList.parse(text)[0],
        "python-hostlist": lambda text: expand_hostlist(text)[0],
        "ClusterShell": lambda text: NodeSet(text)[0],
    }
    drawn: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for shape, write in LISTS.items():
        text = write(SIZES[-1])
        case = f"{SIZES[-1]:,} nodes, {shape}, {len(text):,} characters"
        first = _in_turn({name: _calling(read, text) for name, read in firsts.items()}, pairs)
        whole = _in_turn({name: _calling(read, text) for name, read in readers.items()}, pairs)
        middle = {name: 1e6 * statistics.median(times) for name, times in first.items()}
        ours = middle.pop("colossalai-env")
        most = 10 if len(text) < 100 else None  # a long list is read whole
        yield Figure(QUESTION, case, "first host", ours, "µs", most=most, beside=middle)
        middle = {name: 1e3 * statistics.median(times) for name, times in whole.items()}
        ours = middle.pop("colossalai-env")
        yield Figure(QUESTION, case, "all hosts", ours, "ms", beside=middle)
        relative = ratio(whole["colossalai-env"], whole["python-hostlist"])
        yield Figure(QUESTION, case, "all hosts, ratio to python-hostlist", relative, "x", most=1)
    for size in SIZES:
        text = LISTS["holes"](size)
        whole = _in_turn({name: _calling(read, text) for name, read in readers.items()}, min(pairs, 5))
        for name, times in whole.items():
            drawn[name].append((size, 1e3 * statistics.median(times)))
    title = "All hosts of a list with holes"
    yield Picture("hosts", title, curves(title, "nodes", "milliseconds", drawn))


def _calling(read: Callable[[str], object], text: str) -> Callable[[], object]:
    return lambda: read(text)


def _in_turn(calls: Mapping[str, Callable[[], object]], pairs: int) -> dict[str, list[float]]:
    """Time calls in paired order, each as often in a row as 20 ms hold; return the CPU seconds of one."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    often = {name: max(1, int(0.02 / (_once(call, 1) or 1e-6))) for name, call in calls.items()}
    for name in turns(calls, pairs):
        times[name].append(_once(calls[name], often[name]))
    return times


def _once(call: Callable[[], object], often: int) -> float:
    began = time.thread_time()
    for _ in range(often):
        call()
    return (time.thread_time() - began) / often


def _step(counts: str, names: str, size: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_STEP_NUM_NODES": str(NODES),
        "SLURM_STEP_TASKS_PER_NODE": counts,
        "SLURM_STEP_NODELIST": names,
        "SLURM_DISTRIBUTION": "block",
    }


def _large_world() -> Iterator[Figure]:
    """Ask for every rank of 100,000, and hold each answer against what the rank is."""
    per_run = NODES // len(TASKS) // 5
    tasks = [count for _ in range(5) for count in TASKS for _ in range(per_run)]
    counts = ",".join(f"{count}(x{per_run})" for _ in range(5) for count in TASKS)
    step = _step(counts, "rack[001-125]-n[001-100]", sum(tasks))
    took: list[float] = []
    rank = 0
    for node, count in enumerate(tasks):
        for local in range(count):
            own = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(node), "SLURM_LOCALID": str(local)}
            env = {**step, **own}
            began = time.thread_time()
            spec = resolve(env=env)
            took.append(time.thread_time() - began)
            found = (spec.rank, spec.node_rank, spec.local_rank, spec.local_world_size, spec.host)
            assert found == (rank, node, local, count, "rack001-n001"), found
            rank += 1
    case = f"{rank:,} ranks on {NODES:,} uneven nodes, Slurm"
    yield Figure(QUESTION, case, "resolve(), median of all ranks", 1e6 * statistics.median(took), "µs", most=150)
    yield Figure(QUESTION, case, "resolve(), all ranks", sum(took), "s")


FAKE = """
import json, sys, time, torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
import colossalai_env
size, took = int(sys.argv[1]), []
for rank in range(size):
    env = {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size), "PMIX_NAMESPACE": "prterun-1@1",
           "OMPI_COMM_WORLD_LOCAL_RANK": str(rank % 8), "OMPI_COMM_WORLD_LOCAL_SIZE": "8", "MASTER_ADDR": "n1"}
    began = time.thread_time()
    spec = colossalai_env.resolve(env=env, backend="fake")
    known = time.thread_time()
    distributed.init_process_group(spec.backend, rank=spec.rank, world_size=spec.world_size, store=FakeStore())
    took.append((1e6 * (known - began), 1e6 * (time.thread_time() - known)))
    assert (distributed.get_rank(), distributed.get_world_size()) == (rank, size)
    distributed.destroy_process_group()
print("TOOK", json.dumps(took))
"""


def _run(code: str, *arguments: object) -> str:
    """Run a program in the environment that has torch."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _fake_group() -> Iterator[Figure]:
    """Take every rank of a world of the `fake` backend from its environment into a group."""
    took: list[tuple[float, float]] = json.loads(_run(FAKE, FAKE_RANKS).rpartition("TOOK")[2])
    known, grouped = (statistics.median(column) for column in zip(*took, strict=True))
    case = f"{FAKE_RANKS} ranks of the fake backend, Open MPI"
    yield Figure(QUESTION, case, "resolve()", known, "µs", most=150, beside={"torch's init_process_group": grouped})


MEMORY = """
import gc, torch, torch.utils.data
from torch import distributed
def resident():
    gc.collect()
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
distributed.destroy_process_group()
before = resident()
import colossalai_env
colossalai_env.resolve(env={"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"})
resolved = resident()
job = colossalai_env.init_from_env()
print("TOOK", before, resolved - before, resident() - before)
"""


def _memory(pairs: int) -> Iterator[Figure]:
    """Compare resident memory in one process: after torch has made a group, after resolve(), after init_from_env()."""
    runs = [[float(word) for word in _run(MEMORY).rpartition("TOOK")[2].split()] for _ in range(pairs)]
    torch, resolved, joined = (statistics.median(column) for column in zip(*runs, strict=True))
    alone = {"torch and a group": torch}
    yield Figure(QUESTION, "beside torch", "memory after resolve()", resolved, "MB", most=5, beside=alone)
    yield Figure(QUESTION, "beside torch", "memory after init_from_env()", joined, "MB", most=5)

"""How long from the last rank's readiness until the process group is used, beside plain torch and the wrappers."""

import json
import os
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from benchmarks.drawing import curves
from benchmarks.measure import Figure, Finding, Picture
from benchmarks.site import PEERS
from colossalai_env.scout import bind

if TYPE_CHECKING:
    from typing_extensions import Self

QUESTION = "group usable"
SIZES, LATE = (1, 2, 4, 8), (0.0, 0.1, 1.0)
"""Processes, and the seconds that rank 0 comes after the others."""

CASE = "until a first sum"
MORE = {2: 15, 8: 40}
"""Milliseconds that the roll call may cost, at most, by processes."""

OURS, FIRST, PLAIN = "colossalai-env", "colossalai-env, plugins not loaded", "init_process_group"

CALLS: Mapping[str, tuple[str, str]] = {
    OURS: ("from colossalai_env import init_from_env, resolve; resolve(env={})", "init_from_env()"),
    FIRST: ("from colossalai_env import init_from_env", "init_from_env()"),
    PLAIN: ("", "torch.distributed.init_process_group('gloo')"),
    "Accelerate": ("from accelerate import PartialState", "PartialState(cpu=True)"),
    "Lightning Fabric": (
        "from lightning_fabric import Fabric",
        "Fabric(accelerator='cpu', devices=int(os.environ['WORLD_SIZE']), strategy='ddp').launch()",
    ),
    "Ignite": ("import ignite.distributed", "ignite.distributed.initialize('gloo')"),
}
"""What a script does before it is ready, and what it says then."""

SCENE = """
import json, os, site, socket, sys, time
site.addsitedir(sys.argv[1])
import torch, torch.distributed
{imports}
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
def act(rank, size, port, late, ready, gate, told, end):
    place = {{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}}
    os.environ.update({{name: str(value) for name, value in place.items()}})
    os.write(ready, b".")
    os.read(gate, 1)
    if rank == 0: time.sleep(late)
    began = time.monotonic()
    {call}
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    assert total.item() == size
    os.write(told, json.dumps([began, time.monotonic()]).encode() + b"\\n")
    os.read(end, 1)
for line in sys.stdin:
    size, late = json.loads(line)
    here, (ready, was_ready), (gate, go), (heard, told), (end, leave) = port(), *(os.pipe() for _ in range(4))
    children = []
    for rank in range(size):
        children.append(os.fork())
        if children[-1] == 0:
            os.close(go), os.close(leave)
            try: act(rank, size, here, late, was_ready, gate, told, end)
            except BaseException as error: print(type(error).__name__, error, file=sys.stderr, flush=True), os._exit(1)
            os._exit(0)
    os.close(told), os.close(gate), os.close(end), os.close(was_ready)
    waiting = size
    while waiting: waiting -= len(os.read(ready, size))
    os.close(go)
    with os.fdopen(heard) as answers: times = [json.loads(answer) for _, answer in zip(range(size), answers)]
    os.close(leave), os.close(ready)
    for child in children: os.waitpid(child, 0)
    spent = max(ended for _, ended in times) - max(began for began, _ in times) if len(times) == size else None
    print(json.dumps(spent), flush=True)
"""
"""Imports all once, then forks the ranks of one group after the other: they are ready as soon as they are told."""

ALONE = """
import site, sys
site.addsitedir(sys.argv[1])
import os, torch, torch.distributed
{imports}
{call}
torch.distributed.all_reduce(torch.ones(1))
os._exit(0)
"""


def _python(code: str, name: str, env: Mapping[str, str] | None = None, **streams: int) -> "subprocess.Popen[str]":
    imports, call = CALLS[name]
    shared = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **(env or {})}
    return subprocess.Popen(
        [PEERS / "bin/python", "-c", code.format(imports=imports, call=call), sysconfig.get_path("purelib")],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **shared},
        stderr=subprocess.DEVNULL,
        text=True,
        **streams,
    )


@attrs.define
class Scene:
    """One process per contender, from which the ranks are forked."""

    name: str
    process: "subprocess.Popen[str]" = attrs.field(init=False)

    def __enter__(self) -> "Self":
        self.process = _python(SCENE, self.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def works(self) -> bool:
        """Tell whether it forms a group; the first one is not timed."""
        try:
            self.play(2, 0)
        except RuntimeError:
            return False
        return True

    def play(self, size: int, late: float) -> float:
        """Form one group; return the seconds from the last rank's readiness until the last rank has a sum."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError(self.name)
        stdin.write(json.dumps([size, late]) + "\n")
        stdin.flush()
        told = next((line for line in stdout if line[0] in "0123456789n"), "null")
        spent = json.loads(told)
        if spent is None:
            raise RuntimeError(f"{self.name} formed no group of {size}")
        return float(spent)


def measure(pairs: int) -> Iterator[Finding]:
    """Form groups of all sizes, forked from one process for each contender, then start whole scripts."""
    drawn: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        opened = {name: stack.enter_context(Scene(name)) for name in CALLS}
        scenes = {name: scene for name, scene in opened.items() if scene.works()}
        absent = {name: "absent: it formed no group" for name in CALLS if name not in scenes}
        for size in SIZES:
            for late in LATE if size > 1 else LATE[:1]:
                rounds = pairs if late < 1 else max(3, pairs // 3)
                plays = {name: _play(scene, size, late) for name, scene in scenes.items()}
                times = _rotated(plays, rounds)
                yield from _figures(size, late, times, absent)
                if late == LATE[1]:
                    for name, found in times.items():
                        drawn.setdefault(name, []).append((size, statistics.median(found)))
    title = f"Rank 0 comes {1000 * LATE[1]:.0f} ms after the others"
    yield Picture("group-late", title, curves(title, "processes", "ms from then until a first sum", drawn))
    starts = {name: _start(name) for name in CALLS if name not in {FIRST, *absent}}
    cold = {name: statistics.median(found) for name, found in _rotated(starts, max(3, pairs // 3)).items()}
    yield Figure(QUESTION, CASE, "2 scripts, from their start", cold.pop(OURS), "ms", beside=cold)


def _play(scene: "Scene", size: int, late: float) -> Callable[[], float]:
    return lambda: scene.play(size, late)


def _start(name: str) -> Callable[[], float]:
    return lambda: scripts(name, 2)


def _rotated(plays: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Time all contenders in each round, and begin each round with the next one; in milliseconds."""
    names = list(plays)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            times[name].append(1000 * plays[name]())
    return times


def _figures(size: int, late: float, times: Mapping[str, list[float]], absent: Mapping[str, str]) -> Iterator[Figure]:
    """Return the table's row and what the goals say."""
    who = "1 process" if size == 1 else f"{size} processes" + (f", rank 0 late by {1000 * late:.0f} ms" if late else "")
    others = {name: statistics.median(found) for name, found in times.items() if name != OURS}
    yield Figure(QUESTION, CASE, who, statistics.median(times[OURS]), "ms", beside={**others, **absent})
    both = list(zip(times[OURS], times[PLAIN], strict=True))
    ratio = statistics.median(ours / plain for ours, plain in both)
    more = statistics.median(ours - plain for ours, plain in both)
    most = 0.5 if size == 1 else 0.2 if late else None
    yield Figure(QUESTION, who, f"time {CASE}, ratio to {PLAIN}", ratio, "x", most=most)
    if size in MORE:
        yield Figure(QUESTION, who, f"time {CASE}, more than {PLAIN}", more, "ms", most=MORE[size])


def scripts(name: str, size: int) -> float:
    """Start whole scripts at once; return the seconds until the last one has a sum."""
    with bind(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_PORT": str(port)}
    began = time.monotonic()
    started = [
        _python(ALONE, name, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.DEVNULL)
        for rank in range(size)
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        raise RuntimeError(f"{name}: status {codes}")
    return time.monotonic() - began

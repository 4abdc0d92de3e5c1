"""How long from the last rank's readiness until the process group is used, beside plain torch and the wrappers."""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from benchmarks.drawing import curves
from benchmarks.installations import BEFORE, EARLIER, PEERS, checkout, installation, packages
from benchmarks.measure import ROOT, Figure, Finding, Picture, ratio, turns
from colossalai_env._rendezvous.listener import bind

if TYPE_CHECKING:
    from typing_extensions import Self

QUESTION = "group usable"
SIZES, LATE = (2, 4, 8), (0.0, 0.1, 1.0)
"""Processes, and the seconds that rank 0 comes after the others."""

MESH, MANY = (8, 32, 64, 128), 64
"""Processes that only gloo connects, on a store that all have reached before; how many are many."""

CASE, MESHED = "until the last rank has its group", "gloo connects, until a first sum"
MORE = {2: 6, 8: 12}
"""Milliseconds that the roll call may cost, at most, by processes."""

OURS, FIRST, PLAIN = "colossalai-env", "colossalai-env, first call", "init_process_group"
THEN = f"{EARLIER}, first call"


@attrs.frozen
class Contender:
    """What a script does before it is ready, and what it says then."""

    call: str
    imports: str = ""
    before: str = "pass"
    """What each rank does before it is ready."""
    env: Mapping[str, str] = attrs.field(factory=dict[str, str])
    site: Path | None = None
    """Packages that it needs beside the peers'."""


PLACE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
"""Variables that have the plugin imported which the ranks will ask."""

CONTENDERS: Mapping[str, Contender] = {
    OURS: Contender("init_from_env()", f"from colossalai_env import init_from_env, resolve; resolve(env={PLACE})"),
    FIRST: Contender("init_from_env()", "from colossalai_env import init_from_env"),
    THEN: Contender("init_from_env()", "from colossalai_env import init_from_env"),
    PLAIN: Contender("torch.distributed.init_process_group('gloo')"),
    "Accelerate": Contender("PartialState(cpu=True)", "from accelerate import PartialState"),
    "Lightning Fabric": Contender(
        "Fabric(accelerator='cpu', devices=int(os.environ['WORLD_SIZE']), strategy='ddp').launch()",
        "from lightning_fabric import Fabric",
    ),
    "Ignite": Contender("ignite.distributed.initialize('gloo')", "import ignite.distributed"),
}


def _gloo(**env: str) -> Contender:
    """Have gloo alone connect the ranks: what comes before would hide it."""
    store = "store = torch.distributed.TCPStore('127.0.0.1', port, is_master=rank == 0, wait_for_workers=False)"
    call = "torch.distributed.init_process_group('gloo', store=store, rank=rank, world_size=size)"
    quick = {"RES_OPTIONS": "timeout:1 attempts:1", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # torch asks for names for its log
    return Contender(call, "", store, {**quick, **env})


GLOO, TUNED, LAZY = "gloo", "gloo, as this library sets it", "gloo, lazy connections"
CONNECTING: Mapping[str, Contender] = {
    GLOO: _gloo(),
    TUNED: _gloo(GLOO_ENABLE_STORE_V2_API="1", GLOO_ENABLE_RANK_AS_SEQUENCE_NUMBER="1"),
    LAZY: _gloo(TORCH_GLOO_LAZY_INIT="1"),
}

SCENE = """
import gc, json, os, site, socket, sys, time
any(map(site.addsitedir, sys.argv[1:]))
import torch, torch.distributed
{imports}
gc.freeze()
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
def act(rank, size, port, late, ready, gate, told, end):
    place = {{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}}
    os.environ.update({{name: str(value) for name, value in place.items()}})
    {before}
    gc.unfreeze(), gc.collect(), gc.freeze()
    os.write(ready, b".")
    os.read(gate, 1)
    if rank == 0: time.sleep(late)
    began = time.monotonic()
    {call}
    made = time.monotonic()
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    assert total.item() == size
    os.write(told, json.dumps([began, made, time.monotonic()]).encode() + b"\\n")
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
    while waiting: waiting -= len(os.read(ready, size)) or waiting
    os.close(go)
    with os.fdopen(heard) as answers: times = [json.loads(answer) for _, answer in zip(range(size), answers)]
    os.close(leave), os.close(ready)
    for child in children: os.waitpid(child, 0)
    began, made, summed = map(max, zip(*times)) if len(times) == size else (0, None, None)
    print(json.dumps(made and [made - began, summed - began]), flush=True)
"""
"""Imports all once, then forks the ranks of one group after the other: they are ready as soon as they are told.

The garbage is frozen: with torch imported a full collection takes 80 ms, and falls on one contender by chance. A rank
has one before it is ready: it touches the memory that it shares with the process which forked it, and makes it its own.
A process that nobody forked shares none, and who runs more Python would pay more for it: 4 of 17 ms, for two ranks.
"""

ALONE = """
import site, sys
any(map(site.addsitedir, sys.argv[1:]))
import gc, os, time, torch, torch.distributed
{imports}
gc.freeze()
began = time.monotonic()
{call}
print("TOOK", time.monotonic() - began, flush=True)
torch.distributed.all_reduce(torch.ones(1))
os._exit(0)
"""


def _python(code: str, who: Contender, env: Mapping[str, str] | None = None, **streams: int) -> "subprocess.Popen[str]":
    shared = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **who.env, **(env or {})}
    text = code.format(imports=who.imports, before=who.before, call=who.call)
    return subprocess.Popen(
        [PEERS / "bin/python", "-c", text, *([who.site] if who.site else [])],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "CUDA_VISIBLE_DEVICES": "-1", **shared},
        stderr=subprocess.DEVNULL,
        text=True,
        **streams,
    )


@attrs.define
class Scene:
    """One process per contender, from which the ranks are forked."""

    who: Contender
    process: "subprocess.Popen[str]" = attrs.field(init=False)

    def __enter__(self) -> "Self":
        self.process = _python(SCENE, self.who, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
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

    def play(self, size: int, late: float) -> tuple[float, float]:
        """Form one group; return the seconds from the last rank's readiness until all have their group, and a sum."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError(self.who)
        stdin.write(json.dumps([size, late]) + "\n")
        stdin.flush()
        told = next((line for line in stdout if line[0] in "[n"), "null")
        spent: tuple[float, float] | None = json.loads(told)
        if spent is None:
            raise RuntimeError(f"no group of {size}: {self.who}")
        return spent


def measure(pairs: int) -> Iterator[Finding]:
    """Begin with a process alone, then form groups of all sizes, start whole scripts, and let gloo connect many."""
    drawn: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        installed = _installed(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        opened = {name: stack.enter_context(Scene(who)) for name, who in installed}
        scenes = {name: scene for name, scene in opened.items() if scene.works()}
        absent = {name: "absent: it formed no group" for name in CONTENDERS if name not in scenes}
        yield from _figures(1, 0, _alone({name: scene.who for name, scene in scenes.items()}, 2 * pairs), absent)
        for size in SIZES:
            for late in LATE:
                rounds = pairs if late < 1 else max(3, pairs // 3)
                plays = {name: _making(scene, size, late) for name, scene in scenes.items()}
                times = _rotated(plays, rounds)
                yield from _figures(size, late, times, absent)
                if late == LATE[1]:
                    for name, found in times.items():
                        drawn.setdefault(name, []).append((size, statistics.median(found)))
        starts = {name: _start(scene.who) for name, scene in scenes.items() if name not in {FIRST, THEN}}
        cold = {name: statistics.median(found) for name, found in _rotated(starts, max(3, pairs // 3)).items()}
        yield Figure(QUESTION, CASE, "2 scripts, from their start to their end", cold.pop(OURS), "ms", beside=cold)
    title = f"Rank 0 comes {1000 * LATE[1]:.0f} ms after the others"
    yield Picture(
        "group-late", title, curves(title, "processes", "ms from then until the last rank has its group", drawn)
    )
    yield from _connecting(max(3, pairs // 3))


def _installed(folder: Path) -> Iterator[tuple[str, Contender]]:
    """Install this library and the earlier one, beside the peers; one that git lacks is absent."""
    sources = {OURS: ROOT, FIRST: ROOT, THEN: checkout(BEFORE, folder / "checkout")}
    for name, who in CONTENDERS.items():
        source = sources.get(name)
        if source is not None:
            installation(folder / name, 0, 0, source=source)
            yield name, attrs.evolve(who, site=packages(folder / name))
        elif name not in sources:
            yield name, who


def _alone(contenders: Mapping[str, Contender], pairs: int) -> dict[str, list[float]]:
    """Time a world of one in fresh processes: forked ones pay for the memory that they share."""
    place = dict.fromkeys(("RANK", "LOCAL_RANK"), "0") | dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "1")

    def play(who: Contender) -> Callable[[], float]:
        return lambda: _took(_python(ALONE, who, {**place, "MASTER_PORT": str(_port())}, stdout=subprocess.PIPE))

    return _rotated({name: play(who) for name, who in contenders.items()}, pairs)


def _took(process: "subprocess.Popen[str]") -> float:
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(process.args)
    return float(out.rpartition("TOOK ")[2])


def _connecting(rounds: int) -> Iterator[Finding]:
    """Let gloo connect up to 128 real processes, in the three ways that it knows."""
    drawn: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        scenes = {name: stack.enter_context(Scene(who)) for name, who in CONNECTING.items()}
        for size in MESH:
            times = _rotated({name: _summing(scene, size) for name, scene in scenes.items()}, rounds)
            for name, found in times.items():
                drawn.setdefault(name, []).append((size, statistics.median(found)))
            who = f"{size} processes"
            relative = ratio(times[TUNED], times[GLOO])
            others = {name: statistics.median(times[name]) for name in (GLOO, LAZY)}
            yield Figure(QUESTION, MESHED, who, statistics.median(times[TUNED]), "ms", beside=others)
            most = 0.3 if size >= MANY else None
            yield Figure(
                QUESTION, f"{who}, {MESHED}", "as this library sets it, ratio to gloo's own", relative, "x", most=most
            )
    title = "Gloo connects processes of one machine"
    yield Picture("gloo", title, curves(title, "processes", "ms until a first sum", drawn))


def _making(scene: Scene, size: int, late: float) -> Callable[[], float]:
    return lambda: scene.play(size, late)[0]


def _summing(scene: Scene, size: int) -> Callable[[], float]:
    return lambda: scene.play(size, 0)[1]


def _start(who: Contender) -> Callable[[], float]:
    return lambda: scripts(who, 2)


def _rotated(plays: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Time all contenders in each round, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in plays}
    for name in turns(plays, rounds):
        times[name].append(1000 * plays[name]())
    return times


def _figures(size: int, late: float, times: Mapping[str, list[float]], absent: Mapping[str, str]) -> Iterator[Figure]:
    """Return the table's row and what the goals say, of scripts whose first call it is where there are several."""
    who = "1 process" if size == 1 else f"{size} processes" + (f", rank 0 late by {1000 * late:.0f} ms" if late else "")
    others = {name: statistics.median(found) for name, found in times.items() if name != OURS}
    yield Figure(QUESTION, CASE, who, statistics.median(times[OURS]), "ms", beside={**others, **absent})
    if size == 1:
        relative = ratio(times[OURS], times[PLAIN])
        yield Figure(QUESTION, f"{who}, plugins loaded", f"{CASE}, ratio to {PLAIN}", relative, "x", most=0.5)
    relative = ratio(times[FIRST], times[PLAIN])
    more = statistics.median(ours - plain for ours, plain in zip(times[FIRST], times[PLAIN], strict=True))
    most = 1 if size == 1 else 0.2 if late else None
    case = f"{who}, first call"
    yield Figure(QUESTION, case, f"{CASE}, ratio to {PLAIN}", relative, "x", most=most)
    if size in MORE:
        yield Figure(QUESTION, case, f"{CASE}, more than {PLAIN}", more, "ms", most=MORE[size])


def _port() -> int:
    with bind(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def scripts(who: Contender, size: int) -> float:
    """Start whole scripts at once; return the seconds until the last one has a sum and has ended."""
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_PORT": str(_port())}
    began = time.monotonic()
    started = [
        _python(ALONE, who, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE)
        for rank in range(size)
    ]
    for process in started:
        _took(process)
    return time.monotonic() - began

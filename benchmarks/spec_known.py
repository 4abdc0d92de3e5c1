"""How long from the start of a process until it knows who it is, beside the peers, and how that grows."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from benchmarks.drawing import curves
from benchmarks.installations import BEFORE, EARLIER, checkout, installation
from benchmarks.measure import (
    Cost,
    Figure,
    Finding,
    Picture,
    Program,
    Weight,
    cpu_ms,
    cpu_ratio,
    paired,
    slowed,
    wall_ms,
    weight,
)
from colossalai_env.testing.captures import RECORDED, captures

QUESTION = "spec known"
DISTRIBUTIONS, OTHERS = (10, 100, 400, 1000, 2000), (1, 7, 50)
"""Installed distributions, and how many of them are plugins of others."""
USUAL = (400, 7)
NEVER = ("torch", "numpy", "asyncio", "subprocess")

BARE, FLOOR, OURS = "python", "import attrs, pluggy", "colossalai-env"
CODE = {BARE: "", FLOOR: "import attrs, pluggy", OURS: "import colossalai_env; colossalai_env.resolve()"}
SLOW = "torchrun, each call that takes a path takes 1 ms more"
FABRIC, IDR = "Lightning Fabric", "idr_torch, no torch"

RECORDS = {"torchrun": "torchrun_c10d_2x2", "Slurm": "slurm_two_per_node", "Open MPI": "openmpi5_slot"}
"""Launches whose fourth task each program finds itself in."""


def _fabric(name: str) -> str:
    return (
        f"from lightning_fabric.plugins.environments import {name} as Found; found = Found()\n"
        "found.global_rank(), found.world_size(), found.local_rank(), found.main_address, found.main_port"
    )


_IDR = "import idr_torch as found; found.rank, found.world_size, found.local_rank, found.master_addr, found.master_port"
_ACCELERATE = (  # it has no address for Open MPI, as nobody has
    "from accelerate.utils.environment import get_cpu_distributed_information\n"
    "assert get_cpu_distributed_information().world_size > 1"
)
_JAX = (
    "from jax._src.clusters import ClusterEnv\n"
    "assert ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 60)[1]"
)
_SUBMITIT = (
    "from submitit.slurm.slurm import SlurmJobEnvironment; found = SlurmJobEnvironment()\n"
    "found.global_rank, found.num_tasks, found.local_rank, found.hostnames[0]"
)
PEER_CODE: Mapping[str, Mapping[str, str]] = {
    FABRIC: {"torchrun": _fabric("TorchElasticEnvironment"), "Slurm": _fabric("SLURMEnvironment")},
    "Accelerate": {"torchrun": _ACCELERATE, "Open MPI": _ACCELERATE},
    "JAX": {"Slurm": _JAX},
    "submitit": {"Slurm": _SUBMITIT},
    "idr_torch": {"torchrun": _IDR, "Slurm": _IDR},
    IDR: dict.fromkeys(("torchrun", "Slurm"), f"import sys; sys.modules['torch'] = None\n{_IDR}"),
}
"""The least that asks each peer for rank, size, local rank and, where it knows one, address; by launcher it knows."""


def environment(launcher: str) -> dict[str, str]:
    """Return the variables of a recorded launch, with what a shell leaves."""
    record = next(one for one in captures(RECORDED) if one.scenario == RECORDS[launcher])
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **record.tasks[3].variables}


def measure(pairs: int) -> Iterator[Finding]:
    """Measure the usual installation beside the peers, then all sizes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells: dict[tuple[str, int, int], Cell] = {}
        slow: dict[str, list[tuple[float, float]]] = {}
        peers = installation(folder / "peers", *USUAL, peers=True)
        before = checkout(BEFORE, folder / "checkout")
        then = None if before is None else installation(folder / "then", *USUAL, source=before)
        many, usual = USUAL
        for sizes in dict.fromkeys([*((size, usual) for size in DISTRIBUTIONS), *((many, size) for size in OTHERS)]):
            python = installation(folder / "-".join(map(str, sizes)), *sizes)
            for launcher in RECORDS:
                cell = _measured(python, launcher, pairs, *((peers, then) if sizes == USUAL else (None, None)))
                cells[(launcher, *sizes)] = cell
                yield from cell.figures(launcher, *sizes, usual=sizes == USUAL)
            yield from _slowed(python, *sizes, peers if sizes == USUAL else None, slow)
    yield from _pictures(cells)
    title = f"Every call that takes a path takes 1 ms more, {usual} plugins of others"
    yield Picture("spec-slow", title, curves(title, "installed distributions", "seconds until the spec is known", slow))


def _slowed(
    python: str, distributions: int, others: int, peers: str | None, drawn: dict[str, list[tuple[float, float]]]
) -> Iterator[Figure]:
    """Run each program on a file system that is slow, as a shared one is while thousands of ranks start.

    Of ours the quickest of three runs counts: strace waits for its turn at each call.
    """
    env = environment("torchrun")
    programs = {name: Program(python, code, env) for name, code in CODE.items()}
    if peers:
        programs |= {
            name: Program(peers, codes["torchrun"], env) for name, codes in PEER_CODE.items() if "torchrun" in codes
        }
    took: dict[str, float] = {}
    for name, program in programs.items():
        with suppress(subprocess.CalledProcessError):  # a peer that is absent
            took[name] = min(slowed(program) for _ in range(3 if name in CODE else 1))
    if others == USUAL[1]:
        for name in CODE:
            drawn.setdefault(name, []).append((distributions, took[name]))
    ours = took.pop(OURS)
    yield Figure(QUESTION, SLOW, f"{distributions} distributions, {others} plugins of others", ours, "s", beside=took)


@attrs.frozen
class Cell:
    """All programs in one installation under one launcher."""

    costs: Mapping[str, list[Cost]]
    weights: Mapping[str, Weight]
    absent: Mapping[str, str]

    def figures(self, launcher: str, distributions: int, others: int, *, usual: bool) -> Iterator[Figure]:
        """Return the figures; the goals hold for the usual installation."""
        case = f"{launcher}, {distributions} distributions, {others} plugins of others"
        beside = [name for name in self.costs if name != OURS]
        ours = self.costs[OURS]

        def figure(what: str, value: float, unit: str, peers: Mapping[str, float | str], **goal: float) -> Figure:
            return Figure(QUESTION, case, what, value, unit, beside=peers, **(goal if usual else {}))

        cpu = {name: cpu_ms(self.costs[name]) for name in beside}
        yield figure("CPU", cpu_ms(ours), "ms", {**cpu, **self.absent})
        yield figure("CPU, ratio to import attrs, pluggy", cpu_ratio(ours, self.costs[FLOOR]), "x", {}, most=1.8)
        if IDR in self.costs:
            yield figure("CPU, ratio to idr_torch without torch", cpu_ratio(ours, self.costs[IDR]), "x", {}, most=0.95)
        if FABRIC in self.costs:
            yield figure("CPU, Lightning Fabric's ratio to it", cpu_ratio(self.costs[FABRIC], ours), "x", {}, least=30)
        yield figure("wall", wall_ms(ours), "ms", {name: wall_ms(self.costs[name]) for name in beside})
        told = self.weights
        yield figure("peak memory", told[OURS].peak_mb, "MB", {name: told[name].peak_mb for name in beside})
        yield figure("modules", len(told[OURS].modules), "", {name: len(told[name].modules) for name in beside})
        calls = {name: told[name].file_calls for name in beside}
        yield figure("file-system calls", told[OURS].file_calls, "", calls, most=1250)
        never = [name for name in NEVER if name in told[OURS].modules]
        yield figure(f"imported of {', '.join(NEVER)}", len(never), "", {}, most=0)


def _measured(python: str, launcher: str, pairs: int, peers: str | None, then: str | None) -> Cell:
    env = environment(launcher)
    programs = {name: Program(python, code, env) for name, code in CODE.items()}
    if then is not None:
        programs[EARLIER] = Program(then, CODE[OURS], env)
    absent: dict[str, str] = {}
    for name, codes in PEER_CODE.items() if peers else ():
        if launcher not in codes:
            absent[name] = f"does not know {launcher}"
            continue
        program = Program(peers or "", codes[launcher], env)
        try:
            program.told()
        except RuntimeError as error:
            absent[name] = f"absent: {error}"
        else:
            programs[name] = program
    weights = {name: weight(program) for name, program in programs.items()}
    return Cell(paired(programs, pairs), weights, absent)


def _pictures(cells: Mapping[tuple[str, int, int], Cell]) -> Iterator[Picture]:
    """Draw the growth with the distributions at 12 plugins, and with the plugins at 400 distributions."""
    many, usual = USUAL
    for name, title, across, chosen in (
        (
            "distributions",
            f"{usual} plugins of others",
            "installed distributions",
            [(size, usual) for size in DISTRIBUTIONS],
        ),
        ("plugins", f"{many} distributions", "plugins of others", [(many, size) for size in OTHERS]),
    ):
        place = 0 if name == "distributions" else 1
        found = [(sizes[place], {one: cells.get((one, *sizes)) for one in RECORDS}) for sizes in chosen]
        drawn = {
            launcher: [(size, cpu_ratio(at.costs[OURS], at.costs[FLOOR])) for size, by in found if (at := by[launcher])]
            for launcher in RECORDS
        }
        calls = {
            launcher: [(size, float(at.weights[OURS].file_calls)) for size, by in found if (at := by[launcher])]
            for launcher in RECORDS
        }
        floor = [(size, float(at.weights[FLOOR].file_calls)) for size, by in found if (at := by["Slurm"])]
        cpu = f"CPU until the spec is known, {title}"
        yield Picture(f"spec-cpu-{name}", cpu, curves(cpu, across, "times import attrs, pluggy", drawn))
        files = f"File-system calls until the spec is known, {title}"
        yield Picture(
            f"spec-files-{name}", files, curves(files, across, "calls that take a path", {**calls, FLOOR: floor})
        )

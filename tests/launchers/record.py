"""Runs a scenario and puts together what each task was started with and who its launcher says it was."""

import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from colossalai_env_slurm import SLURM

from colossalai_env import ColossalaiEnvError, DistSpec, resolve
from colossalai_env.resolver import Environ
from tests.warm import warm

from .launch import LABELS, agents, command, labelled, within
from .scenarios import HOSTFILES, Scenario
from .slurm import Slurm
from .testbed import ROOT, Bed, Ran

PROBE = [sys.executable, "-SE", str(ROOT / "tests/launchers/probe.py")]

LAUNCHERS = (
    "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "SLURM", "OMPI_", "PMI", "PRTE_",
    "MPI_", "HYDRA_", "I_MPI_", "MPIR_", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
)  # fmt: skip
"""Beginnings of the names of variables that launchers set."""

SECRET = ("precondition_transports", "TOKEN", "KEY", "SECRET", "PASSWORD")

ALIASES = {"odd-host": "cn001"}
"""Slurm's name for a host that bears another."""


@attrs.frozen
class Task:
    """One process: what it was started with, what `resolve()` said, and the truth."""

    hostname: str
    argv: list[str]
    rank_env: dict[str, str]
    resolved: dict[str, Any]
    truth: dict[str, Any]


@attrs.frozen
class Launch:
    """All tasks of one launch, in the order of their ranks."""

    name: str
    scenario: Scenario
    command: str
    tasks: list[Task]


def lacking(bed: Bed, scenario: Scenario) -> str:
    """Say what this Slurm lacks for a scenario, or nothing."""
    if scenario.since and scenario.since > Slurm(bed).version():
        return f"Slurm {'.'.join(map(str, Slurm(bed).version()))} cannot do it yet"
    if "--mpi=pmix" in scenario.options and "pmix" not in Slurm(bed).run("srun", "--mpi=list").out:
        return "this Slurm has no PMIx"
    return ""


def record(bed: Bed, scenario: Scenario) -> list[Launch]:
    """Run a scenario; raise `AssertionError` with its output where it started nothing."""
    folder = bed.folder / "runs" / scenario.name
    folder.mkdir(parents=True)
    names = {name: str(bed.folder / name) for name in HOSTFILES}
    for name, text in HOSTFILES.items():
        Path(names[name]).write_text(text)
    if scenario.agents:
        return [_torchrun(bed, scenario, folder)]
    if scenario.script:
        return _script(bed, scenario, folder)
    options = scenario.options.format(**names)
    env = {name: value.format(**names) for name, value in scenario.env.items()}
    program = [*PROBE, str(folder), *(["--layout"] if scenario.kind == "srun" else [])]
    if scenario.torchrun:
        words = [warm(), "-m", "torch.distributed.run", "--tee", "3", "--log-dir", "/tmp/torch"]
        program = [*words, *shlex.split(scenario.torchrun), PROBE[-1], str(folder)]
    inner = command(bed, scenario.kind, options, program, scenario.more)
    if scenario.torchrun:
        env["LOGLEVEL"] = "INFO"
        inner = ["env", "LOGLEVEL=INFO", *inner]
    outer = scenario.outer
    ran = within(bed, outer, inner, folder) if outer else bed.run(scenario.host, inner, env)
    if scenario.torchrun:
        return [_nested(scenario, inner, ran, folder)]
    return [_launch(scenario, scenario.name, inner, ran, folder)]


def _launch(scenario: Scenario, name: str, typed: list[str], ran: Ran, folder: Path) -> Launch:
    found = labelled(scenario.kind, ran.out)
    assert found, f"{name} started nothing:\n{ran.out}\n{ran.err}"
    told = {rank: json.loads((folder / file).read_text()) for rank, file in sorted(found.items())}
    layout = next((task["layout"] for task in told.values() if task["layout"]), "")
    truths = _slurm_truth(layout) if layout else {}
    if truths.keys() != told.keys():  # no layout, or that of a heterogeneous step's first component
        truths = _counted_truth({rank: task["hostname"] for rank, task in told.items()})
    return Launch(name, scenario, _shown(scenario, typed, folder), _tasks(told, truths))


def _tasks(told: Mapping[int, dict[str, Any]], truths: Mapping[int, dict[str, Any]]) -> list[Task]:
    return [_task(task, truths[rank]) for rank, task in told.items()]


def _task(told: dict[str, Any], truth: dict[str, Any]) -> Task:
    environ = Environ(told["environment"], told["argv"])
    variables = {
        name: "<redacted>" if any(word in name for word in SECRET) else value
        for name, value in sorted(environ.variables.items())
        if name.startswith(LAUNCHERS)
    }
    return Task(told["hostname"], told["argv"], variables, _resolved(environ), truth)


def _resolved(environ: Environ) -> dict[str, Any]:
    """Return the spec, or the error, as plain values."""
    try:
        spec = resolve(env=environ.variables, argv=environ.argv)
    except ColossalaiEnvError as error:
        return {"error": type(error).__name__, "text": str(error)}
    names = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes", "host", "port", "job_id")
    told = {"resolver": spec.resolver, **{name: getattr(spec, name) for name in names}}
    return {**told, **_open_host(spec, environ)} if spec.resolver == "slurm" and spec.host is None else told


def _open_host(spec: DistSpec, environ: Environ) -> dict[str, Any]:
    """Return where rank 0's host would be told."""
    place = SLURM.directory and SLURM.directory(spec, environ)
    return {"directory": place.host, "serves": place.serves} if place else {}


def _shown(scenario: Scenario, typed: list[str], folder: Path) -> str:
    words = shlex.join(typed).replace(str(folder.parents[1]), "BED").replace(sys.prefix, "BED/venv")
    words = words.replace(str(ROOT), "BED")
    return f"{scenario.outer}: {words}" if scenario.outer else words


def _slurm_truth(layout: str) -> dict[int, dict[str, Any]]:
    """Read ``sattach --layout``: per node its name and the ranks of its tasks, in the order of their local ranks."""
    nodes = re.findall(r"Node (\d+) \(([^)]+)\), \d+ task\(s\): ([\d ]+)", layout)
    placed = [(int(node), host, [int(rank) for rank in ranks.split()]) for node, host, ranks in nodes]
    first = next(host for _, host, ranks in placed if 0 in ranks)
    size = sum(len(ranks) for _, _, ranks in placed)
    return {
        rank: {
            "rank": rank, "world_size": size, "local_rank": local, "local_world_size": len(ranks), "node_rank": node,
            "num_nodes": len(placed), "rank0_host": first,
        }
        for node, _, ranks in placed
        for local, rank in enumerate(ranks)
    }  # fmt: skip


def _counted_truth(hosts: Mapping[int, str]) -> dict[int, dict[str, Any]]:
    """Count what the labels say: which rank printed on which host. The order within a host they do not say."""
    counts = Counter(hosts.values())
    return {
        rank: {
            "rank": rank, "world_size": len(hosts), "local_world_size": counts[host], "num_nodes": len(counts),
            "rank0_host": hosts[0],
        }
        for rank, host in hosts.items()
    }  # fmt: skip


def _script(bed: Bed, scenario: Scenario, folder: Path) -> list[Launch]:
    text = scenario.script.replace("{folder}", str(folder)).replace("{ssh}", str(bed.ssh()))
    for part in scenario.parts:
        (folder / part).mkdir()
        probe = shlex.join([*PROBE, str(folder / part)])
        label = f"srun --label -o {folder / part}.out"
        text = text.replace(f"{{srun:{part}}}", label).replace(f"{{probe:{part}}}", f"{probe} > {folder / part}.out")
    lines = [f"folder={folder}"]
    for part in scenario.parts:
        (folder / f"{part}.sh").write_text(
            f"#!/bin/sh\n{shlex.join([*PROBE, str(folder / part)])} > {folder / part}.out\n"
        )
    (folder / "inner.sh").write_text((folder / f"{scenario.parts[-1]}.sh").read_text())
    text = _fill_probes(text, folder)
    ran = within(bed, scenario.outer, ["sh", "-c", "\n".join([*lines, text])], folder)
    launches: list[Launch] = []
    for part in scenario.parts:
        out = folder / f"{part}.out"
        assert out.exists(), f"{scenario.name}: {part} started nothing:\n{ran.out}\n{ran.err}"
        name = f"{scenario.name}.{part}"
        if part.startswith("body"):
            launches.append(_place(scenario, name, text, folder / part))
        else:
            launches.append(_launch(scenario, name, [text], Ran(ran.code, out.read_text(), ran.err), folder / part))
    return launches


def _fill_probes(text: str, folder: Path) -> str:
    """Put the probe where a step of a part stands, with that part's folder."""
    pieces = re.split(r"(srun --label -o \S+\.out)", text)
    filled, part = pieces[0], ""
    for piece in pieces[1:]:
        if piece.startswith("srun --label -o "):
            part = Path(piece.split()[-1]).stem
        probe = shlex.join([*PROBE, str(folder / part), "--layout"])
        filled += piece.replace("PROBE", probe)
    return filled


def _place(scenario: Scenario, name: str, text: str, folder: Path) -> Launch:
    (path,) = folder.glob("*.json")
    told = json.loads(path.read_text())
    why = "one process, though several tasks were asked for" if scenario.several else "one process, one task"
    truth = {"rank": 0, "world_size": 1, "rank0_host": told["hostname"], "num_nodes": 1, "why": why}
    return Launch(name, scenario, _shown(scenario, [text], folder.parent), _tasks({0: told}, {0: truth}))


RESULT = re.compile(r"(group_rank|group_world_size|master_addr|master_port|global_ranks|restart_count)=(.*)$")
LOCAL = re.compile(r"\[default(\d+)\]: ?PROBE (\S+)")


def _torchrun(bed: Bed, scenario: Scenario, folder: Path) -> Launch:
    words = ["--tee", "3", "--log-dir", "/tmp/torch", PROBE[-1], str(folder), *shlex.split(scenario.words)]
    ended = agents(bed, scenario.agents, words, scenario.module)
    logs = {str(index): (ran.out, ran.err) for index, (_, ran) in enumerate(ended)}
    typed = "; ".join(f"[{host}] python -m {scenario.module} {options}" for host, options in scenario.agents)
    return _agents(scenario, logs, [typed], folder)


def _nested(scenario: Scenario, typed: list[str], ran: Ran, folder: Path) -> Launch:
    """Tell the agents apart by the outer launcher's labels."""
    label = re.compile(LABELS[scenario.kind].partition("PROBE")[0].replace("<stdout>", "<std(?:out|err)>"))
    logs: dict[str, tuple[str, str]] = {}
    for line in (ran.out + ran.err).splitlines():
        found = label.match(line)
        if found:
            out = logs.setdefault(found.group(1), ("", ""))[0]
            logs[found.group(1)] = (f"{out}{line[found.end() :]}\n", "")
    assert logs, f"{scenario.name} started nothing:\n{ran.out}\n{ran.err}"
    return _agents(scenario, logs, typed, folder)


def _agents(scenario: Scenario, logs: Mapping[str, tuple[str, str]], typed: list[str], folder: Path) -> Launch:
    """Take the truth from each agent's own log of the rendezvous, and the tasks from its labels."""
    told: dict[int, dict[str, Any]] = {}
    truths: dict[int, dict[str, Any]] = {}
    for out, err in logs.values():
        found = [RESULT.search(line.strip()) for line in (out + err).splitlines()]
        result: dict[str, str] = {match.group(1): match.group(2) for match in found if match}
        assert result, f"{scenario.name}: no rendezvous in\n{out}\n{err}"
        ranks = json.loads(result["global_ranks"])
        for local, file in LOCAL.findall(out + err):
            rank = ranks[int(local)]
            told[rank] = json.loads((folder / file).read_text())
            truths[rank] = {
                "rank": rank, "local_rank": int(local), "local_world_size": len(ranks),
                "node_rank": int(result["group_rank"]), "num_nodes": int(result["group_world_size"]),
                "rank0_host": result["master_addr"], "master_port": int(result["master_port"]),
            }  # fmt: skip
    assert told, f"{scenario.name}: no task in {logs}"
    for truth in truths.values():
        truth["world_size"] = len(truths)
    return Launch(scenario.name, scenario, _shown(scenario, typed, folder), _tasks(dict(sorted(told.items())), truths))

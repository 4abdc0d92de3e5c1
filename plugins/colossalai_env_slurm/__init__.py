"""Slurm's srun: one process is one task of a step.

Facts: srun's manual, section "OUTPUT ENVIRONMENT VARIABLES", and runs of Slurm 22.05, 24.11 and
26.05. Only the step's own variables are read: SLURM_JOB_NODELIST, SLURM_NTASKS and their kin
describe the job, and a batch script or a salloc shell has them too. They serve as witnesses
against what an ``sbatch`` or ``salloc`` called inside a step leaves behind.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from colossalai_env.errors import MalformedVariable, MissingVariable, NotLaunched
from colossalai_env.resolver import (
    Directory,
    DistSpec,
    Environ,
    HostAnswer,
    HostQuery,
    Layer,
    NoMatch,
    Resolver,
    derive,
    either,
    hookimpl,
    var,
    whole_number,
)

if TYPE_CHECKING:
    from .hostlist import HostList
    from .tasks import TaskCounts

JOB, STEP = ("SLURM_JOB_ID", "SLURM_JOBID"), "SLURM_STEP_ID"
SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NPROCS", "SLURM_NTASKS")
WITNESSED = (
    "SLURM_NODEID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NUM_NODES",
    "SLURM_STEP_NUM_TASKS", "SLURMD_NODENAME", "SLURM_GTIDS", "SLURM_NODELIST", "SLURM_SUBMIT_HOST",
)  # fmt: skip
"""What is compared in order to tell a step from what another one left behind."""

LEADER = "SLURM_JOB_ID_PACK_GROUP_0"
"""Set in each step of a heterogeneous job, to the id of its first component, which is SLURM_JOB_ID."""

LAST_NORMAL_STEP = 0xFFFFFFF0
"""slurm.h: SLURM_MAX_NORMAL_STEP_ID."""

SRUN = "start the processes with srun (srun python train.py)"

SPECIAL = {0xFFFFFFFA: "an interactive shell", 0xFFFFFFFB: "a batch script"}
"""Slurm's own steps (slurm.h: SLURM_INTERACTIVE_STEP, SLURM_BATCH_SCRIPT), written as -6 and -5 as of 26.05."""


@lru_cache(maxsize=2)
def host_list(text: str) -> "HostList":
    """Read a list of hosts once; what that takes is imported by the processes that Slurm started."""
    from .hostlist import HostList

    return HostList.parse(text)


@lru_cache(maxsize=1)
def task_counts(text: str) -> "TaskCounts":
    """Read the tasks of each node once."""
    from .tasks import TaskCounts

    return TaskCounts.parse(text)


@lru_cache(maxsize=1)
def contradiction() -> Callable[[Environ], str | None]:
    """Return what holds a step's variables against the witnesses."""
    from .leftovers import contradiction

    return contradiction


def genuine_step(environ: Environ) -> NoMatch | None:
    """Srun started this process as a task of a step, or SLURM_PROCID and a size are set without any job."""
    if not any(name in environ for name in JOB):
        return _without_job(environ)
    step = environ.get(STEP)
    if step is None:
        script = "SLURM_PROCID" in environ
        return _one_process(environ, f"this is {'a batch script' if script else 'a salloc shell'}: no {STEP}")
    special = _special(step)
    if special:
        return _one_process(environ, f"this is {special}, not a task that srun started")
    if SIZES[0] not in environ:
        raise MissingVariable("slurm", SIZES[0], (STEP,))
    if "SLURM_PROCID" in environ:
        leak = contradiction()(environ)
        if leak:
            return _one_process(environ, f"the SLURM_STEP variables are another job's, for {leak}", WITNESSED)
    return None


def _special(step: str) -> str | None:
    """Return which of Slurm's own steps this is; None for one that srun made, and for what is no number at all."""
    if len(step) < 10 and step.isdecimal():
        return None  # as nearly all are
    if not step.removeprefix("-").isdecimal():
        return None
    number = int(step) % 2**32
    return SPECIAL.get(number, "a step of Slurm's own") if number > LAST_NORMAL_STEP else None


def _without_job(environ: Environ) -> NoMatch | None:
    if STEP in environ:
        raise MissingVariable("slurm", JOB[0], (STEP,))
    sizes = [name for name in SIZES if name in environ]
    if sizes and "SLURM_PROCID" in environ:
        return None
    if sizes:
        return NoMatch("no SLURM_PROCID", (sizes[0],), ("SLURM_PROCID",))
    if "SLURM_PROCID" in environ:
        return NoMatch(f"none of {', '.join(SIZES)}", ("SLURM_PROCID",), SIZES[1:2])
    return NoMatch(f"no {JOB[0]}")


def _one_process(environ: Environ, place: str, shown: tuple[str, ...] = ()) -> NoMatch | None:
    """Take the place for a single process where one task was asked for; refuse it where several were."""
    tasks = _number(environ, "SLURM_NTASKS") or _number(environ, "SLURM_NPROCS")
    nodes, per_node = _number(environ, "SLURM_NNODES"), _number(environ, "SLURM_NTASKS_PER_NODE")
    if (tasks or (nodes or 1) * (per_node or 1)) == 1:
        return NoMatch(f"{place}, for one task")
    found = environ.found((*JOB[:1], STEP, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_NNODES", *shown))
    raise NotLaunched("slurm", f"{place}, though several tasks were asked for", found, SRUN)


def _number(environ: Environ, name: str) -> int | None:
    text = environ.get(name)
    try:
        return None if text is None else whole_number(text)
    except ValueError as expected:
        raise MalformedVariable("slurm", name, text or "", str(expected)) from None


def count(tasks: str) -> int:
    """Count the tasks of this node; raise `ValueError` with what was expected."""
    ids = tasks.split(",")
    if not all(one.isascii() and one.isdecimal() for one in ids):
        msg = "the numbers of this node's tasks, such as 0,1"
        raise ValueError(msg)
    return len(ids)


def tasks_on_node(tasks: "TaskCounts", node: int) -> int:
    """Count the tasks of this node; layouts may be uneven."""
    if node >= len(tasks):
        msg = f"SLURM_NODEID must be below {len(tasks)}, the nodes of SLURM_STEP_TASKS_PER_NODE"
        raise ValueError(msg)
    return tasks[node]


def _in_order(distribution: str | None, sluid: str | None) -> bool:
    """Return whether tasks are dealt out in the order of the list of nodes, as ``cyclic:block,pack`` says it.

    As of 26.05, whose mark is SLURM_JOB_SLUID, blocks follow the cluster's topology, and the list does not
    (slurm_step_layout.c, _task_layout_topo). An arbitrary distribution follows a host file.
    """
    if distribution is None:
        return sluid is None
    kind = distribution.partition(",")[0].partition(":")[0]
    return kind in {"cyclic", "plane"} or (kind != "arbitrary" and sluid is None)


def first_host(hosts: "HostList", distribution: str | None, sluid: str | None, leader: str | None) -> str | None:
    """Name the step's first node, where task 0 is unless the order may be another one."""
    return hosts[0] if (leader is None and _in_order(distribution, sluid)) or len(hosts) == 1 else None


def component_host(
    hosts: "HostList", leader: str, job: str, size: int, first: "HostList", distribution: str | None, sluid: str | None
) -> str | None:
    """Name the first node of a heterogeneous job's first component: a list of several components' nodes is sorted."""
    begun = set(hosts)
    nodes = [name for name in first if name in begun]
    if leader != job or (not nodes and size <= 2):  # another job's, or a step of the other component alone
        return first_host(hosts, distribution, sluid, None)
    return nodes[0] if nodes and (len(nodes) == 1 or _in_order(distribution, sluid)) else None


def mapped_host(hosts: "HostList", mapping: str, namespace: str, job: str, step: str, leader: str | None) -> str | None:
    """Name task 0's node by PMIx's mapping, ``(vector,(2,1,1),(0,1,1))``, unless another step left it behind."""
    first = re.match(r"\(vector,\(([0-9]{1,9}),", mapping)
    if first is None or leader is not None or namespace.split(".")[-2:] != [job, step] or int(first[1]) >= len(hosts):
        return None
    return hosts[int(first[1])]


def one_of_two(hosts: "HostList", here: str, tasks: str) -> str | None:
    """Name task 0's node where there are two: this one, whose tasks hold it, or else the other one."""
    if len(hosts) != 2 or here not in hosts:
        return None
    return here if "0" in tasks.split(",") else hosts[1 - hosts.index(here)]


def first_by_name(hosts: "HostList", distribution: str | None, topology: str, leader: str | None) -> str | None:
    """Name the first node of a cluster without a topology, if it comes first by name: there blocks may follow names."""
    flat = leader is None and topology == "node" and _in_order(distribution, None)
    return hosts[0] if flat and hosts[0] == hosts.first_by_name() else None


def launch_token(job: int, step: int, restart: int | None) -> str:
    """Join job, step and requeue: two steps of one job are two launches."""
    return f"{job}.{step}" + (f"r{restart}" if restart else "")


def job_end(environ: Environ) -> float | None:
    """Return when Slurm ends the job, in seconds since 1970; said from 24.11 on."""
    text = environ.get("SLURM_JOB_END_TIME") or ""
    return float(text) if text.isascii() and text.isdecimal() else None


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the step's lists, the witnesses that go with them, and the job's variables that other libraries read."""
    from . import emulation

    return emulation.emulated(spec)


def first_task(spec: DistSpec, environ: Environ) -> Directory | None:
    """Name the first task on the first node of the step's list, which every task can, whatever its rank.

    That is where task 0's node is open, or taken from names alone: a partition of 26.05 may have a topology of its own,
    of which no variable tells.
    """
    if spec.host is not None and not spec.sources.get("host", "").endswith(f"({first_by_name.__name__})"):
        return None
    try:
        first = host_list(environ.get("SLURM_STEP_NODELIST") or "")[0]
    except ValueError:
        return None
    here = environ.get("SLURMD_NODENAME")
    return None if here is None else Directory(first, serves=here == first and environ.get("SLURM_LOCALID") == "0")


def _asked(name: str) -> Callable[[DistSpec, Environ, float], HostAnswer | None]:
    """Return a function that asks Slurm; what that takes is imported when it is needed."""

    def ask(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | None:
        from . import asking

        found: HostAnswer | None = getattr(asking, name)(spec, environ, seconds)
        return found

    return ask


HOSTS = var("SLURM_STEP_NODELIST", read=host_list)
DISTRIBUTION = var("SLURM_DISTRIBUTION", required=False)
SLUID = var("SLURM_JOB_SLUID", required=False)
LED = var(LEADER, required=False)

SLURM = Resolver(
    name="slurm",
    layer=Layer.STEP,
    detect=genuine_step,
    rank=var("SLURM_PROCID"),
    world_size=var(*SIZES),
    local_rank=var("SLURM_LOCALID", required=STEP),
    local_world_size=either(
        var("SLURM_GTIDS", required=False, read=count),
        derive(
            tasks_on_node,
            var("SLURM_STEP_TASKS_PER_NODE", read=task_counts),
            var("SLURM_NODEID", read=whole_number),
            required=STEP,
        ),
    ),
    node_rank=var("SLURM_NODEID", required=STEP),
    num_nodes=var("SLURM_STEP_NUM_NODES", required=STEP),
    host=either(
        derive(first_host, HOSTS, DISTRIBUTION, SLUID, LED, required=STEP),
        derive(
            component_host,
            *(HOSTS, LEADER, JOB[0], var("SLURM_HET_SIZE", read=whole_number)),
            var("SLURM_JOB_NODELIST_PACK_GROUP_0", read=host_list),
            *(DISTRIBUTION, SLUID),
            required=False,
        ),
        derive(mapped_host, HOSTS, "SLURM_PMIX_MAPPING_SERV", "PMIX_NAMESPACE", JOB[0], STEP, LED, required=False),
        derive(one_of_two, HOSTS, "SLURMD_NODENAME", "SLURM_GTIDS", required=False),
        derive(first_by_name, HOSTS, DISTRIBUTION, "SLURM_TOPOLOGY_ADDR_PATTERN", LED, required=False),
    ),
    job_id=derive(
        launch_token,
        var(*JOB, read=whole_number),
        var(STEP, read=whole_number),
        var("SLURM_RESTART_COUNT", required=False, read=whole_number),
        required=STEP,
    ),
    emulated=emulated,
    locate=(HostQuery("layout", _asked("ask_layout")), HostQuery("node", _asked("ask_node"))),
    directory=first_task,
    job_end=job_end,
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of srun's steps."""
    return [SLURM]

"""Slurm's srun: one process is one task of a step.

Facts: srun's manual, section "OUTPUT ENVIRONMENT VARIABLES", and runs of Slurm 22.05. Only the
step's own variables are read: SLURM_JOB_NODELIST, SLURM_NTASKS and their kin describe the job, and
a batch script or a salloc shell has them too. They serve as witnesses against what an ``sbatch``
called inside a step leaves behind.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from colossalai_env import (
    DistSpec,
    Environ,
    InvalidSpec,
    Layer,
    Located,
    MalformedVariable,
    MissingVariable,
    NotAWorld,
    NotMine,
    Resolver,
    Way,
    derive,
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
    "SLURM_NODEID",
    "SLURM_LOCALID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_STEP_NUM_NODES",
    "SLURM_STEP_NUM_TASKS",
    "SLURMD_NODENAME",
    "SLURM_GTIDS",
)
"""What is compared in order to tell a step from what another one left behind."""

FIRST_SPECIAL_STEP = 4294967290
"""Slurm numbers its interactive, batch and extern steps from here (slurm.h: SLURM_INTERACTIVE_STEP = 0xfffffffa)."""

ADVICE = (
    "start the processes with srun (srun python train.py); for one process alone, in a notebook too, "
    'export COLOSSALAI_ENV_RESOLVER=single-process or pass resolver="single-process"'
)


@lru_cache(maxsize=1)
def host_list(text: str) -> "HostList":
    """Read a list of hosts once; what that takes is imported by the processes that Slurm started."""
    from .hostlist import HostList

    return HostList.parse(text)


@lru_cache(maxsize=1)
def task_counts(text: str) -> "TaskCounts":
    """Read the tasks of each node once."""
    from .tasks import TaskCounts

    return TaskCounts.parse(text)


def genuine_step(environ: Environ) -> NotMine | None:
    """Srun started this process as a task of a step, or SLURM_PROCID and a size are set without any job."""
    if not any(name in environ for name in JOB):
        return _without_job(environ)
    step = environ.get(STEP)
    if step is None:
        script = "SLURM_PROCID" in environ
        return _one_process(environ, f"this is {'a batch script' if script else 'a salloc shell'}: no {STEP}")
    if step.isdecimal() and int(step) >= FIRST_SPECIAL_STEP:
        return _one_process(environ, "this is an interactive shell, not a task that srun started")
    if SIZES[0] not in environ:
        raise MissingVariable("slurm", SIZES[0], (STEP,))
    if "SLURM_PROCID" in environ:
        leak = _contradiction(environ)
        if leak:
            return _one_process(environ, f"the SLURM_STEP variables are another job's, for {leak}", WITNESSED)
    return None


def _without_job(environ: Environ) -> NotMine | None:
    if STEP in environ:
        raise MissingVariable("slurm", JOB[0], (STEP,))
    sizes = [name for name in SIZES if name in environ]
    if sizes and "SLURM_PROCID" in environ:
        return None
    if sizes:
        return NotMine("no SLURM_PROCID", (sizes[0],), ("SLURM_PROCID",))
    if "SLURM_PROCID" in environ:
        return NotMine(f"none of {', '.join(SIZES)}", ("SLURM_PROCID",), SIZES[1:2])
    return NotMine(f"no {JOB[0]}")


def _one_process(environ: Environ, place: str, shown: tuple[str, ...] = ()) -> NotMine | None:
    """Take the place for a single process where one task was asked for; refuse it where several were."""
    tasks = _number(environ, "SLURM_NTASKS") or _number(environ, "SLURM_NPROCS")
    nodes, per_node = _number(environ, "SLURM_NNODES"), _number(environ, "SLURM_NTASKS_PER_NODE")
    if (tasks or (nodes or 1) * (per_node or 1)) == 1:
        return NotMine(f"{place}, for one task")
    found = environ.found((*JOB[:1], STEP, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_NNODES", *shown))
    raise NotAWorld("slurm", f"{place}, though several tasks were asked for", found, ADVICE)


def _number(environ: Environ, name: str) -> int | None:
    text = environ.get(name)
    try:
        return None if text is None else whole_number(text)
    except ValueError as expected:
        raise MalformedVariable("slurm", name, text or "", str(expected)) from None


def _contradiction(environ: Environ) -> str | None:  # noqa: PLR0911 - one witness after the other
    """Hold the step's variables against the witnesses; return what they contradict, as words.

    Right in every step and wrong in every leak that was run; the SLURM_NTASKS family is no witness,
    since ``srun --preserve-env`` keeps the job's.
    """
    try:
        node = whole_number(environ.get("SLURM_NODEID") or "")
        names = host_list(environ.get("SLURM_STEP_NODELIST") or "")
        tasks = task_counts(environ.get("SLURM_STEP_TASKS_PER_NODE") or "")
        nodes = whole_number(environ.get("SLURM_STEP_NUM_NODES") or "")
        size = whole_number(environ.get("SLURM_STEP_NUM_TASKS") or "")
    except ValueError:
        return None  # the table's own rows say which of them is malformed
    here, ids, job_nodes = environ.get("SLURMD_NODENAME"), environ.get("SLURM_GTIDS"), environ.get("SLURM_NNODES")
    if node >= nodes or len(names) != nodes or len(tasks) != nodes or tasks.total != size:
        return "SLURM_NODEID and the SLURM_STEP variables disagree"
    if here is not None and names[node] != here:
        return f"SLURM_STEP_NODELIST has {names[node]!r} at SLURM_NODEID, and SLURMD_NODENAME is {here!r}"
    if job_nodes is not None and job_nodes.isdecimal() and int(job_nodes) < nodes:
        return f"SLURM_STEP_NUM_NODES is {nodes}, more than SLURM_NNODES, {job_nodes!r}"
    if ids is not None:
        mine, local = ids.split(","), environ.get("SLURM_LOCALID") or ""
        if len(mine) != tasks[node]:
            return f"SLURM_GTIDS is {ids!r}, and SLURM_STEP_TASKS_PER_NODE counts {tasks[node]} here"
        if local.isdecimal() and mine[int(local) : int(local) + 1] != [environ.get("SLURM_PROCID")]:
            return f"SLURM_GTIDS is {ids!r}, which has not SLURM_PROCID at SLURM_LOCALID"
    return None


def tasks_on_node(tasks: "TaskCounts", node: int) -> int:
    """Count the tasks of this node; layouts may be uneven."""
    if node >= len(tasks):
        msg = f"SLURM_NODEID must be below {len(tasks)}, the nodes of SLURM_STEP_TASKS_PER_NODE"
        raise ValueError(msg)
    return tasks[node]


def first_host(hosts: "HostList", distribution: str | None) -> str | None:
    """Name rank 0's node: the step's first, except in an arbitrary distribution, where no variable says."""
    return None if distribution == "arbitrary" else hosts[0]


def launch_token(job: int, step: int, restart: int | None) -> str:
    """Join job, step and requeue: two steps of one job are two launches."""
    return f"{job}.{step}" + (f"r{restart}" if restart else "")


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the step's lists, and the witnesses that go with them."""
    if spec.job_id is None:
        return {}
    job, _, rest = spec.job_id.partition(".")
    step, _, restart = rest.partition("r")
    if spec.num_nodes is None or spec.node_rank is None or spec.local_world_size is None:
        return {JOB[0]: job, STEP: step}
    counts = _spread(spec.world_size, spec.num_nodes, spec.node_rank, spec.local_world_size)
    names = [spec.host or "node0", *(f"node{index}" for index in range(1, spec.num_nodes))]
    settings = {
        JOB[0]: job,
        STEP: step,
        "SLURM_STEP_NODELIST": ",".join(names),
        "SLURM_STEP_TASKS_PER_NODE": ",".join(map(str, counts)),
        "SLURM_DISTRIBUTION": "arbitrary" if spec.host is None else "block",
        "SLURMD_NODENAME": names[spec.node_rank],
        "SLURM_NTASKS": str(spec.world_size),
        "SLURM_NNODES": str(spec.num_nodes),
    }
    return {**settings, "SLURM_RESTART_COUNT": restart} if restart else settings


def _spread(size: int, nodes: int, node: int, here: int) -> list[int]:
    """Give this node its tasks and share the others out."""
    if nodes == 1:
        return [here]
    share, more = divmod(size - here, nodes - 1)
    if not share:
        msg = f"num_nodes is {nodes}: {size - here} tasks are too few for the other nodes of a step"
        raise InvalidSpec(msg, ("num_nodes", "world_size"))
    others = [share + (index < more) for index in range(nodes - 1)]
    return [*others[:node], here, *others[node:]]


def ask_layout(spec: DistSpec, environ: Environ, seconds: float) -> Located | None:
    """Ask for the step's layout; what that takes is imported when it is needed."""
    from . import asking

    return asking.ask_layout(spec, environ, seconds)


def ask_node(spec: DistSpec, environ: Environ, seconds: float) -> Located | None:
    """Ask for a node's address."""
    from . import asking

    return asking.ask_node(spec, environ, seconds)


SLURM = Resolver(
    name="slurm",
    layer=Layer.STEP,
    present=genuine_step,
    rank=var("SLURM_PROCID"),
    world_size=var(*SIZES),
    local_rank=var("SLURM_LOCALID", required=STEP),
    local_world_size=derive(
        tasks_on_node,
        var("SLURM_STEP_TASKS_PER_NODE", read=task_counts),
        var("SLURM_NODEID", read=whole_number),
        required=STEP,
    ),
    node_rank=var("SLURM_NODEID", required=STEP),
    num_nodes=var("SLURM_STEP_NUM_NODES", required=STEP),
    host=derive(
        first_host,
        var("SLURM_STEP_NODELIST", read=host_list),
        var("SLURM_DISTRIBUTION", required=False),
        required=STEP,
    ),
    job_id=derive(
        launch_token,
        var(*JOB, read=whole_number),
        var(STEP, read=whole_number),
        var("SLURM_RESTART_COUNT", required=False, read=whole_number),
        required=STEP,
    ),
    emulated=emulated,
    locate=(Way("layout", ask_layout), Way("node", ask_node)),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of srun's steps."""
    return [SLURM]

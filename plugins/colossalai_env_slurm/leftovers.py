"""Tells a step's own variables from what another step left behind in a batch script or a shell."""

from colossalai_env.resolver import Environ, whole_number

from . import LEADER, host_list, task_counts


def contradiction(environ: Environ) -> str | None:
    """Hold the step's variables against the witnesses; return what they contradict, as words.

    Right in every step and wrong in every leak that was run. The SLURM_NTASKS family alone is no witness, since
    ``srun --preserve-env`` keeps the job's; nor is SLURM_JOB_NODELIST, which an srun that allocates keeps.
    """
    try:
        node = whole_number(environ.get("SLURM_NODEID") or "")
        names = host_list(environ.get("SLURM_STEP_NODELIST") or "")
        tasks = task_counts(environ.get("SLURM_STEP_TASKS_PER_NODE") or "")
        nodes = whole_number(environ.get("SLURM_STEP_NUM_NODES") or "")
        size = whole_number(environ.get("SLURM_STEP_NUM_TASKS") or "")
    except ValueError:
        return None  # the table's own rows say which of them is malformed
    here, job_nodes = environ.get("SLURMD_NODENAME"), environ.get("SLURM_NNODES")
    if node >= nodes or len(names) != nodes or len(tasks) != nodes or tasks.total != size:
        return "SLURM_NODEID and the SLURM_STEP variables disagree"
    if job_nodes is not None and job_nodes.isdecimal() and int(job_nodes) < nodes:
        return f"SLURM_STEP_NUM_NODES is {nodes}, more than SLURM_NNODES, {job_nodes!r}"
    if here is not None:
        if LEADER in environ and here in names:
            node = names.index(here)  # the nodes of components are numbered in turn, and listed by name
        if names[node] != here:
            return f"SLURM_STEP_NODELIST has {names[node]!r} at SLURM_NODEID, and SLURMD_NODENAME is {here!r}"
    return _other_allocation(environ, here, size) or _other_tasks(environ, tasks[node])


def _other_allocation(environ: Environ, here: str | None, size: int) -> str | None:
    """Hold the step against the job's own variables, which a salloc inside a task rewrites."""
    listed = environ.get("SLURM_NODELIST")
    if here is None or listed is None:
        return None
    if listed != environ.get("SLURM_STEP_NODELIST") and not _has(listed, here):
        return f"SLURM_NODELIST is {listed!r}, without SLURMD_NODENAME, {here!r}"
    asked = environ.get("SLURM_NTASKS")
    if environ.get("SLURM_SUBMIT_HOST") == here and asked is not None and asked != str(size):
        return (
            f"SLURM_NTASKS is {asked!r} in a job submitted from this node, {here!r}, not SLURM_STEP_NUM_TASKS, {size}"
        )
    return None


def _has(listed: str, name: str) -> bool:
    """Return whether a list has a host; one that cannot be read is no witness."""
    try:
        return name in host_list(listed)
    except ValueError:
        return True


def _other_tasks(environ: Environ, count: int) -> str | None:
    """Hold this task and the number of tasks here against the list of this node's tasks."""
    ids, local = environ.get("SLURM_GTIDS"), environ.get("SLURM_LOCALID") or ""
    if ids is None:
        return None
    mine = ids.split(",")
    if len(mine) != count:
        return f"SLURM_GTIDS is {ids!r}, and SLURM_STEP_TASKS_PER_NODE counts {count} here"
    if local.isdecimal() and mine[int(local) : int(local) + 1] != [environ.get("SLURM_PROCID")]:
        return f"SLURM_GTIDS is {ids!r}, which has not SLURM_PROCID at SLURM_LOCALID"
    return None

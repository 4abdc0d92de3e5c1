"""What srun sets for a task: the way back from a spec to its variables."""

from collections.abc import Mapping

from colossalai_env.errors import InvalidSpec
from colossalai_env.resolver import DistSpec

from . import JOB, STEP


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the step's lists, the witnesses that go with them, and the job's that other libraries read."""
    if spec.job_id is None:
        return {}
    job, _, rest = spec.job_id.partition(".")
    step, _, restart = rest.partition("r")
    if spec.num_nodes is None or spec.node_rank is None or spec.local_world_size is None:
        return {JOB[0]: job, STEP: step}
    counts = _spread(spec.world_size, spec.num_nodes, spec.node_rank, spec.local_world_size)
    names = [spec.host or "node0", *(f"node{index}" for index in range(1, spec.num_nodes))]
    settings = {
        **dict.fromkeys(JOB, job),
        **dict.fromkeys((STEP, "SLURM_STEPID"), step),
        **dict.fromkeys(("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST"), ",".join(names)),
        **dict.fromkeys(("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"), ",".join(map(str, counts))),
        **dict.fromkeys(("SLURM_NTASKS", "SLURM_NPROCS"), str(spec.world_size)),
        **dict.fromkeys(("SLURM_NNODES", "SLURM_JOB_NUM_NODES"), str(spec.num_nodes)),
        "SLURM_DISTRIBUTION": "arbitrary" if spec.host is None else "block",
        "SLURMD_NODENAME": names[spec.node_rank],
    }
    if len(set(counts)) == 1:
        settings["SLURM_NTASKS_PER_NODE"] = str(counts[0])
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

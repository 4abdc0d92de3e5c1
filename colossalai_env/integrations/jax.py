"""What `jax.distributed.initialize` needs to be given; JAX is not imported for that.

Facts: the source of jax 0.10, and runs of it under torchrun, Slurm and Open MPI: by itself JAX asks mpi4py under
Open MPI even where all is given, unless its detection is deactivated.
"""

from typing import Any

from colossalai_env._derived import derived_port
from colossalai_env._job import Job
from colossalai_env.errors import NotYetKnown
from colossalai_env.spec import DistSpec


def initialize_arguments(who: Job | DistSpec, *, port: int | None = None) -> dict[str, Any]:
    """Return the keywords of ``jax.distributed.initialize(**initialize_arguments(job))``.

    JAX's coordinator gets a port of its own, since rank 0's store listens at the job's: the one that is given, or one
    that all ranks derive from the job's id and port. JAX sees the job's device, or, by a spec, the device of the local
    rank alone. Raises `NotYetKnown` where a spec does not say where rank 0 is.
    """
    spec = who.spec if isinstance(who, Job) else who
    where = spec.to_env()
    if "MASTER_ADDR" not in where or "MASTER_PORT" not in where:
        raise NotYetKnown(spec.resolver, "place of rank 0", spec.rank, "initialize_arguments")
    host, store = where["MASTER_ADDR"], where["MASTER_PORT"]
    chosen = derived_port(f"jax {spec.job_id} {store}") if port is None else port
    index = who.device.index if isinstance(who, Job) else spec.local_rank
    if index is None:
        index = spec.local_rank
    return {
        "coordinator_address": f"[{host}]:{chosen}" if ":" in host else f"{host}:{chosen}",
        "num_processes": spec.world_size,
        "process_id": spec.rank,
        "local_device_ids": None if index is None else [index],
        "cluster_detection_method": "deactivate",
    }

"""Flux: one process is one task of a job of flux run, flux submit or flux bulksubmit.

Facts: runs of flux-core 0.88 on three hosts, its pages flux-environment(7) and flux-job(1), and its source
(src/broker/runat.c, src/shell/pmi). FLUX_JOB_ID is unique in one instance, FLUX_JOB_ID_PATH over nested ones. No
variable holds rank 0's host; Flux is asked for it, by PMI-1 as Hydra is, or where that is off by its own command.
"""

from collections.abc import Iterable

from colossalai_env.errors import NotLaunched
from colossalai_env.resolver import (
    DistSpec,
    Environ,
    HostAnswer,
    HostQuery,
    Layer,
    NoMatch,
    Resolver,
    any_of,
    hookimpl,
    var,
)

TASK = ("FLUX_TASK_RANK", "FLUX_JOB_SIZE")


def no_task(environ: Environ) -> NoMatch | None:
    """Refuse the script of flux batch, the shell of flux alloc, and what else Flux runs beside the tasks of a job."""
    if any(name in environ for name in TASK):
        return None
    raise NotLaunched(
        "flux",
        "this is the script of flux batch, a shell of flux alloc, or a command of flux exec, and no task of a job",
        environ.found(("FLUX_ENCLOSING_ID", "FLUX_URI")),
        "start the processes with flux run (flux run -n4 python train.py)",
    )


def ask_pmi(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Exchange rank 0's address over the channel that each task inherits."""
    from colossalai_env_mpi.pmi import ask

    return ask(spec, environ, seconds)


def ask_taskmap(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Ask Flux's command; what that takes is imported when it is needed."""
    from .taskmap import ask

    return ask(spec, environ, seconds)


FLUX = Resolver(
    name="flux",
    layer=Layer.STEP,
    detect=any_of(*TASK, "FLUX_ENCLOSING_ID", "FLUX_URI"),
    exclude=no_task,
    rank=var("FLUX_TASK_RANK"),
    world_size=var("FLUX_JOB_SIZE"),
    local_rank=var("FLUX_TASK_LOCAL_ID", required=False),
    num_nodes=var("FLUX_JOB_NNODES", required=False),
    job_id=var("FLUX_JOB_ID_PATH", "FLUX_JOB_ID", required=False),
    locate=(HostQuery("pmi", ask_pmi), HostQuery("taskmap", ask_taskmap)),
    started_by=("slurm", "jsrun", "pals"),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of Flux."""
    return [FLUX]

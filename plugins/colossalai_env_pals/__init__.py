"""PALS, the mpiexec of HPE Cray systems, which runs under PBS.

Facts: HPE's header pals.h of 2023, the source of the plugins of Slurm (mpi/cray_shasta) and Flux (cray-pals) that set
PALS_* too, and public scripts of Aurora and Polaris. No run: it is not to be had. PALS_SIZE is set by some versions
only, PMI_SIZE not where PMIx is asked for. Rank 0's host stands in the application's own file.
"""

from collections.abc import Iterable, Mapping

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


def of_another(environ: Environ) -> NoMatch | None:
    """Leave the tasks of Slurm and of Flux to them: both play PALS for Cray's MPI, in tasks of their own."""
    application, folder = environ.get("PALS_APID"), environ.get("PALS_SPOOL_DIR")
    if application is not None and application == ".".join(
        environ.get(name) or "" for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")
    ):
        return NoMatch("PALS_APID is a step of Slurm")
    if folder is not None and folder == environ.get("FLUX_JOB_TMPDIR"):
        return NoMatch("PALS_SPOOL_DIR is FLUX_JOB_TMPDIR: a task of Flux")
    return None


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return PMI's own variables, which are there besides."""
    return {"PMI_RANK": str(spec.rank), "PMI_SIZE": str(spec.world_size)}


def ask_application(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Read the application's file; what that takes is imported when it is needed."""
    from .apinfo import read

    del seconds
    return read(spec, environ)


def ask_node_file(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Take the first host of the job, if rank 0 finds itself there."""
    from colossalai_env_mpi import listed_host

    del seconds
    return listed_host("node-file", "PBS_NODEFILE", 0, spec, environ)


PALS = Resolver(
    name="pals",
    layer=Layer.MPI,
    detect=any_of("PALS_RANKID", "PALS_LOCAL_SIZE"),
    exclude=of_another,
    rank=var("PALS_RANKID"),
    world_size=var("PALS_SIZE", "PMI_SIZE"),
    local_rank=var("PALS_LOCAL_RANKID", required=False),
    local_world_size=var("PALS_LOCAL_SIZE", required=False),
    node_rank=var("PALS_NODEID", required=False),
    job_id=var("PALS_APID", required=False),
    emulated=emulated,
    locate=(HostQuery("apinfo", ask_application), HostQuery("node-file", ask_node_file)),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of PALS."""
    return [PALS]

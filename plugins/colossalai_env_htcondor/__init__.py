"""HTCondor's parallel universe: one process is one node of a job of ``machine_count`` nodes.

Facts: runs of HTCondor 25.14 with three hosts. A node is a slot, so several may be on one host, and no variable numbers
them there. Jobs of other universes have neither variable. Rank 0's host stands in the job's own description.
"""

import re
from collections.abc import Iterable, Mapping

from colossalai_env.resolver import (
    DistSpec,
    Environ,
    HostAnswer,
    HostQuery,
    Layer,
    Resolver,
    any_of,
    derive,
    hookimpl,
    var,
)


def job(folder: str | None) -> str | None:
    """Read cluster and process from the name of the job's spool directory, ``.../cluster2.proc0.subproc0``."""
    found = re.search(r"cluster(\d+)\.proc(\d+)", folder or "")
    return f"{found[1]}.{found[2]}" if found else None


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the spool directory, which is the same for all nodes of a job."""
    if spec.job_id is None:
        return {}
    cluster, _, process = spec.job_id.partition(".")
    return {
        "_CONDOR_REMOTE_SPOOL_DIR": f"/var/lib/condor/spool/{cluster}/{process}/cluster{cluster}.proc{process}.subproc0"
    }


def ask_job_ad(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Read the job's description; what that takes is imported when it is needed."""
    from .job_ad import read

    del seconds
    return read(spec, environ)


HTCONDOR = Resolver(
    name="htcondor",
    layer=Layer.STEP,
    detect=any_of("_CONDOR_PROCNO", "_CONDOR_NPROCS"),
    rank=var("_CONDOR_PROCNO"),
    world_size=var("_CONDOR_NPROCS"),
    job_id=derive(job, var("_CONDOR_REMOTE_SPOOL_DIR", required=False)),
    emulated=emulated,
    locate=(HostQuery("job-ad", ask_job_ad),),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of HTCondor's parallel universe."""
    return [HTCONDOR]

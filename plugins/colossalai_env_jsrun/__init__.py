"""jsrun, the launcher of IBM's Job Step Manager in LSF's jobs.

Facts: public sources that read its variables (Lightning's LSFEnvironment, IBM's PMIx tests), and the documentation of
Summit. No run: it is not to be had. jsrun sets Open MPI's variables too, to the same numbers. Rank 0 is on the first
host after the one that runs the job's script, unless two jsrun share the hosts of one job.
"""

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


def launch_token(job: str | None, namespace: str | None) -> str | None:
    """Join the job's id and the step's: two jsrun of one job are two launches."""
    return job if job is None or namespace is None else f"{job}.{namespace}"


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the ids of job and step."""
    job, _, namespace = (spec.job_id or "").partition(".")
    return {name: text for name, text in (("LSB_JOBID", job), ("PMIX_NAMESPACE", namespace)) if text}


def ask_rank_file(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Take the first of the job's hosts after the one of its script, if rank 0 finds itself there."""
    from colossalai_env_mpi import listed_host

    del seconds
    return listed_host("rank-file", "LSB_DJOB_RANKFILE", 1, spec, environ)


JSRUN = Resolver(
    name="jsrun",
    layer=Layer.MPI,
    detect=any_of("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
    rank=var("JSM_NAMESPACE_RANK"),
    world_size=var("JSM_NAMESPACE_SIZE"),
    local_rank=var("JSM_NAMESPACE_LOCAL_RANK", required=False),
    local_world_size=var("JSM_NAMESPACE_LOCAL_SIZE", required=False),
    job_id=derive(launch_token, var("LSB_JOBID", required=False), var("PMIX_NAMESPACE", required=False)),
    emulated=emulated,
    locate=(HostQuery("rank-file", ask_rank_file),),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of jsrun."""
    return [JSRUN]

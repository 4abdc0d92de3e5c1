"""PMIx alone, as under PRRTE's prterun and prun: rank and namespace are variables, all else is asked.

Facts: runs of PRRTE 3.0 (Open MPI 5.0.11) and 5.0.0rc1, and the PMIx standard 5.0, section "Process-related
environmental variables": PMIX_NAMESPACE and PMIX_RANK alone. PMIx knows the job's size, the local rank, the local
size and rank 0's host; its pmix.num.nodes was wrong in both (4 for 2 hosts).
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

PRRTE = ("prterun-", "prte-")
"""Beginnings of PRRTE's namespaces, whose daemons may be tasks of the other launchers."""

BESIDE = ("SLURM_JOB_ID", "FLUX_TASK_RANK", "JSM_NAMESPACE_RANK", "PALS_RANKID", "PMI_RANK")
"""Marks of launchers that serve PMIx besides."""


def not_alone(environ: Environ) -> NoMatch | None:
    """Leave a task to the launcher whose own variables say more."""
    namespace = environ.get("PMIX_NAMESPACE")
    by_others = namespace is not None and not namespace.startswith(PRRTE)
    for name in ("OMPI_COMM_WORLD_RANK", *(BESIDE if by_others else ())):
        if name in environ:
            return NoMatch(f"{name} says more")
    return None


def complete(environ: Environ, seconds: float) -> Mapping[str, str] | str:
    """Ask PMIx how many processes there are; what that takes is imported when it is needed."""
    from colossalai_env_openmpi.pmix import complete as ask

    return ask(environ, seconds)


def ask_pmix(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Ask PMIx for rank 0's host."""
    from colossalai_env_openmpi.pmix import ask

    return ask(spec, environ, seconds)


PMIX = Resolver(
    name="pmix",
    layer=Layer.STEP,
    detect=any_of("PMIX_RANK", "pmix.job.size"),
    exclude=not_alone,
    rank=var("PMIX_RANK"),
    world_size=var("pmix.job.size"),
    local_rank=var("pmix.lrank", required=False),
    local_world_size=var("pmix.local.size", required=False),
    job_id=var("PMIX_NAMESPACE"),
    complete=complete,
    started_by=("slurm", "flux", "pals", "jsrun"),
    locate=(HostQuery("pmix", ask_pmix),),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of PMIx."""
    return [PMIX]

"""The launcher house, which states rank 0's host in a file.

Facts: state here where they come from: a manual, a version that was run.
"""

from collections.abc import Iterable
from typing import Any

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import (
    DistSpec,
    Environ,
    HostAnswer,
    HostQuery,
    Layer,
    Resolver,
    any_of,
    hookimpl,
    host_name,
    var,
)


def ask(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Read the file; init_from_env() calls this, and resolve() never does."""
    import json  # noqa: PLC0415 - most processes never need it

    del seconds
    path = environ.get("HOUSE_RANK_TABLE")
    if path is None:
        return "HOUSE_RANK_TABLE is not set"
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - quick to import
            table: Any = json.load(file)
        host = host_name(table["ranks"][0]["host"])
    except (OSError, ValueError, LookupError, TypeError) as problem:
        told = f"HOUSE_RANK_TABLE is {path!r}: {type(problem).__name__}: {problem}"
        raise CannotLocate(spec.resolver, "rank-table", told) from problem
    return HostAnswer(host, "the file of HOUSE_RANK_TABLE")


HOUSE = Resolver(
    name="house",
    layer=Layer.MPI,  # who starts whom? WORKER, MPI, STEP, PLATFORM
    detect=any_of("HOUSE_RANK", "HOUSE_WORLD_SIZE"),
    rank=var("HOUSE_RANK"),
    world_size=var("HOUSE_WORLD_SIZE"),
    local_rank=var("HOUSE_LOCAL_RANK"),
    job_id=var("HOUSE_JOB_ID", required=False),
    locate=(HostQuery("rank-table", ask),),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver."""
    return [HOUSE]

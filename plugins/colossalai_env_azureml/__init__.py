"""Azure Machine Learning's jobs on several instances without a distribution, whose command runs once on each.

Facts: Microsoft's page "Azure Batch runtime environment variables", and public scripts that start torchrun from these
variables. No run. With a distribution of PyTorch or MPI, RANK or Open MPI's variables are set, and say more.
AZ_BATCH_MASTER_NODE is set where there are several instances.
"""

from collections.abc import Iterable, Mapping

from colossalai_env.resolver import (
    DistSpec,
    Environ,
    Layer,
    NoMatch,
    Resolver,
    any_of,
    derive,
    hookimpl,
    host_name,
    port_number,
    var,
)

COUNT, INDEX, MAIN = "AZUREML_NODE_COUNT", "AZ_BATCHAI_TASK_INDEX", "AZ_BATCH_MASTER_NODE"


def one_instance(environ: Environ) -> NoMatch | None:
    """Leave a job of one instance alone, which has not all of the variables."""
    if MAIN in environ or environ.get(COUNT) not in {None, "1"} or {INDEX, COUNT} <= environ.variables.keys():
        return None
    return NoMatch(f"{MAIN} is not set, and {COUNT} not or to 1")


def endpoint(text: str) -> tuple[str, int]:
    """Read host and port of the main instance, such as 10.0.0.4:6000."""
    host, _, port = text.rpartition(":")
    try:
        return host_name(host), port_number(port)
    except ValueError:
        msg = "a host and a port, such as 10.0.0.4:6000"
        raise ValueError(msg) from None


def its_host(main: tuple[str, int]) -> str:
    """Return the main instance's address."""
    return main[0]


def its_port(main: tuple[str, int]) -> int:
    """Return the main instance's port."""
    return main[1]


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the main instance, where there are several."""
    return {MAIN: f"{spec.host}:{spec.port}"} if spec.world_size > 1 and spec.host and spec.port else {}


AZUREML = Resolver(
    name="azureml",
    layer=Layer.PLATFORM,
    detect=any_of(COUNT, INDEX, MAIN),
    exclude=one_instance,
    counts_nodes=True,
    rank=var(INDEX, "NODE_RANK"),
    world_size=var(COUNT),
    host=derive(its_host, var(MAIN, read=endpoint)),
    port=derive(its_port, var(MAIN, read=endpoint)),
    job_id=var("AZUREML_RUN_ID", required=False),
    emulated=emulated,
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of Azure Machine Learning."""
    return [AZUREML]

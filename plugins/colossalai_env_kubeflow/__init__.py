"""Kubeflow's trainer, version 2, in pods that run a script without torchrun: one process a pod.

Facts: the source of Kubeflow trainer 2.3 (pkg/runtime/framework/plugins/torch/torch.go): PET_* are torchrun's own
input, which it reads by itself. PyTorchJob, of training-operator 1.9, sets RANK and WORLD_SIZE besides.
"""

from collections.abc import Iterable, Mapping

from colossalai_env.resolver import DistSpec, Environ, Layer, NoMatch, Resolver, any_of, hookimpl, var


def for_torchrun(environ: Environ) -> NoMatch | None:
    """Claim pods of one process each; what else torchrun is to start, and jobs of no fixed size, is its own."""
    if environ.get("PET_NPROC_PER_NODE") not in {None, "1"}:
        return NoMatch("PET_NPROC_PER_NODE leaves the processes of a node to torchrun")
    if "PET_RDZV_ENDPOINT" in environ or "PET_STANDALONE" in environ:
        return NoMatch("PET_RDZV_ENDPOINT or PET_STANDALONE is set: torchrun numbers the nodes")
    if environ.get("PET_NNODES") == "1" and "PET_NODE_RANK" not in environ:
        return NoMatch("PET_NNODES is 1 and PET_NODE_RANK is not set")
    return None


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the number of processes of a node."""
    del spec
    return {"PET_NPROC_PER_NODE": "1"}


KUBEFLOW = Resolver(
    name="kubeflow",
    layer=Layer.PLATFORM,
    detect=any_of("PET_NNODES", "PET_NODE_RANK"),
    exclude=for_torchrun,
    counts_nodes=True,
    rank=var("PET_NODE_RANK"),
    world_size=var("PET_NNODES"),
    host=var("PET_MASTER_ADDR"),
    port=var("PET_MASTER_PORT"),
    emulated=emulated,
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of Kubeflow's trainer."""
    return [KUBEFLOW]

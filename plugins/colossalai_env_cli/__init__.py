"""The command line of the training script itself: ``--rank --world_size --host --port``."""

from collections.abc import Iterable

from colossalai_env import Environ, Layer, NotMine, Resolver, hookimpl, var

MARKS = ("--rank", "--world_size", "--host", "--port")


def all_given(environ: Environ) -> NotMine | None:
    """All of --rank, --world_size, --host and --port are given: fewer may mean LoRA's rank or a web server's port."""
    missing = [mark for mark in MARKS if mark not in environ]
    return NotMine(f"no {', '.join(missing)} among the arguments") if missing else None


CLI_ARGS = Resolver(
    name="cli-args",
    layer=Layer.ARGUMENTS,
    present=all_given,
    rank=var("--rank"),
    world_size=var("--world_size"),
    local_rank=var("--local_rank", required=False),
    host=var("--host"),
    port=var("--port"),
    backend=var("--backend", required=False),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of command-line arguments."""
    return [CLI_ARGS]

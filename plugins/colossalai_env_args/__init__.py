"""The command line of the training script itself: ``--rank --world_size --host --port``.

--rank alone may be LoRA's, and --port a web server's.
"""

from collections.abc import Iterable

from colossalai_env.resolver import Environ, Layer, NoMatch, Resolver, hookimpl, var

MARKS = ("--rank", "--world_size", "--host", "--port")


def all_given(environ: Environ) -> NoMatch | None:
    """All of --rank, --world_size, --host and --port are given; where no launcher claims the process, the first two."""
    missing = tuple(mark for mark in MARKS if mark not in environ)
    if not missing:
        return None
    reason = f"no {', '.join(missing)} among the arguments"
    typed = not {"--rank", "--world_size"} & {*missing}
    return NoMatch(reason, ("--rank", "--world_size"), missing) if typed else NoMatch(reason)


CLI_ARGS = Resolver(
    name="cli-args",
    layer=Layer.ARGUMENTS,
    detect=all_given,
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

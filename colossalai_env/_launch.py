"""The launch interface of Colossal-AI: launch(), launch_from_torch(), launch_from_slurm(), launch_from_openmpi()."""

import argparse
import logging
from collections.abc import Callable
from typing import Any, NoReturn

from ._arguments import ARGUMENTS, NOT_GIVEN, Default, arguments
from ._config import ConfigLike
from ._job import Job
from ._join import init_from_env
from ._reporting import report_failure
from ._resolution import examine, failed
from ._rows import READERS
from .environ import Environ
from .errors import (
    ColossalaiEnvError,
    ConflictingResolvers,
    IncompleteArguments,
    InvalidConfig,
    ResolverDoesNotMatch,
    WrongLauncher,
    ends_at_caller,
)
from .spec import DistSpec

log = logging.getLogger("colossalai_env")

STARTERS = {"torch": "torchrun", "slurm": "srun", "openmpi": "Open MPI's mpirun"}
"""What starts the processes that a resolver knows."""

CALLS = {
    "torch": "launch_from_torch(config)",
    "slurm": "launch_from_slurm(config, host, port)",
    "openmpi": "launch_from_openmpi(config, host, port)",
    "single-process": "launch(config, rank, world_size, host, port)",
}
"""The call that fits a resolver; any other is served by `init_from_env`."""


def get_default_parser() -> argparse.ArgumentParser:
    """Return a parser for ``--config --host --port --world_size --rank --local_rank --backend``, for more to be added.

    Each name is taken with dashes too. Numbers are plain decimals. Where no backend is typed, launch functions take
    ``nccl``, and `init_from_env` with `args` the one that fits the device.
    """
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--config", help="the config file (.py, .toml, .json or .yaml)")
    add_rank_options(parser)
    parser.add_argument("--backend", default=Default("nccl"), help="torch's backend: nccl on GPUs, gloo on CPUs")
    return parser


def add_rank_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a process that is started by hand is told who it is."""
    parser.add_argument("--host", type=_read("host"), help="rank 0's name or address")
    parser.add_argument("--port", type=_read("port"), help="the port at which rank 0 listens")
    parser.add_argument("--world_size", "--world-size", type=_read("world_size"), help="how many processes there are")
    parser.add_argument("--rank", type=_read("rank"), help="this process among all, from 0")
    parser.add_argument(
        "--local_rank", "--local-rank", type=_read("local_rank"), help="this process among those of its node, from 0"
    )


def _read(field: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:  # noqa: ANN401 - each field has its own type
        try:
            return READERS[field](text)
        except ValueError as expected:
            raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}") from None

    return read


@ends_at_caller
def launch(
    config: ConfigLike,
    rank: int,
    world_size: int,
    host: str,
    port: int,
    backend: str = "nccl",
    local_rank: int | None = None,
    seed: int = 1024,
    verbose: bool = True,  # noqa: FBT002 - Colossal-AI's signature
) -> Job:
    """Join the process group as this rank of this world, whatever the environment says.

    The local rank, when it is not given, is found out in the roll call. `seed` goes to random, numpy and torch;
    `verbose` logs one line on rank 0. Raises a `ColossalaiEnvError`, as `init_from_env` does.
    """
    said: dict[str, object] = {"--rank": rank, "--world_size": world_size, "--host": host, "--port": port}
    missing = tuple(option for option, value in said.items() if value in NOT_GIVEN)
    if missing:
        given = tuple(option for option in said if option not in missing)
        _refuse(IncompleteArguments(given, missing), rank=rank, world_size=world_size, host=host, port=port)
    return _join(
        config,
        rank=rank,
        world_size=world_size,
        host=host,
        port=port,
        local_rank=local_rank,
        backend=backend,
        seed=seed,
        verbose=verbose,
    )


@ends_at_caller
def launch_from_torch(
    config: ConfigLike,
    backend: str = "nccl",
    seed: int = 1024,
    verbose: bool = True,  # noqa: FBT002 - Colossal-AI's signature
) -> Job:
    """Join the process group of a job that torchrun started; raise `WrongLauncher` in any other process."""
    return _launch_from("torch", config, None, None, backend, seed, verbose=verbose)


@ends_at_caller
def launch_from_slurm(
    config: ConfigLike,
    host: str | None = None,
    port: int | None = None,
    backend: str = "nccl",
    seed: int = 1024,
    verbose: bool = True,  # noqa: FBT002 - Colossal-AI's signature
) -> Job:
    """Join the process group of a step that srun started; raise `WrongLauncher` in any other process.

    Host and port, when they are not given, are those that the step's variables lead to.
    """
    return _launch_from("slurm", config, host, port, backend, seed, verbose=verbose)


@ends_at_caller
def launch_from_openmpi(
    config: ConfigLike,
    host: str | None = None,
    port: int | None = None,
    backend: str = "nccl",
    seed: int = 1024,
    verbose: bool = True,  # noqa: FBT002 - Colossal-AI's signature
) -> Job:
    """Join the process group of a job that Open MPI's mpirun started; raise `WrongLauncher` in any other process.

    Host and port, when they are not given, are found as `init_from_env` finds them.
    """
    return _launch_from("openmpi", config, host, port, backend, seed, verbose=verbose)


def _launch_from(
    resolver: str, config: ConfigLike, host: str | None, port: int | None, backend: str, seed: int, *, verbose: bool
) -> Job:
    _refuse_wrong_launcher(resolver, host, port)
    return _join(config, resolver=resolver, host=host, port=port, backend=backend, seed=seed, verbose=verbose)


def _refuse_wrong_launcher(resolver: str, host: str | None, port: int | None) -> None:
    """Raise `WrongLauncher` where the resolver does not claim this process, or a nearer one says another rank.

    Raises `ConflictingResolvers` where the two cannot both be right.
    """
    environ, given = Environ.snapshot(), arguments(host=host, port=port)
    alone = examine(environ, given, resolver).outcome
    found = examine(environ, given).outcome
    if isinstance(found, ConflictingResolvers) and not isinstance(alone, ResolverDoesNotMatch):
        raise found
    if isinstance(alone, ResolverDoesNotMatch):
        reason = alone.reason
    elif isinstance(alone, DistSpec) and isinstance(found, DistSpec) and _who(alone) != _who(found):
        reason = f"{found.resolver}, which is nearer, says {_who(found)}, and {resolver} says {_who(alone)}"
    else:
        return
    nearest = found.resolver if isinstance(found, DistSpec) else ""
    raise WrongLauncher(
        f"launch_from_{resolver}",
        STARTERS[resolver],
        reason,
        "no launcher" if nearest == "single-process" else STARTERS.get(nearest, nearest or "something unclear"),
        CALLS.get(nearest, "init_from_env(config=config)"),
    )


def _who(spec: DistSpec) -> str:
    return f"rank {spec.rank} of {spec.world_size}"


def _join(config: ConfigLike | None, *, verbose: bool, **options: Any) -> Job:  # noqa: ANN401 - of several types
    if config is None:
        fields = {name: options[name] for name in ARGUMENTS if name in options}
        _refuse(InvalidConfig("config=None", "a config is required, a path or a dict"), **fields)
    job = init_from_env(config=config, **options)
    if verbose and job.rank == 0:
        log.info("%s", job)
    return job


def _refuse(error: ColossalaiEnvError, **keywords: Any) -> NoReturn:  # noqa: ANN401 - fields of several types
    """Raise an error of this call, and report it to the other ranks."""
    environ, given = Environ.snapshot(), arguments(**keywords)
    report_failure(error, failed(error, examine(environ, given)), environ, given)
    raise error

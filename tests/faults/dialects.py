"""What a rank's launcher tells it: the variables and arguments of each dialect, for either library."""

import os
from typing import Any

import attrs
from colossalai_env_slurm import SLURM

from colossalai_env import DistSpec, resolve
from colossalai_env._derived import derived_port
from tests.devices import HIDDEN

from .model import Fault, Rank
from .ports import free_port, is_free

ALWAYS = {
    "PATH": os.environ.get("PATH", ""),
    "HOME": os.environ.get("HOME", "/"),
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "PYTHONUNBUFFERED": "1",
    **HIDDEN,
}


@attrs.frozen
class Place:
    """Where a fault happens: its ports, and the number of its Slurm job where it has one."""

    ports: tuple[int, ...]
    number: int = 0

    @property
    def port(self) -> int:
        """The port at which rank 0 is looked for first."""
        return self.ports[0]


def place_for(fault: Fault) -> Place:
    """Choose a port that nobody has, or a Slurm job from which such ports are derived."""
    if not fault.derived:
        return Place((free_port(),))
    number = free_port()
    while True:
        ports = tuple(derived_port(f"{number}.0", attempt) for attempt in range(3))
        if all(map(is_free, ports)):
            return Place(ports, number)
        number += 100_000


def environment(rank: Rank, place: Place, library: str) -> dict[str, str]:
    """Return all variables of a rank's process."""
    found: dict[str, str | None] = dict(ALWAYS)
    by_hand = {
        "RANK": str(rank.rank),
        "WORLD_SIZE": str(rank.size),
        "MASTER_ADDR": rank.host,
        "MASTER_PORT": str(place.port),
    }
    match rank.dialect:
        case "env":
            found |= by_hand
        case "torchrun":
            found |= by_hand
            found |= {
                "LOCAL_RANK": str(rank.rank),
                "LOCAL_WORLD_SIZE": str(rank.size),
                "GROUP_RANK": "0",
                "GROUP_WORLD_SIZE": "1",
                "TORCHELASTIC_RUN_ID": rank.job or "job",
                "TORCHELASTIC_RESTART_COUNT": "0",
                "TORCHELASTIC_USE_AGENT_STORE": "False",
            }
        case "slurm":
            found |= slurm(rank, place.number) if library == "colossalai_env" else by_hand
        case "arguments":
            pass
        case _:
            raise ValueError(rank.dialect)
    found |= rank.settings
    return {name: value.replace("<port>", str(place.port)) for name, value in found.items() if value is not None}


def slurm(rank: Rank, number: int) -> dict[str, str]:
    """Return what srun sets in this task of a step on one node."""
    spec = DistSpec(
        rank=rank.rank,
        world_size=rank.size,
        local_rank=rank.rank,
        local_world_size=rank.size,
        node_rank=0,
        num_nodes=1,
        host="localhost",
        job_id=f"{number}.0",
    )
    variables = dict(SLURM.emulate(spec).variables)
    said = resolve(env=variables, argv=[])
    if (said.rank, said.port) != (rank.rank, derived_port(f"{number}.0")):
        raise AssertionError(f"the emulated step is read as {said}")
    return variables


def keywords(rank: Rank, place: Place) -> dict[str, Any]:
    """Return the arguments of a rank's call."""
    if rank.dialect != "arguments":
        return dict(rank.keywords)
    given = {"rank": rank.rank, "world_size": rank.size, "host": rank.host, "port": place.port}
    return {**given, **rank.keywords}

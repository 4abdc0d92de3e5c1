"""Ranks that disagree with the others, or that have an error of their own."""

from typing import Any

from colossalai_env._rendezvous.protocol.requests import VERSION
from colossalai_env._version import VERSION as LIBRARY
from tests.faults.model import Fault, Rank, T, connected, entered, fine, told, world

ODD = 2.0
"""Within which a disagreement stops all, counted from the last arrival."""

ALONE = 3.0
"""Within which the others are told of an error that one rank has alone."""


def _odd(rank: int, size: int = 3, **odd: Any) -> Rank:
    """Return a rank of another mind, which comes last."""
    return Rank(name=str(rank), rank=rank, size=size, after=connected("1", 0.5), **odd)


def _release(rank: int, library: str, protocol: int) -> Rank:
    """Return a rank with another release of the library."""
    return Rank(name=str(rank), rank=rank, size=3, cold=True, timeout=60.0, release=(library, protocol))


FAULTS = (
    Fault(
        name="world size of rank 2",
        promises=(5,),
        story="rank 2 says that there are 5 ranks, and the others say 3",
        processes=(*world(3, only="0 1"), _odd(2, 5)),
        says=(told("0 1 2", "world size|WORLD_SIZE", "rank 2", "<here>", "3", "5", within=ODD, since=entered("2")),),
    ),
    Fault(
        name="world size of rank 0",
        promises=(5,),
        story="rank 0 says that there are 2 ranks, and the others say 3",
        processes=(Rank(name="0", rank=0, size=2, after=entered("1", 0.5)), *world(3, only="1 2")),
        says=(told("0 1 2", "world size|WORLD_SIZE", "rank 0", "<here>", "2", "3", within=ODD, since=entered("0")),),
    ),
    Fault(
        name="backend of rank 2",
        promises=(5,),
        story="rank 2 asks for another backend than the others",
        processes=(*world(3, only="0 1"), _odd(2, keywords={"backend": "fake"})),
        says=(told("0 1 2", "backend", "rank 2", "<here>", "fake", "gloo", within=ODD, since=entered("2")),),
    ),
    Fault(
        name="torch of rank 2",
        promises=(5,),
        story="rank 2 has torch 2.6.0, and the others another",
        processes=(*world(3, only="0 1"), _odd(2, torch_version="2.6.0")),
        says=(told("0 1 2", "torch", "rank 2", "<here>", "2.6.0", within=ODD, since=entered("2")),),
    ),
    Fault(
        name="torch of rank 0",
        promises=(5,),
        story="rank 0 has torch 2.6.0, and the others another",
        processes=(
            Rank(name="0", rank=0, size=3, torch_version="2.6.0", after=entered("2", 0.5)),
            *world(3, only="1 2"),
        ),
        says=(told("0 1 2", "torch", "rank 0", "<here>", "2.6.0", within=ODD, since=entered("0")),),
    ),
    Fault(
        name="another release on rank 1",
        promises=(5,),
        story="rank 1 of 3 has colossalai-env 99.1, whose protocol is the same",
        processes=(*world(3, only="0 2", timeout=60.0), _release(1, "99.1", VERSION)),
        says=(told("0 1 2", "rank 1", "<pid 1>", "colossalai-env version", "99.1", LIBRARY, "<here>", within=60.0),),
    ),
    *(
        Fault(
            name=f"another protocol on rank {rank}",
            promises=(5,),
            story=f"rank {rank} of 3 has colossalai-env 99.1, whose protocol has another version",
            processes=(
                *world(3, only=" ".join(str(other) for other in range(3) if other != rank), timeout=60.0),
                _release(rank, "99.1", VERSION + 1),
            ),
            says=(told("0 1 2", f"rank {rank}|rank 1|rank 2|<pid {rank}>", "99.1", LIBRARY, "<here>", within=60.0),),
        )
        for rank in (0, 1)
    ),
    Fault(
        name="resolver of rank 1",
        promises=(5,),
        story="no rank has a launch id; rank 1 of 2 is told its numbers by arguments, rank 0 by variables",
        processes=(*world(2, only="0"), Rank(name="1", rank=1, size=2, dialect="arguments", after=entered("0", 0.5))),
        says=(told("0 1", "resolver", "rank 1", "<here>", "torch", "arguments", within=ODD, since=entered("1")),),
        plain="it has no resolvers",
    ),
    Fault(
        name="malformed RANK",
        promises=(6,),
        story="RANK of one process is x1",
        processes=(*world(3, only="0 2"), Rank(name="1", rank=1, size=3, settings={"RANK": "x1"})),
        says=(
            told("1", "RANK", "x1", within=T + 2),
            told("0 2", "RANK", "x1", "<here>", within=ALONE, since=entered("1")),
        ),
    ),
    Fault(
        name="malformed WORLD_SIZE",
        promises=(6,),
        story="WORLD_SIZE of rank 2 is '3 '",
        processes=(*world(3, only="0 1"), Rank(name="2", rank=2, size=3, settings={"WORLD_SIZE": "3 "})),
        says=(
            told("2", "WORLD_SIZE", "'3 '", within=T + 2),
            told("0 1", "WORLD_SIZE", "rank 2", "<here>", within=ALONE, since=entered("2")),
        ),
    ),
    Fault(
        name="malformed LOCAL_RANK of rank 0",
        promises=(6,),
        story="LOCAL_RANK of rank 0 is empty",
        processes=(
            Rank(name="0", rank=0, size=3, settings={"LOCAL_RANK": ""}),
            *world(3, only="1 2"),
        ),
        says=(
            told("0", "LOCAL_RANK", within=T + 2),
            told("1 2", "LOCAL_RANK", "rank 0", "<here>", within=ALONE, since=entered("0")),
        ),
    ),
    Fault(
        name="rank beyond the world",
        promises=(6,),
        story="three ranks are started in a world of 2",
        processes=(*world(2), Rank(name="2", rank=2, size=2)),
        says=(
            told("2", "RANK", "WORLD_SIZE", "2", within=T + 2),
            told("0 1", "RANK", "rank 2", "<here>", maybe=True, within=ALONE, since=entered("2")),
        ),
    ),
    Fault(
        name="unknown backend on rank 1",
        promises=(6,),
        story="rank 1 asks for the backend glooo",
        processes=(*world(3, only="0 2"), Rank(name="1", rank=1, size=3, keywords={"backend": "glooo"})),
        says=(
            told("1", "glooo", within=T + 2),
            told("0 2", "glooo", "rank 1", "<here>", within=ALONE, since=entered("1")),
        ),
    ),
    Fault(
        name="unknown backend on rank 0",
        promises=(6,),
        story="rank 0 asks for the backend glooo",
        processes=(Rank(name="0", rank=0, size=3, keywords={"backend": "glooo"}), *world(3, only="1 2")),
        says=(
            told("0", "glooo", within=T + 2),
            told("1 2", "glooo", "rank 0", "<here>", within=ALONE, since=entered("0")),
        ),
    ),
    Fault(
        name="no GPU on rank 2",
        promises=(6,),
        story="rank 2 asks for nccl and has no GPU, some time after the others came",
        processes=(*world(3, only="0 1"), _odd(2, keywords={"backend": "nccl"})),
        says=(
            told("2", "nccl", "GPU", within=T + 2),
            told("0 1", "nccl", "GPU", "rank 2", "<here>", within=ALONE, since=entered("2")),
        ),
    ),
    Fault(
        name="no GPU anywhere",
        promises=(6, 1),
        story="all ranks ask for nccl and none has a GPU",
        processes=world(3, keywords={"backend": "nccl"}),
        says=(told("0 1 2", "nccl", "GPU", within=ALONE + 1),),
    ),
    Fault(
        name="RANK unset",
        promises=(6,),
        story="rank 1 of 3 is started without RANK",
        processes=(*world(3, only="0 2"), Rank(name="1", rank=1, size=3, settings={"RANK": None})),
        says=(
            told("1", "RANK", within=T + 2),
            told("0 2", "RANK", "<here>", within=ALONE, since=entered("1")),
        ),
    ),
    Fault(
        name="unknown resolver",
        promises=(6,),
        story="rank 1 of 3 has COLOSSALAI_ENV_RESOLVER=slrm",
        processes=(*world(3, only="0 2"), Rank(name="1", rank=1, size=3, settings={"COLOSSALAI_ENV_RESOLVER": "slrm"})),
        says=(
            told("1", "COLOSSALAI_ENV_RESOLVER", "slrm", within=T + 2),
            told("0 2", "COLOSSALAI_ENV_RESOLVER", "slrm", "<here>", within=ALONE, since=entered("1")),
        ),
        plain="it has no resolvers",
    ),
    Fault(
        name="device that is not there",
        promises=(6,),
        story="rank 1 of 3 asks for the device cuda:0 and has no GPU",
        processes=(*world(3, only="0 2"), Rank(name="1", rank=1, size=3, keywords={"device": "cuda:0"})),
        says=(
            told("1", "cuda", within=T + 2),
            told("0 2", "cuda", "<here>", within=ALONE, since=entered("1")),
        ),
        plain="it takes no device by name",
    ),
    Fault(
        name="network interface that is not there",
        promises=(6,),
        story="GLOO_SOCKET_IFNAME of rank 1 is no interface: its backend cannot connect",
        processes=(*world(3, only="0 2"), Rank(name="1", rank=1, size=3, settings={"GLOO_SOCKET_IFNAME": "nowhere0"})),
        says=(
            told("1", "gloo", "GLOO_SOCKET_IFNAME is 'nowhere0'", within=T + 2),
            told(
                "0 2",
                "gloo",
                "(rank 1 on <here>)",
                "GLOO_SOCKET_IFNAME is 'nowhere0'",
                within=ALONE,
                since=entered("1"),
            ),
        ),
    ),
    Fault(
        name="network interface that is nowhere",
        promises=(6, 1),
        story="GLOO_SOCKET_IFNAME is no interface on any rank",
        processes=world(3, settings={"GLOO_SOCKET_IFNAME": "nowhere0"}),
        says=(told("0 1 2", "gloo", "<here>", "GLOO_SOCKET_IFNAME is 'nowhere0'", within=ALONE),),
    ),
    Fault(
        name="too few files for rank 0",
        promises=(6,),
        story="rank 0 of 20 may open 60 files, too few for its connections",
        processes=(Rank(name="0", rank=0, size=20, files=60), *world(20, only="1 2")),
        says=(
            told("0", "60", "file descriptors", "ulimit", within=T + 2),
            told("1 2", "60", "file descriptors", "rank 0", within=ALONE, since=entered("0")),
        ),
    ),
    Fault(
        name="too few files for rank 0, which comes last",
        promises=(6, 1),
        story="rank 0 of 20 may open 60 files, and comes 2 s after ranks that wait for it",
        processes=(
            *world(20, only="1 2", timeout=12.0),
            Rank(name="0", rank=0, size=20, files=60, timeout=12.0, after=entered("2", 2.0)),
        ),
        says=(
            told("0", "60", "file descriptors", "ulimit", within=T + 2),
            told("1 2", "60", "file descriptors", "rank 0", within=1.0, since=entered("0")),
        ),
    ),
    Fault(
        name="malformed MASTER_PORT",
        promises=(6, 2),
        story="MASTER_PORT of rank 1 is no port, so that it can reach nobody",
        processes=(*world(3, only="0 2"), Rank(name="1", rank=1, size=3, settings={"MASTER_PORT": "http"})),
        says=(told("1", "MASTER_PORT", "http", within=T + 2), told("0 2", "1", "of 3", within=T + 1)),
    ),
    Fault(
        name="one local rank for two",
        promises=(11,),
        story="both processes of a node are started with LOCAL_RANK=0, and share no device",
        processes=world(2, settings={"LOCAL_RANK": "0"}),
        says=(fine("0 1"),),
    ),
    Fault(
        name="one local rank for two of torchrun's",
        promises=(11,),
        story="ranks 1 and 2 of 3 have LOCAL_RANK=1, and share no device",
        processes=(
            *world(3, only="0 1", dialect="torchrun"),
            Rank(name="2", rank=2, size=3, dialect="torchrun", settings={"LOCAL_RANK": "1"}),
        ),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="one local rank for two tasks",
        promises=(11,),
        story="two tasks of a Slurm step have SLURM_LOCALID=0, share no device, and no other variable contradicts",
        processes=(
            *world(2, only="0", dialect="slurm"),
            Rank(name="1", rank=1, size=2, dialect="slurm", settings={"SLURM_LOCALID": "0", "SLURM_GTIDS": None}),
        ),
        says=(fine("0 1"),),
    ),
)

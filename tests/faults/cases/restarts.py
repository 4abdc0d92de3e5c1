"""A second init on one port, old keys, disturbed jobs, and where rank 0 listens."""

from typing import Any

from colossalai_env._addresses import Endpoint, own_address
from colossalai_env._rendezvous.listener import listening_address
from tests.faults.model import (
    AGENT,
    HOLD,
    Act,
    At,
    Bystander,
    Fault,
    Look,
    Rank,
    T,
    connected,
    done,
    fine,
    listening,
    ready,
    told,
    world,
)

ONCE = ("init", "sum", "close")


def _restarted(count: int) -> dict[str, Any]:
    return {
        "dialect": "torchrun",
        "settings": {**AGENT, "TORCHELASTIC_RESTART_COUNT": str(count)},
    }


def _disturbed(name: str, story: str, by: str, over: At) -> Fault:
    """Return the fault of a formed group that is disturbed; it sums again afterwards."""
    return Fault(
        name=name,
        promises=(12,),
        story=story,
        processes=(*world(3, steps=HOLD), Bystander(name=by, after=At("summed", "2", 0.1))),
        acts=tuple(Act(over, "go", str(rank)) for rank in range(3)),
        says=(fine("0 1 2"),),
    )


EVERYWHERE = listening_address(Endpoint("localhost", ("127.0.0.1",), (1,), ""))
"""How a socket is shown that listens at all interfaces of this machine."""


def _address(host: str, address: str, dialect: str = "env") -> Fault:
    """Return the fault of a socket that listens where it should not; rank 1 comes late, so that one can look."""
    return Fault(
        name=f"where rank 0 listens, as {host}" + (f" under {dialect}" if dialect != "env" else ""),
        promises=(16,),
        story=f"rank 1 comes 0.6 s late, and MASTER_ADDR is {host}",
        processes=(
            *world(2, only="0", host=host, dialect=dialect, steps=HOLD),
            Rank(name="1", rank=1, size=2, host=host, dialect=dialect, steps=HOLD, after=listening("0", 0.6)),
        ),
        looks=(
            Look(at=listening("0"), addresses=(address,), owner="0"),
            Look(at=listening("0", 0.5), addresses=(address,), owner="0"),
            Look(at=At("summed", "0", 0.1), addresses=(address,), owner="0"),
        ),
        acts=(Act(At("summed", "0", 0.3), "go", "0"), Act(At("summed", "0", 0.3), "go", "1")),
        says=(fine("0 1"),),
    )


FAULTS = (
    Fault(
        name="init, close, init, close, init",
        promises=(14,),
        story="both ranks meet three times on one port",
        processes=world(2, steps=ONCE * 3),
        says=(fine("0 1"), fine("0 1", turn=0), fine("0 1", turn=1)),
    ),
    Fault(
        name="init again, rank 0 slow",
        promises=(14,),
        story="both ranks meet again on one port, and rank 0 takes 0.7 s between",
        processes=(
            Rank(name="0", rank=0, size=2, steps=("init", "sum", "close", "nap", *ONCE)),
            Rank(name="1", rank=1, size=2, steps=ONCE * 2),
        ),
        says=(fine("0 1"),),
    ),
    Fault(
        name="init again, rank 1 slow to close",
        promises=(14,),
        story="rank 1 closes 0.7 s later than rank 0, which begins again at once",
        processes=(
            Rank(name="0", rank=0, size=2, steps=ONCE * 2),
            Rank(name="1", rank=1, size=2, steps=("init", "sum", "nap", "close", *ONCE)),
        ),
        says=(fine("0 1"),),
    ),
    Fault(
        name="init again under torchrun",
        promises=(14,),
        story="both ranks meet three times in the store that the agent serves",
        processes=(
            Bystander(name="agent"),
            *world(2, steps=ONCE * 3, dialect="torchrun", settings=AGENT, after=ready("agent")),
        ),
        says=(fine("0 1"), fine("0 1", turn=0)),
    ),
    Fault(
        name="init again after a failure",
        promises=(14, 2),
        story="rank 1 is missing at first; when rank 0 has said so, both begin anew on one port",
        processes=(
            Rank(name="0", rank=0, size=2, timeout=2.0, steps=("try", *ONCE)),
            Rank(name="1", rank=1, size=2, after=At("raised", "0", 0.3)),
        ),
        says=(told("0", "1", "of 2", "<here>", turn=0, within=3.0), fine("0 1")),
    ),
    Fault(
        name="port free after a failure",
        promises=(14,),
        story="rank 1 is missing, and the program of rank 0 goes on after the error: nothing listens any more",
        processes=world(2, only="0", timeout=2.0, steps=("try", "hold")),
        looks=(Look(at=At("holding", "0", 0.5), addresses=(), owner="0"),),
        acts=(Act(At("holding", "0", 0.6), "go", "0"),),
        says=(told("0", "1", "of 2", within=3.0),),
    ),
    Fault(
        name="port free after close",
        promises=(14,),
        story="both ranks have closed their job, and their programs go on: nothing listens any more",
        processes=world(2, steps=("init", "sum", "close", "hold")),
        looks=(Look(at=At("holding", "0", 0.5), addresses=(), owner="0"),),
        acts=(Act(At("holding", "0", 0.6), "go", "0"), Act(At("holding", "0", 0.6), "go", "1")),
        says=(fine("0 1"),),
    ),
    Fault(
        name="init again after all ranks failed",
        promises=(14, 2),
        story="rank 2 is missing at first; when all have said so, all begin anew on one port",
        processes=(
            *world(3, only="0 1", timeout=3.0, steps=("try", "init", "sum", "close")),
            Rank(name="2", rank=2, size=3, after=At("raised", "0", 0.3)),
        ),
        says=(told("0 1", "2", "of 3", "<here>", turn=0, within=4.0), fine("0 1 2")),
    ),
    Fault(
        name="restart in the agent's store",
        promises=(14,),
        story="torchrun starts both ranks anew after a job that ran, in the store that holds the old keys",
        processes=(
            Bystander(name="agent"),
            *(
                Rank(name=f"{name}{rank}", rank=rank, size=2, job="run", after=after, **_restarted(count))
                for name, count, after in (("old", 0, ready("agent")), ("new", 1, At("ended", "old0", 0.3)))
                for rank in (0, 1)
            ),
        ),
        says=(fine("old0 old1 new0 new1"),),
    ),
    Fault(
        name="restart after a kill in the agent's store",
        promises=(14, 9),
        story="torchrun starts both ranks anew after it killed them in the midst of the roll call",
        processes=(
            Bystander(name="agent"),
            *(
                Rank(name=f"old{rank}", rank=rank, size=3, job="run", after=ready("agent"), **_restarted(0))
                for rank in (0, 1)
            ),
            *(
                Rank(name=f"new{rank}", rank=rank, size=3, job="run", after=At("ended", "old1", 0.3), **_restarted(1))
                for rank in (0, 1, 2)
            ),
        ),
        acts=(Act(connected("old1", 0.7), "KILL", "old0"), Act(connected("old1", 0.7), "KILL", "old1")),
        says=(fine("new0 new1 new2"),),
    ),
    Fault(
        name="restart with a rank missing in the agent's store",
        promises=(14, 2),
        story="after a job that ran, rank 1 does not come to the second attempt; its old answer is still there",
        processes=(
            Bystander(name="agent"),
            *(
                Rank(name=f"old{rank}", rank=rank, size=2, job="run", after=ready("agent"), **_restarted(0))
                for rank in (0, 1)
            ),
            Rank(name="new0", rank=0, size=2, job="run", after=At("ended", "old0", 0.3), **_restarted(1)),
        ),
        says=(fine("old0 old1"), told("new0", "1", "of 2", "<here>", within=T + 1, never=("<pid old1>",))),
    ),
    Fault(
        name="at once after a kill on one port",
        promises=(14,),
        story="a job is killed as it runs, and started anew on its port",
        processes=(
            *(Rank(name=f"old{rank}", rank=rank, size=2, steps=HOLD) for rank in (0, 1)),
            *(Rank(name=f"new{rank}", rank=rank, size=2, job="new", after=At("ended", "old0")) for rank in (0, 1)),
        ),
        acts=(Act(At("summed", "old0", 0.1), "KILL", "old1"), Act(At("summed", "old0", 0.1), "KILL", "old0")),
        says=(fine("new0 new1"),),
    ),
    _disturbed("running job scanned", "port scanners visit a job that runs", "scan", done("scan")),
    _disturbed("running job crowded", "300 silent connections to a job that runs", "crowd", ready("crowd", 0.5)),
    _disturbed("running job and slow clients", "clients speak half a request, slowly", "loris", ready("loris", 2.0)),
    Fault(
        name="waiting job scanned",
        promises=(12,),
        story="port scanners visit rank 0 while it waits for rank 2",
        processes=(
            *world(3, only="0 1"),
            Bystander(name="scan", after=connected("1", 0.3)),
            Rank(name="2", rank=2, size=3, after=done("scan")),
        ),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="waiting job crowded",
        promises=(12,),
        story="300 silent connections are held to rank 0 while it waits for rank 2",
        processes=(
            *world(3, only="0 1"),
            Bystander(name="crowd", after=listening("0")),
            Rank(name="2", rank=2, size=3, after=ready("crowd", 0.3)),
        ),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="waiting job and slow clients",
        promises=(12,),
        story="clients speak half a request to rank 0, byte by byte, while it waits for rank 2",
        processes=(
            *world(3, only="0 1"),
            Bystander(name="loris", after=listening("0")),
            Rank(name="2", rank=2, size=3, after=ready("loris", 1.5)),
        ),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="scanned while rank 0 imports torch",
        promises=(12,),
        story="port scanners visit rank 0, a fresh interpreter, from the moment on which it listens",
        processes=(
            Rank(name="0", rank=0, size=2, timeout=60.0, cold=True),
            Rank(name="1", rank=1, size=2, timeout=60.0),
            Bystander(name="scan", after=listening("0")),
        ),
        says=(fine("0 1"),),
    ),
    _address("127.0.0.1", EVERYWHERE),
    _address("127.0.0.3", EVERYWHERE),
    _address("localhost", EVERYWHERE),
    _address("::1", EVERYWHERE),
    _address(own_address(), own_address()),
    _address("127.0.0.1", "127.0.0.1", "torchrun"),
    _address("::1", "::1", "torchrun"),
    Fault(
        name="where rank 0 of a Slurm step listens",
        promises=(16,),
        story="all tasks of a step are on one node, and task 1 comes 0.6 s late",
        processes=(
            *world(2, only="0", dialect="slurm", steps=HOLD),
            Rank(name="1", rank=1, size=2, dialect="slurm", steps=HOLD, after=listening("0", 0.6)),
        ),
        looks=(
            Look(at=listening("0"), addresses=("127.0.0.1",), owner="0"),
            Look(at=listening("0", 0.5), addresses=("127.0.0.1",), owner="0"),
        ),
        acts=(Act(At("summed", "0", 0.3), "go", "0"), Act(At("summed", "0", 0.3), "go", "1")),
        says=(fine("0 1"),),
    ),
    Fault(
        name="where a fresh rank 0 listens",
        promises=(16, 12),
        story="rank 0 is a fresh interpreter: it listens before it imports torch, and by one socket ever after",
        processes=(
            Rank(name="0", rank=0, size=2, timeout=60.0, cold=True, steps=HOLD),
            Rank(name="1", rank=1, size=2, timeout=60.0, steps=HOLD),
        ),
        looks=(
            Look(at=listening("0"), addresses=(EVERYWHERE,), owner="0"),
            Look(at=At("summed", "0", 0.1), addresses=(EVERYWHERE,), owner="0"),
        ),
        acts=(Act(At("summed", "0", 0.3), "go", "0"), Act(At("summed", "0", 0.3), "go", "1")),
        says=(fine("0 1"),),
    ),
)

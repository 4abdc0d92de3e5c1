"""Processes that die, freeze or are stopped while they meet."""

from typing import Any

from tests.faults.model import (
    AGENT,
    Act,
    At,
    Bystander,
    Fault,
    Rank,
    Say,
    T,
    connected,
    entered,
    fine,
    ready,
    signalled,
    told,
    world,
)

LOST = 10.0
"""Within which a process that died or froze is named, counted from the last arrival."""

SERVED = 1.0
"""Within which SIGTERM and Ctrl-C are served."""

TOLD = 3.0
"""Within which the others are told of it."""

MOMENTS = (0.0, 0.01, 0.02, 0.04)
"""Seconds after the last rank's call: the whole takes a twentieth of a second where all are warm and there."""

PATIENT = 6.0
"""A timeout that ends after the loss is seen."""


def _late(rank: int, after: At, size: int = 3, **options: Any) -> Rank:
    given: dict[str, Any] = {"timeout": 12.0, **options}
    return Rank(name=str(rank), rank=rank, size=size, after=after, **given)


def _lost(name: str, story: str, deed: str, who: int) -> Fault:
    """Return the fault of a rank that is lost after it answered and before the last rank comes."""
    others = [rank for rank in (0, 1) if rank != who]
    return Fault(
        name=name,
        promises=(9,),
        story=story,
        processes=(*world(3, only="0 1", timeout=12.0), _late(2, connected("1", 1.2))),
        acts=(Act(connected("1", 0.8), deed, str(who)),),
        says=(
            told(
                " ".join(map(str, [*others, 2])) if who else "1",
                f"rank {who}",
                f"<pid {who}>",
                "<here>",
                within=LOST,
                since=entered("2"),
            ),
            *((told("2", "rank 0", "127.0.0.1:<port>", within=14.0),) if who == 0 else ()),
        ),
    )


def sudden(deed: str, after: float, who: int = 2) -> Fault:
    """Return the fault of a rank that is lost at some moment of the roll call or of the backend's connect."""
    others = " ".join(str(rank) for rank in range(3) if rank != who)
    stopped = Say(who=str(who), by_signal=deed, within=SERVED)
    return Fault(
        name=f"rank {who}: SIG{deed} after {after * 1000:.0f} ms",
        promises=(9, 1) if deed in {"KILL", "STOP"} else (10, 1),
        story=f"rank {who} of 3 gets SIG{deed} {after * 1000:.0f} ms after rank 2 came, the last",
        processes=(*world(3, only="0 1", timeout=PATIENT), _late(2, connected("1", 0.5), timeout=PATIENT)),
        acts=(Act(entered("2", after), deed, str(who)),),
        says=(
            told(others, f"rank {who}|{who}|reset by peer", maybe=True, within=PATIENT + 2),
            *(() if deed in {"KILL", "STOP"} else (stopped,)),
        ),
    )


def _stopped(name: str, story: str, deed: str, who: int, **options: Any) -> Fault:
    """Return the fault of a rank that is stopped by a signal while all wait for rank 2."""
    return Fault(
        name=name,
        promises=(10,),
        story=story,
        processes=(
            Rank(name="0", rank=0, size=3, timeout=12.0, **(options if who == 0 else {})),
            Rank(name="1", rank=1, size=3, timeout=12.0, **(options if who == 1 else {})),
        ),
        acts=(Act(connected("1", 0.7), deed, str(who)),),
        says=(
            Say(who=str(who), by_signal=deed, within=SERVED),
            told(str(1 - who), f"rank {who}", "<here>", within=TOLD, since=signalled(str(who))),
        ),
    )


FAULTS = (
    _lost("killed after answering", "rank 1 of 3 is killed while all wait for rank 2", "KILL", 1),
    _lost("frozen after answering", "rank 1 of 3 is frozen while all wait for rank 2", "STOP", 1),
    _lost("rank 0 killed", "rank 0 of 3 is killed while all wait for rank 2, which comes then", "KILL", 0),
    _lost("rank 0 frozen", "rank 0 of 3 is frozen while all wait for rank 2, which comes then", "STOP", 0),
    Fault(
        name="two killed after answering",
        promises=(9,),
        story="ranks 1 and 2 of 4 are killed while all wait for rank 3",
        processes=(*world(4, only="0 1 2", timeout=12.0), _late(3, connected("2", 1.2), size=4)),
        acts=(Act(connected("2", 0.8), "KILL", "1"), Act(connected("2", 0.8), "KILL", "2")),
        says=(told("0 3", "rank 1", "<pid 1>", "rank 2", "<pid 2>", "<here>", within=LOST, since=entered("3")),),
    ),
    Fault(
        name="killed after answering, and one missing",
        promises=(9, 2),
        story="rank 1 of 4 is killed after it answered, and rank 3 never comes",
        processes=world(4, only="0 1 2"),
        acts=(Act(connected("1", 1.0), "KILL", "1"),),
        says=(told("0 2", "rank 1", "<pid 1>", "3", "of 4", within=T + 1),),
    ),
    Fault(
        name="killed before rank 0 comes",
        promises=(2, 9),
        story="rank 1 of 3 is killed while it looks for rank 0, which comes 1 s later",
        processes=(*world(3, only="1 2", timeout=6.0), Rank(name="0", rank=0, size=3, after=entered("1", 1.0))),
        acts=(Act(entered("1", 0.5), "KILL", "1"),),
        says=(told("0 2", "1", "of 3", "<here>", within=T + 1, since=entered("0")),),
    ),
    Fault(
        name="rank 0 killed at once",
        promises=(9, 3),
        story="rank 0 of 3 is killed as soon as it listens",
        processes=(*world(3, only="0 1"), Rank(name="2", rank=2, size=3, after=At("signalled", "0"))),
        acts=(Act(At("listening", "0"), "KILL", "0"),),
        says=(told("1 2", "rank 0", "<port>|<pid 0>", within=T + 1),),
    ),
    Fault(
        name="rank 0 frozen at once",
        promises=(9, 1),
        story="rank 0 of 3, a fresh interpreter, is frozen when it listens and still imports torch",
        processes=(Rank(name="0", rank=0, size=3, cold=True), *world(3, only="1 2")),
        acts=(Act(At("listening", "0"), "STOP", "0"),),
        says=(told("1 2", "rank 0", "127.0.0.1:<port>", within=T + 1),),
    ),
    Fault(
        name="rank 0 killed while it imports torch",
        promises=(9, 3),
        story="rank 0 of 3, a fresh interpreter, is killed when it listens and still imports torch",
        processes=(Rank(name="0", rank=0, size=3, cold=True), *world(3, only="1 2")),
        acts=(Act(At("listening", "0", 0.3), "KILL", "0"),),
        says=(told("1 2", "rank 0", "127.0.0.1:<port>", within=T + 1),),
    ),
    Fault(
        name="frozen for a moment",
        promises=(9, 12),
        story="rank 1 of 3 is frozen for 1.5 s, over the coming of the last rank",
        processes=(*world(3, only="0 1", timeout=12.0), _late(2, connected("1", 0.8))),
        acts=(Act(connected("1", 0.6), "STOP", "1"), Act(connected("1", 2.1), "CONT", "1")),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="rank 0 frozen for a moment",
        promises=(9, 12),
        story="rank 0 of 3 is frozen for 2 s, over the coming of the last rank",
        processes=(*world(3, only="0 1", timeout=12.0), _late(2, connected("1", 0.8))),
        acts=(Act(connected("1", 0.6), "STOP", "0"), Act(connected("1", 2.6), "CONT", "0")),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="agent killed",
        promises=(9,),
        story="torchrun's agent, which serves the store, is killed while all wait for rank 2",
        processes=(
            Bystander(name="agent"),
            *world(
                3,
                only="0 1",
                timeout=12.0,
                dialect="torchrun",
                after=ready("agent"),
                settings=AGENT,
            ),
        ),
        acts=(Act(connected("1", 1.0), "KILL", "agent"),),
        says=(told("0 1", "agent|store", within=LOST, since=At("signalled", "agent")),),
    ),
    *(sudden(deed, after) for deed in ("KILL", "STOP", "TERM") for after in MOMENTS),
    *(sudden(deed, after, 0) for deed in ("KILL", "STOP") for after in MOMENTS),
    sudden("INT", 0.01),
    _stopped("SIGTERM on rank 1", "rank 1 of 3 gets SIGTERM while all wait for rank 2", "TERM", 1),
    _stopped("SIGTERM on rank 0", "rank 0 of 3 gets SIGTERM while all wait for rank 2", "TERM", 0),
    _stopped("Ctrl-C on rank 1", "rank 1 of 3 gets SIGINT while all wait for rank 2", "INT", 1),
    _stopped("Ctrl-C on rank 0", "rank 0 of 3 gets SIGINT while all wait for rank 2", "INT", 0),
    _stopped(
        "SIGTERM on rank 1, which handles it",
        "rank 1 of 3, whose program exits by a handler of its own, gets SIGTERM while all wait",
        "TERM",
        1,
        handler=True,
    ),
    Fault(
        name="SIGTERM on all",
        promises=(10,),
        story="all ranks get SIGTERM while they wait for rank 3, as from scancel",
        processes=world(4, only="0 1 2", timeout=12.0),
        acts=tuple(Act(connected("2", 0.7), "TERM", str(rank)) for rank in range(3)),
        says=(Say(who="0 1 2", by_signal="TERM", within=SERVED),),
    ),
    Fault(
        name="SIGUSR1 on all, which note it",
        promises=(10, 12),
        story="ranks 0 and 1 get SIGUSR1 while they wait for rank 2, as from srun --signal, and go on",
        processes=(*world(3, only="0 1", handler=True), Rank(name="2", rank=2, size=3, after=connected("1", 1.2))),
        acts=tuple(Act(connected("1", delay), "USR1", str(rank)) for delay in (0.5, 0.7) for rank in range(2)),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="frozen among eight",
        promises=(9,),
        story="rank 5 of 8 is frozen while all wait for rank 7",
        processes=(*world(8, only="0 1 2 3 4 5 6", timeout=12.0), _late(7, connected("5", 1.2), size=8)),
        acts=(Act(connected("5", 0.8), "STOP", "5"),),
        says=(told("0 1 2 3 4 6 7", "rank 5", "<pid 5>", "<here>", within=LOST, since=entered("7")),),
    ),
    Fault(
        name="SIGTERM before rank 0 comes",
        promises=(10, 2),
        story="rank 1 of 3 gets SIGTERM while it looks for rank 0, which comes 0.5 s later",
        processes=(*world(3, only="1 2", timeout=6.0), Rank(name="0", rank=0, size=3, after=entered("1", 1.0))),
        acts=(Act(entered("1", 0.5), "TERM", "1"),),
        says=(
            Say(who="1", by_signal="TERM", within=SERVED),
            told("0 2", "1", "of 3|rank 1", "<here>", within=T + 1, since=entered("0")),
        ),
    ),
    Fault(
        name="Ctrl-C before rank 0 comes",
        promises=(10,),
        story="all ranks but rank 0, which never comes, get SIGINT while they look for it",
        processes=world(3, only="1 2", timeout=12.0),
        acts=(Act(entered("1", 0.7), "INT", "1"), Act(entered("1", 0.7), "INT", "2")),
        says=(Say(who="1 2", by_signal="INT", within=SERVED),),
    ),
    Fault(
        name="SIGTERM at a silent service",
        promises=(10, 1),
        story="rank 1 of 2 gets SIGTERM while its port is a silent service's",
        processes=(Bystander(name="silent"), *world(2, only="1", timeout=12.0, after=ready("silent"))),
        acts=(Act(entered("1", 0.7), "TERM", "1"),),
        says=(Say(who="1", by_signal="TERM", within=SERVED),),
    ),
    Fault(
        name="SIGTERM while torch is imported",
        promises=(10,),
        story="rank 0 of 3, a fresh interpreter, gets SIGTERM when it listens and still imports torch",
        processes=(Rank(name="0", rank=0, size=3, timeout=6.0, cold=True), *world(3, only="1 2", timeout=6.0)),
        acts=(Act(At("listening", "0", 0.2), "TERM", "0"),),
        says=(
            Say(who="0", by_signal="TERM", within=SERVED),
            told("1 2", "rank 0", "<pid 0>", "SIGTERM", within=TOLD, since=signalled("0")),
        ),
    ),
    *(
        Fault(
            name=f"SIGTERM on rank {who} while both import torch",
            promises=(10,),
            story=f"both ranks are fresh interpreters; rank {who} of 2 gets SIGTERM while they import torch",
            processes=world(2, timeout=60.0, cold=True),
            acts=(Act(connected("1", 0.3), "TERM", str(who)),),
            says=(
                Say(who=str(who), by_signal="TERM", within=SERVED, since=signalled(str(who))),
                told(
                    str(1 - who),
                    f"rank {who}",
                    f"<pid {who}>",
                    "SIGTERM",
                    within=58.0,  # they import torch before they look
                ),
            ),
        )
        for who in range(2)
    ),
)

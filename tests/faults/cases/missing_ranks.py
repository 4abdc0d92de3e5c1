"""Ranks that do not come, come late, or look for rank 0 where it is not."""

from colossalai_env._addresses import own_address
from tests.faults.model import AGENT, At, Bystander, Fault, Look, Rank, T, entered, fine, listening, told, world

SOON = T + 1
"""Within which a missing rank is named, counted from each rank's own call."""

NO_NAME, ELSEWHERE = "nowhere.invalid", own_address()

FAULTS = (
    Fault(
        name="last rank missing",
        promises=(2,),
        story="rank 2 of 3 is not started",
        processes=world(3, only="0 1"),
        says=(told("0 1", "2", "of 3", "1", "<here>", within=SOON),),
    ),
    Fault(
        name="middle rank missing",
        promises=(2,),
        story="rank 1 of 3 is not started",
        processes=world(3, only="0 2"),
        says=(told("0 2", "1", "of 3", "<here>", within=SOON),),
    ),
    Fault(
        name="several ranks missing",
        promises=(2,),
        story="ranks 1-2 and 4-6 of 7 are not started",
        processes=world(7, only="0 3"),
        says=(told("0 3", "1-2", "4-6", "of 7", "<here>", within=SOON),),
    ),
    Fault(
        name="rank 0 alone",
        promises=(2,),
        story="only rank 0 of 6 is started",
        processes=world(6, only="0"),
        says=(told("0", "1-5", "of 6", "<here>", within=SOON),),
    ),
    Fault(
        name="missing, and the others come one by one",
        promises=(2, 1),
        story="rank 3 of 5 is not started, and the others are started 0.7 s apart",
        processes=tuple(
            Rank(name=str(rank), rank=rank, size=5, after=At(plus=delay))
            for rank, delay in ((0, 0.0), (1, 0.7), (2, 1.4), (4, 2.1))
        ),
        says=(told("0 1 2 4", "3", "of 5", "<here>", within=SOON),),
    ),
    Fault(
        name="missing, and rank 0 comes after the others",
        promises=(2, 1),
        story="rank 3 of 5 is not started, and rank 0 comes 2 s after the others",
        processes=(
            Rank(name="0", rank=0, size=5, after=entered("1", 2.0)),
            *world(5, only="1 2 4"),
        ),
        says=(told("0 1 2 4", "3", "of 5", "<here>", within=SOON),),
    ),
    Fault(
        name="missing in a Slurm step",
        promises=(2,),
        story="task 2 of a step of 3 is not started",
        processes=world(3, only="0 1", dialect="slurm"),
        says=(told("0 1", "2", "of 3", "<here>", within=SOON),),
    ),
    Fault(
        name="missing with torchrun's agent",
        promises=(2,),
        story="rank 1 of 3 does not come to the store that the agent serves",
        processes=(
            Bystander(name="agent"),
            *world(
                3,
                only="0 2",
                dialect="torchrun",
                after=At("ready", "agent"),
                settings=AGENT,
            ),
        ),
        says=(told("0 2", "1", "of 3", "<here>", within=SOON),),
    ),
    Fault(
        name="rank 0 missing",
        promises=(3, 2),
        story="rank 0 of 3 is not started",
        processes=world(3, only="1 2"),
        says=(told("1 2", "rank 0", "127.0.0.1:<port>", "ECONNREFUSED", "MASTER_ADDR", "MASTER_PORT", within=SOON),),
    ),
    Fault(
        name="rank 0 missing, address in arguments",
        promises=(3,),
        story="rank 0 of 3 is not started, and the others are given its address as arguments",
        processes=world(3, only="1 2", dialect="arguments"),
        says=(told("1 2", "rank 0", "127.0.0.1:<port>", "ECONNREFUSED", "host", "port", "argument", within=SOON),),
    ),
    Fault(
        name="rank 0 missing in a Slurm step",
        promises=(3,),
        story="task 0 of a step of 3 is not started, and the port is derived",
        processes=world(3, only="1 2", dialect="slurm"),
        says=(told("1 2", "rank 0", "<port>", "ECONNREFUSED", "job id|SLURM_JOB_ID", within=SOON),),
    ),
    Fault(
        name="host name unknown",
        promises=(3, 1),
        story=f"MASTER_ADDR is {NO_NAME}, which resolves nowhere",
        processes=world(2, host=NO_NAME),
        says=(told("0 1", NO_NAME, "MASTER_ADDR", within=SOON),),
    ),
    Fault(
        name="host of nobody",
        promises=(3, 2),
        story=f"torchrun's ranks are on one node; rank 1 of 3 is told {ELSEWHERE}, the others 127.0.0.1",
        processes=(
            *world(3, only="0 2", dialect="torchrun"),
            Rank(name="1", rank=1, size=3, host=ELSEWHERE, dialect="torchrun"),
        ),
        says=(
            told("0 2", "1", "of 3", within=SOON),
            told("1", f"{ELSEWHERE}:<port>", "ECONNREFUSED", "MASTER_ADDR", within=SOON),
        ),
    ),
    Fault(
        name="another name of loopback",
        promises=(12,),
        story="rank 0 of 4 is told 127.0.0.1, the others localhost, ::1 and 127.0.0.2",
        processes=tuple(
            Rank(name=str(rank), rank=rank, size=4, host=host)
            for rank, host in enumerate(("127.0.0.1", "localhost", "::1", "127.0.0.2"))
        ),
        says=(fine("0 1 2 3"),),
    ),
    Fault(
        name="import outlasts the timeout on rank 1",
        promises=(2, 1),
        story="rank 1 of 3 takes 20 s to import torch, and the timeout is 4 s",
        processes=(*world(3, only="0 2"), Rank(name="1", rank=1, size=3, cold=True, import_delay=20.0)),
        says=(
            told("0 2", "rank 1|1", "of 3|failed", "importing torch|not imported", "<here>", within=SOON),
            told("1", "torch was not imported within <timeout>|still importing torch: rank 1", "<here>", within=SOON),
        ),
    ),
    Fault(
        name="import outlasts the timeout on rank 0",
        promises=(3, 1),
        story="rank 0 of 3 takes 20 s to import torch, and the timeout is 4 s",
        processes=(*world(3, only="1 2", after=listening("0", 0.2)), *world(3, only="0", cold=True, import_delay=20.0)),
        says=(
            told("1 2", "rank 0", "torch", "<here>", within=SOON),
            told("0", "torch was not imported within <timeout>", "<here>", within=SOON),
        ),
    ),
    Fault(
        name="port of nobody",
        promises=(3, 2),
        story="rank 2 of 3 is told another port, where nobody listens",
        processes=(
            *world(3, only="0 1"),
            Rank(name="2", rank=2, size=3, settings={"MASTER_PORT": "9"}),
        ),
        says=(
            told("0 1", "2", "of 3", within=SOON),
            told("2", "127.0.0.1:9", "ECONNREFUSED", "MASTER_PORT", within=SOON),
        ),
    ),
    Fault(
        name="host of another machine",
        promises=(3, 8),
        story="MASTER_ADDR is another machine's address, and rank 0 cannot listen there",
        processes=world(2, only="0", host="192.0.2.77"),
        says=(told("0", "192.0.2.77", "MASTER_ADDR", "<here>", within=3.0),),
        plain="it would connect to that machine",
    ),
    *(
        Fault(
            name=f"host is every interface, {host}",
            promises=(16,),
            story=f"MASTER_ADDR is {host}, which is no address of rank 0's but all of them; rank 1 comes 0.8 s late",
            processes=(
                Rank(name="0", rank=0, size=2, host=host),
                Rank(name="1", rank=1, size=2, host=host, after=entered("0", 0.8)),
            ),
            looks=(Look(at=listening("0", 0.2), addresses=(address,), owner="0", maybe=True),),
            says=(told("0 1", host, "MASTER_ADDR", maybe=True, within=SOON),),
        )
        for host, address in (("0.0.0.0", "127.0.0.1"), ("::", "::1"))
    ),
    Fault(
        name="last rank late",
        promises=(12,),
        story="rank 2 of 3 comes 3.2 s late, and the timeout is 4 s",
        processes=(*world(3, only="0 1"), Rank(name="2", rank=2, size=3, after=entered("0", T - 0.8))),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="rank 0 late",
        promises=(12,),
        story="rank 0 of 3 comes 3.2 s after the others, and the timeout is 4 s",
        processes=(*world(3, only="1 2"), Rank(name="0", rank=0, size=3, after=entered("2", T - 0.8))),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="rank 0 later than the timeout",
        promises=(3, 1),
        story="rank 0 of 3 comes when the others have given up",
        processes=(*world(3, only="1 2"), Rank(name="0", rank=0, size=3, after=entered("2", T + 2.2))),
        says=(
            told("1 2", "rank 0", "127.0.0.1:<port>", "ECONNREFUSED", within=SOON),
            told("0", "1-2", "of 3", within=SOON),
        ),
    ),
    Fault(
        name="last rank later than the timeout",
        promises=(2, 1),
        story="rank 2 of 3 comes when the others have given up",
        processes=(*world(3, only="0 1"), Rank(name="2", rank=2, size=3, after=entered("0", T + 2.2))),
        says=(
            told("0 1", "2", "of 3", "<here>", within=SOON),
            told("2", "rank 0", "127.0.0.1:<port>", "ECONNREFUSED", within=SOON),
        ),
    ),
)

"""Two jobs at one port, and ports that are taken by others."""

from typing import Any

from tests.faults.model import (
    HOLD,
    Act,
    At,
    Bystander,
    Fault,
    Rank,
    T,
    connected,
    entered,
    fine,
    listening,
    ready,
    told,
    world,
)

TAKEN = 5.0
"""Within which rank 0 says who holds its port."""

STRANGER = 2.0
"""Within which a rank of another job learns whose store it met."""


def _job(job: str, *numbers: int, size: int = 2, **alike: Any) -> tuple[Rank, ...]:
    """Return ranks of a job with an id, named as in "a0"."""
    options: dict[str, Any] = {"dialect": "torchrun", **alike}
    return tuple(Rank(name=f"{job}{number}", rank=number, size=size, job=job, **options) for number in numbers)


def _taken(by: str, *words: str) -> Fault:
    """Return the fault of a given port that another server holds, for both ranks of a job."""
    return Fault(
        name=f"given port taken by {by}",
        promises=(8, 1),
        story=f"another server ({by}) listens at MASTER_PORT",
        processes=(Bystander(name=by), *world(2, after=ready(by))),
        says=(
            told("0", "127.0.0.1:<port>", "MASTER_PORT", "taken", *words, within=TAKEN),
            told("1", "<port>", "MASTER_PORT|MASTER_ADDR"),
        ),
    )


def _answered(by: str, *words: str) -> Fault:
    """Return the fault of ranks that look for rank 0 and find another server."""
    return Fault(
        name=f"rank 0 missing, and {by} answers",
        promises=(3, 1),
        story=f"rank 0 of 3 is not started, and another server ({by}) listens at MASTER_PORT",
        processes=(Bystander(name=by), *world(3, only="1 2", after=ready(by))),
        says=(told("1 2", "rank 0", "127.0.0.1:<port>", "MASTER_PORT|MASTER_ADDR", *words, within=T + 1),),
    )


def _moved(by: str) -> Fault:
    """Return the fault of a derived port that another server holds: the job moves on and starts."""
    return Fault(
        name=f"derived port taken by {by}",
        promises=(8,),
        story=f"another server ({by}) listens at the port that is derived from SLURM_JOB_ID",
        processes=(Bystander(name=by), *world(3, dialect="slurm", after=ready(by), timeout=6.0)),
        says=(fine("0 1 2"),),
    )


FAULTS = (
    Fault(
        name="second job on the port of a running one",
        promises=(7, 8, 12),
        story="job b is started on the port of job a, which runs",
        processes=(*_job("a", 0, 1, steps=HOLD), *_job("b", 0, 1, after=At("summed", "a0"))),
        acts=(Act(At("ended", "b1"), "go", "a0"), Act(At("ended", "b1"), "go", "a1")),
        says=(
            fine("a0 a1"),
            told("b0", "b/0|b", "a/0|a", "<here>", "<pid a0>", "<port>", within=TAKEN),
            told("b1", "b/0|b", "a/0|a", "<here>", "<pid a0>", within=STRANGER),
        ),
    ),
    Fault(
        name="stranger while the job waits",
        promises=(7, 12),
        story="a rank of job b comes to the port of job a, which still waits for its last rank",
        processes=(
            *_job("a", 0, 1, size=3),
            *_job("b", 2, size=3, after=connected("a1", 0.3)),
            *_job("a", 2, size=3, after=At("raised", "b2")),
        ),
        says=(
            fine("a0 a1 a2"),
            told("b2", "b/0|b", "a/0|a", "<here>", "<pid a0>", within=STRANGER),
        ),
    ),
    Fault(
        name="two jobs at once on one port",
        promises=(7, 8),
        story="jobs a and b, of 2 ranks each, are started together with one MASTER_PORT",
        processes=(
            *_job("a", 0, steps=HOLD),
            *_job("b", 1),
            *_job("a", 1, steps=HOLD),
            *_job("b", 0, after=listening("a0")),
        ),
        acts=(Act(At("ended", "b0"), "go", "a0"), Act(At("ended", "b0"), "go", "a1")),
        says=(
            fine("a0 a1"),
            told("b0", "b/0|b", "a/0|a", "<here>", "<pid a0>", within=TAKEN),
            told("b1", "b/0|b|rank 0", "<port>"),
        ),
    ),
    Fault(
        name="two jobs, crosswise",
        promises=(7, 8),
        story="rank 0 of job a and rank 1 of job b are there first, then rank 0 of b and rank 1 of a",
        processes=(
            *_job("b", 1),
            *_job("a", 0, after=entered("b1", 0.5)),
            *_job("b", 0, after=listening("a0", 0.3)),
            *_job("a", 1, after=listening("a0", 0.6)),
        ),
        says=(
            fine("a0 a1"),
            told("b0", "b/0|b", "a/0|a", "<here>", "<pid a0>", within=TAKEN),
            told("b1", "b/0|b", "a/0|a", "<here>", "<pid a0>", within=STRANGER, since=listening("a0")),
        ),
    ),
    Fault(
        name="two jobs with ids of the user's",
        promises=(7,),
        story="jobs set by hand with COLOSSALAI_ENV_JOB_ID of their own come crosswise to one port",
        processes=(
            *(
                Rank(
                    name=f"{job}{rank}",
                    rank=rank,
                    size=2,
                    job=job,
                    settings={"COLOSSALAI_ENV_JOB_ID": f"launch-{job}"},
                    after=after,
                )
                for job, rank, after in (
                    ("a", 0, At()),
                    ("b", 1, listening("a0", 0.2)),
                    ("a", 1, At("raised", "b1")),
                )
            ),
        ),
        says=(
            fine("a0 a1"),
            told("b1", "launch-b", "launch-a", "<here>", "<pid a0>", within=STRANGER),
        ),
    ),
    Fault(
        name="two jobs without ids",
        promises=(7, 4),
        story="ranks of two jobs that are set by hand, with nothing to tell the jobs apart, come to one port",
        processes=(
            *(
                Rank(name=f"{job}{rank}", rank=rank, size=3, job=job, after=after)
                for job, rank, after in (
                    ("a", 0, At()),
                    ("b", 1, entered("a0", 0.3)),
                    ("a", 1, entered("a0", 0.3)),
                )
            ),
        ),
        says=(told("a0 a1 b1", "rank 1", "<pid a1>", "<pid b1>", "<here>", within=5.0),),
    ),
    Fault(
        name="rank of a job without id",
        promises=(7, 2),
        story="rank 2 is started by hand on the port of a job that torchrun started, instead of by torchrun",
        processes=(
            *_job("a", 0, 1, size=3),
            Rank(name="2", rank=2, size=3, dialect="arguments", after=connected("a1", 0.3)),
        ),
        says=(
            told("2", "a/0|a", "<here>", "<pid a0>", within=STRANGER),
            told("a0 a1", "2", "of 3", "<here>", within=T + 1),
        ),
    ),
    Fault(
        name="given port taken by a job without id",
        promises=(8, 7, 12),
        story="a job set by hand runs, and torchrun starts another on its port",
        processes=(
            *(Rank(name=f"a{rank}", rank=rank, size=2, job="a", steps=HOLD) for rank in (0, 1)),
            *_job("b", 0, 1, after=At("summed", "a0")),
        ),
        acts=(Act(At("ended", "b1"), "go", "a0"), Act(At("ended", "b1"), "go", "a1")),
        says=(
            fine("a0 a1"),
            told("b0", "b/0|b", "<here>", "<pid a0>", within=TAKEN),
            told("b1", "b/0|b", "<here>", "<pid a0>", within=STRANGER),
        ),
    ),
    _taken("http", "HTTP"),
    _taken("silent", "not a torch store|no torch store"),
    _taken("closing", "not a torch store|no torch store"),
    _taken("resetting", "not a torch store|no torch store"),
    _taken("banner", "not a torch store|no torch store", "SSH-2.0-foreign"),
    _taken("echo", "not a torch store|no torch store"),
    _taken("endless", "not a torch store|no torch store"),
    _taken("drip", "not a torch store|no torch store"),
    _taken("unaccepting"),
    _taken("store", "torch store"),
    _answered("http"),
    _answered("silent", "a rank 0 that imports torch says nothing either"),
    _answered("closing"),
    _answered("echo"),
    _answered("endless"),
    _answered("drip"),
    _answered("unaccepting"),
    _answered("store", "127.0.0.1:<port> answers as a torch store"),
    _moved("http"),
    _moved("silent"),
    _moved("unaccepting"),
    _moved("store"),
    Fault(
        name="two derived ports taken",
        promises=(8,),
        story="the first two ports that are derived from SLURM_JOB_ID are taken",
        processes=(
            Bystander(name="http"),
            Bystander(name="closing", port_offset=1),
            *world(3, dialect="slurm", after=ready("closing", 0.1), timeout=6.0),
        ),
        says=(fine("0 1 2"),),
    ),
    Fault(
        name="derived port taken by another job",
        promises=(8, 7, 12),
        story="another job of this library runs on the port that is derived from SLURM_JOB_ID",
        processes=(
            *_job("a", 0, 1, steps=HOLD),
            *world(2, dialect="slurm", after=At("summed", "a0"), timeout=6.0, job="s"),
        ),
        acts=(Act(At("ended", "1"), "go", "a0"), Act(At("ended", "1"), "go", "a1")),
        says=(fine("0 1 a0 a1"),),
    ),
    Fault(
        name="derived port taken, and a rank missing",
        promises=(8, 2),
        story="a web server holds the derived port, and task 1 of 3 is not started",
        processes=(Bystander(name="http"), *world(3, only="0 2", dialect="slurm", after=ready("http"))),
        says=(told("0 2", "1", "of 3", "<here>", within=T + 1),),
    ),
    Fault(
        name="derived port taken, and rank 0 late",
        promises=(8, 12),
        story="a silent service holds the derived port, and task 0 comes 2 s late",
        processes=(
            Bystander(name="silent"),
            *world(3, only="1 2", dialect="slurm", after=ready("silent"), timeout=6.0),
            Rank(name="0", rank=0, size=3, dialect="slurm", after=entered("2", 2.0), timeout=6.0),
        ),
        says=(fine("0 1 2"),),
    ),
)

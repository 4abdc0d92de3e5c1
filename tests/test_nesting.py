"""Launchers inside of one another, and arguments inside of them: which pairs can be meant."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from colossalai_env import explain, resolve
from colossalai_env._nesting import DOUBTFUL, MEANT, REFUSED, VERDICTS, Beside, Kind, Verdict
from colossalai_env._registry import resolvers
from colossalai_env.errors import ConflictingResolvers
from colossalai_env.resolver import Environ
from colossalai_env.testing import Capture, captures

PAGE = Path(__file__).parent.parent / "docs/explanation/resolution.md"


def by_hand(rank: int, size: int) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "a", "MASTER_PORT": "29500"}


def torchrun(rank: int, size: int, agents: int = 0) -> dict[str, str]:
    agents = agents or size
    own = {"TORCHELASTIC_RUN_ID": "r", "TORCHELASTIC_RESTART_COUNT": "0", "LOCAL_RANK": "0"}
    return by_hand(rank, size) | own | {
        "LOCAL_WORLD_SIZE": str(size // agents), "GROUP_RANK": "0", "GROUP_WORLD_SIZE": str(agents),
    }  # fmt: skip


def mpi(rank: int, size: int) -> dict[str, str]:
    own = {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size), "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    return {**own, "PMIX_NAMESPACE": "77"}


def hydra(rank: int, size: int) -> dict[str, str]:
    return {"PMI_RANK": str(rank), "PMI_SIZE": str(size), "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}


def step(rank: int, size: int) -> dict[str, str]:
    names = f"n[1-{size}]" if size > 1 else "n1"
    return {
        "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0",
        "SLURM_NODEID": str(rank), "SLURM_STEP_NUM_TASKS": str(size), "SLURM_STEP_NUM_NODES": str(size),
        "SLURM_STEP_TASKS_PER_NODE": f"1(x{size})", "SLURM_STEP_NODELIST": names, "SLURMD_NODENAME": f"n{rank + 1}",
    }  # fmt: skip


INNER = {
    Kind.BY_HAND: (by_hand,),
    Kind.WORKERS: (torchrun,),
    Kind.OTHERS: (mpi, hydra),
}
OUTER = {Kind.BY_HAND: (mpi, hydra, step), Kind.WORKERS: (mpi, hydra, step), Kind.OTHERS: (step,)}
"""What stands around the launchers of a kind."""

COUNTS = {
    Beside.ONE: ((0, 1), (2, 4)),
    Beside.FEWER: ((1, 2), (3, 4)),
    Beside.OTHER: ((0, 4), (2, 4)),
    Beside.SAME: ((2, 4), (2, 4)),
    Beside.MORE: ((5, 8), (2, 4)),
}
"""Rank and size of the inner and of the outer one."""

PAIRS = [
    pytest.param(
        inner(*mine),
        outer(*theirs),
        mine,
        VERDICTS[kind][relation],
        id=f"{inner.__name__} in {outer.__name__}, {relation.name.lower()}",
    )
    for kind, inners in INNER.items()
    for inner in inners
    for outer in OUTER[kind]
    for relation, (mine, theirs) in COUNTS.items()
]


@pytest.mark.parametrize(("inner", "outer", "mine", "verdict"), PAIRS)
def test_the_inner_launcher_wins_is_doubted_or_is_refused_as_the_table_says(
    inner: dict[str, str], outer: dict[str, str], mine: tuple[int, int], verdict: Verdict
) -> None:
    found = explain(env={**outer, **inner}).resolution
    if verdict is REFUSED:
        with pytest.raises(ConflictingResolvers, match=rf"rank {mine[0]} of {mine[1]} .*of 4 "):
            found.spec()
    else:
        assert (found.spec().rank, found.spec().world_size) == mine
        assert len(found.warnings) == (verdict is DOUBTFUL)
        assert all(f"rank {mine[0]} of {mine[1]}" in warning and "of 4" in warning for warning in found.warnings)


def flux(rank: int, size: int) -> dict[str, str]:
    own = {"FLUX_TASK_RANK": str(rank), "FLUX_JOB_SIZE": str(size), "FLUX_TASK_LOCAL_ID": "0", "FLUX_URI": "local:///f"}
    return {**own, "FLUX_JOB_ID_PATH": "/f7", "PMI_RANK": str(rank), "PMI_SIZE": str(size), "PMI_FD": "9"}


def htcondor(rank: int, size: int) -> dict[str, str]:
    return {"_CONDOR_PROCNO": str(rank), "_CONDOR_NPROCS": str(size)}


def pals(rank: int, size: int) -> dict[str, str]:
    own = {"PALS_RANKID": str(rank), "PALS_LOCAL_SIZE": "1", "PALS_LOCAL_RANKID": "0", "PALS_APID": "7f"}
    return {**own, "PALS_SIZE": str(size), "PMI_RANK": str(rank), "PMI_SIZE": str(size), "PBS_JOBID": "7"}


def jsrun(rank: int, size: int) -> dict[str, str]:
    return stripped_jsrun(rank, size) | mpi(rank, size)


def stripped_jsrun(rank: int, size: int) -> dict[str, str]:
    """Leave Open MPI's variables out, as flux run -o mpi=spectrum does."""
    own = {"JSM_NAMESPACE_RANK": str(rank), "JSM_NAMESPACE_SIZE": str(size), "LSB_JOBID": "7"}
    return {**own, "LSB_MCPU_HOSTS": "batch 1 a 4 b 4"}


def prterun(rank: int, size: int) -> dict[str, str]:
    """Return the variables, and what PMIx says when it is asked."""
    return {"PMIX_RANK": str(rank), "PMIX_NAMESPACE": "prterun-vm-7@1", "pmix.job.size": str(size)}


def gforker(rank: int, size: int) -> dict[str, str]:
    own = {"MPI_APPNUM": "0", "MPI_UNIVERSE_SIZE": "-1"}
    return {**own, "PMI_RANK": str(rank), "PMI_SIZE": str(size), "PMI_FD": "9"}


def mvapich(rank: int, size: int) -> dict[str, str]:
    return {"MV2_COMM_WORLD_RANK": str(rank), "MV2_COMM_WORLD_SIZE": str(size), "PMI_ID": str(rank), "PMI_PORT": "a:1"}


def horovod(rank: int, size: int) -> dict[str, str]:
    return {"HOROVOD_RANK": str(rank), "HOROVOD_SIZE": str(size)}


def kubeflow(rank: int, size: int) -> dict[str, str]:
    own = {"PET_NODE_RANK": str(rank), "PET_NNODES": str(size), "PET_NPROC_PER_NODE": "1"}
    return {**own, "PET_MASTER_ADDR": "a", "PET_MASTER_PORT": "29400"}


def sagemaker(rank: int, size: int) -> dict[str, str]:
    names = [f"algo-{index}" for index in range(1, size + 1)]
    return {"SM_HOSTS": json.dumps(names), "SM_CURRENT_HOST": names[rank], "SM_NUM_GPUS": "1"}


def azureml(rank: int, size: int) -> dict[str, str]:
    own = {"AZ_BATCHAI_TASK_INDEX": str(rank), "AZUREML_NODE_COUNT": str(size)}
    return {**own, "AZ_BATCH_MASTER_NODE": "10.0.0.4:6000"}


def aws_batch(rank: int, size: int) -> dict[str, str]:
    own = {"AWS_BATCH_JOB_NODE_INDEX": str(rank), "AWS_BATCH_JOB_NUM_NODES": str(size)}
    main = {"AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.4"} if rank else {}
    return own | main | {"AWS_BATCH_JOB_MAIN_NODE_INDEX": "0"}


def skypilot(rank: int, size: int) -> dict[str, str]:
    own = {"SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_NUM_NODES": str(size), "SKYPILOT_NUM_GPUS_PER_NODE": "1"}
    return {**own, "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5"}


def dstack(rank: int, size: int) -> dict[str, str]:
    own = {"DSTACK_NODE_RANK": str(rank), "DSTACK_NODES_NUM": str(size), "DSTACK_GPUS_PER_NODE": "1"}
    return {**own, "DSTACK_MASTER_NODE_IP": "10.0.0.4"}


def volcano(rank: int, size: int) -> dict[str, str]:
    return {"VC_TASK_INDEX": str(rank), "VC_WORKER_NUM": str(size), "VC_WORKER_HOSTS": "a,b"}


def body(*, of: dict[str, str]) -> Callable[[int, int], dict[str, str]]:
    """Return what a batch script leaves to the launcher that it runs."""

    def left(rank: int, size: int) -> dict[str, str]:
        del rank, size
        return of

    return left


flux_alloc = body(of={"FLUX_ENCLOSING_ID": "f7", "FLUX_URI": "local:///f"})
pbs = body(of={"PBS_JOBID": "7", "PBS_NUM_NODES": "2", "PBS_NODEFILE": "/n", "PBS_TASKNUM": "1"})
gridengine = body(of={"PE_HOSTFILE": "/h", "NSLOTS": "6", "NHOSTS": "3", "JOB_SCRIPT": "/j", "PE": "mpi"})
lsf = body(of={"LSB_MCPU_HOSTS": "batch 1 a 4 b 4", "LSB_DJOB_NUMPROC": "9", "LSB_JOBID": "7"})
mpi_job = body(of={"K_MPI_JOB_ROLE": "worker", "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile"})

NODES = (kubeflow, sagemaker, azureml, aws_batch, skypilot, dstack, volcano)
BODIES = {
    "flux alloc": flux_alloc,
    "PBS": pbs,
    "GridEngine": gridengine,
    "LSF": lsf,
    "MPIJob": mpi_job,
}
STEPS = (step, flux, htcondor)

INSIDE: dict[str, tuple[Callable[[int, int], dict[str, str]], tuple[Callable[[int, int], dict[str, str]], ...]]] = {
    "torch": (torchrun, (*STEPS, mpi, hydra, pals, jsrun, mvapich, horovod, *NODES, *BODIES.values())),
    "openmpi": (mpi, (*STEPS, *NODES, *BODIES.values())),
    "hydra": (hydra, (*STEPS, *NODES, *BODIES.values())),
    "mpich-gforker": (gforker, (step, htcondor, *NODES, *BODIES.values())),
    "mvapich": (mvapich, (*STEPS, *NODES, pbs, lsf)),
    "horovod": (horovod, (*STEPS, *NODES, *BODIES.values())),
    "pals": (pals, (pbs,)),
    "pmix": (prterun, (step, flux, pals, stripped_jsrun, *NODES, pbs, lsf)),
    "jsrun": (jsrun, (lsf,)),
    "flux": (flux, (step, pals, stripped_jsrun, *NODES, pbs, lsf)),
    "slurm": (step, NODES),
    "htcondor": (htcondor, NODES),
}
"""The resolver of each inner launcher, and what is sensibly found around it."""

FOUND = {resolver: inner for resolver, (inner, _) in INSIDE.items()}

SENSIBLE = [
    pytest.param(
        resolver,
        outer,
        id=f"{resolver} in {next((name for name, made in BODIES.items() if made is outer), outer.__name__)}",
    )
    for resolver, (_, around) in INSIDE.items()
    for outer in around
]


@pytest.mark.parametrize(("resolver", "outer"), SENSIBLE)
@pytest.mark.parametrize(("mine", "theirs"), [((5, 6), (1, 2)), ((2, 4), (0, 2)), ((1, 2), (1, 2))])
def test_of_two_launchers_the_inner_one_says_who_this_process_is(
    resolver: str, outer: Callable[[int, int], dict[str, str]], mine: tuple[int, int], theirs: tuple[int, int]
) -> None:
    spec = resolve(env=outer(*theirs) | FOUND[resolver](*mine))
    assert (spec.resolver, spec.rank, spec.world_size) == (resolver, *mine)


def test_every_resolver_stands_in_the_table_of_launchers_inside_of_one_another() -> None:
    platforms = {resolve(env=made(1, 2)).resolver for made in NODES}
    assert {item.resolver.name for item in resolvers(Environ())} == {*INSIDE, *platforms, "cli-args"}


@pytest.mark.parametrize(("relation", "counts"), COUNTS.items(), ids=lambda item: getattr(item, "name", ""))
@pytest.mark.parametrize("outer", [torchrun, by_hand, mpi, hydra, step], ids=lambda function: function.__name__)
def test_arguments_win_but_not_alone_among_workers(
    outer: Callable[[int, int], dict[str, str]], relation: Beside, counts: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    (rank, size), theirs = counts
    found = explain(env=outer(*theirs), rank=rank, world_size=size, host="h", port=1).resolution
    if relation is Beside.ONE and outer in {torchrun, by_hand}:
        with pytest.raises(ConflictingResolvers, match=r"arguments say rank 0 of 1 .*torch says rank 2 of 4"):
            found.spec()
    else:
        assert (found.spec().rank, found.spec().world_size) == (rank, size)
        assert len(found.warnings) == (VERDICTS[Kind.ARGUMENTS][relation] is DOUBTFUL)


@pytest.mark.parametrize(("agents", "warned"), [(1, True), (2, True), (3, False), (6, False)])
def test_workers_of_fewer_agents_than_the_processes_around_them_are_several_worlds(
    agents: int, *, warned: bool
) -> None:
    found = explain(env=step(0, 3) | torchrun(0, 6, agents)).resolution
    assert (found.spec().world_size, bool(found.warnings)) == (6, warned)
    assert all(f"{agents} agent(s)" in warning and "start 3 agents" in warning for warning in found.warnings)


def test_the_nearest_launcher_counts_for_daemons_of_mpirun_find_the_steps_variables() -> None:
    assert resolve(env=step(0, 4) | mpi(3, 4) | by_hand(3, 4)).job_id == "77"
    with pytest.raises(ConflictingResolvers, match="OMPI_COMM_WORLD_RANK"):
        resolve(env=step(0, 4) | mpi(3, 4) | by_hand(0, 4))


def test_what_a_daemon_inherited_is_not_its_workers() -> None:
    ray = {"RAY_RAYLET_PID": "9", "RAY_JOB_ID": "1"}
    found = explain(env=step(1, 2) | by_hand(0, 2) | ray).resolution
    assert (found.spec().rank, found.spec().job_id, found.warnings) == (0, None, ())
    with pytest.raises(ConflictingResolvers):
        resolve(env=by_hand(1, 2) | ray, rank=0, world_size=1)


def test_a_rank_exported_before_the_launcher_is_refused_with_both_variables_and_what_to_do() -> None:
    with pytest.raises(ConflictingResolvers) as caught:
        resolve(env=step(2, 4) | by_hand(0, 4))
    refusal = str(caught.value)
    assert "torch says rank 0 of 4 (RANK, WORLD_SIZE), slurm says rank 2 of 4 (SLURM_PROCID, " in refusal
    assert "set too early" in refusal
    assert "set RANK from SLURM_PROCID in each process, or unset RANK and WORLD_SIZE" in refusal
    assert resolve(env=step(2, 4) | by_hand(0, 4) | {"COLOSSALAI_ENV_RESOLVER": "torch"}).rank == 0
    assert resolve(env=step(2, 4) | by_hand(0, 4), resolver="slurm").rank == 2


def test_a_launch_by_hand_takes_the_id_of_the_step_that_counts_the_same_ranks() -> None:
    spec = resolve(env=step(2, 4) | by_hand(2, 4))
    assert (spec.resolver, spec.job_id, spec.sources["job_id"]) == (
        "torch",
        "7.0",
        "SLURM_JOB_ID, SLURM_STEP_ID (launch_token)",
    )
    assert resolve(env=step(2, 4) | by_hand(2, 4) | {"COLOSSALAI_ENV_JOB_ID": "mine"}).job_id == "mine"
    assert resolve(env=step(2, 4) | by_hand(6, 8)).job_id is None


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("env", [step(0, 2), step(0, 2) | by_hand(0, 2)], ids=["step", "by hand in a step"])
def test_a_launch_that_is_given_whole_takes_nothing_from_a_launcher(rank: int, env: dict[str, str]) -> None:
    spec = resolve(env=env, rank=rank, world_size=2, host="127.0.0.1", port=29611)
    assert (spec.rank, spec.job_id, spec.local_rank, spec.num_nodes, spec.resolver) == (
        rank,
        None,
        None,
        None,
        "arguments",
    )
    argv = [f"--rank={rank}", "--world_size=2", "--host=127.0.0.1", "--port=29611"]
    assert resolve(env=env, argv=argv).job_id is None


def test_a_world_of_one_beside_a_world_size_without_a_rank_is_refused_with_both() -> None:
    with pytest.raises(ConflictingResolvers, match=r"openmpi says rank 0 of 1 .*WORLD_SIZE='4' for a world of 4"):
        resolve(env=mpi(0, 1) | {"WORLD_SIZE": "4"})
    with pytest.raises(
        ConflictingResolvers, match=r"slurm says rank 0 of 1 .*--rank='0', --world_size='4' for a world of 4"
    ):
        resolve(env=step(0, 1), argv=["--rank", "0", "--world_size", "4"])
    assert resolve(env=mpi(0, 1) | {"WORLD_SIZE": "4", "COLOSSALAI_ENV_RESOLVER": "openmpi"}).world_size == 1
    for left in ({"WORLD_SIZE": "1"}, {"RANK": "3"}, {"WORLD_SIZE": "x"}):
        assert explain(env=mpi(1, 4) | left).resolution.warnings == ()
    assert len(explain(env=mpi(1, 4) | {"WORLD_SIZE": "8"}).resolution.warnings) == 1
    assert explain(env=mpi(1, 4), argv=["--rank", "0", "--world_size", "2"]).resolution.warnings == ()


def test_a_world_size_alone_that_contradicts_a_launcher_about_being_alone_is_refused() -> None:
    with pytest.raises(ConflictingResolvers, match="argument world_size is 1, torch says rank 1 of 2"):
        resolve(env=torchrun(1, 2), world_size=1)
    with pytest.raises(ConflictingResolvers, match="argument world_size is 4, openmpi says rank 0 of 1"):
        resolve(env=mpi(0, 1), world_size=4)
    assert len(explain(env=mpi(0, 4), world_size=2).resolution.warnings) == 1


@pytest.mark.parametrize("capture", list(captures()), ids=lambda capture: capture.scenario)
def test_no_recorded_launch_of_a_known_launcher_is_doubted(capture: Capture) -> None:
    for task in capture.tasks:
        found = explain(env=task.variables, argv=task.argv).resolution
        assert found.warnings == () or found.spec().resolver == "single-process"


def test_the_page_has_the_table() -> None:
    words = {MEANT: "wins", DOUBTFUL: "wins, with a warning", REFUSED: "an error"}
    rows = [
        f"| {kind.value} | {' | '.join(words[row[relation]] for relation in Beside)} |"
        for kind, row in VERDICTS.items()
    ]
    head = f"| the inner one counts | {' | '.join(relation.value for relation in Beside)} |"
    assert "\n".join([head, "|---|---|---|---|---|---|", *rows]) in PAGE.read_text()

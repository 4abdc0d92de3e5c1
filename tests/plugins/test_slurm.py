"""Slurm's table at the edges: places that are no world, what other steps leave behind, and where task 0 is."""

from pathlib import Path

import pytest
from colossalai_env_slurm import SLURM

from colossalai_env import DistSpec, resolve
from colossalai_env._locate import locate
from colossalai_env.errors import NotLaunched
from colossalai_env.resolver import Directory, Environ
from colossalai_env.testing import Capture, Layout, captures

CAPTURES = {capture.scenario: capture for capture in captures()}
TREE = CAPTURES["slurm2605_tree_srun_block"]
"""Tasks 0 and 1 on gpu-b07, 2 and 3 on gpu-a02, 4 and 5 on gpu-a01; the list says gpu-a[01-02],gpu-b07."""

BODY = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NNODES": "1"}


def environ(capture: Capture, rank: int, **changes: str) -> dict[str, str]:
    """Return what a recorded task found, with changes."""
    return {**capture.tasks[rank].variables, **changes}


@pytest.mark.parametrize("step", ["-5", "-6", "4294967291", "4294967290", "-4"])
def test_a_step_of_slurms_own_is_one_process_for_one_task_and_refused_for_several(step: str) -> None:
    alone = resolve(env={**BODY, "SLURM_STEP_ID": step, "SLURM_NTASKS": "1"})
    assert (alone.world_size, alone.resolver) == (1, "single-process")
    with pytest.raises(NotLaunched, match=r"several tasks .*SLURM_STEP_ID='.*start the processes with srun"):
        resolve(env={**BODY, "SLURM_STEP_ID": step, "SLURM_NTASKS": "4"})


def test_the_step_number_is_a_surer_mark_than_what_an_outer_step_left_behind() -> None:
    left = environ(TREE, 2, SLURM_STEP_ID="-5", SLURM_NTASKS="1")
    assert resolve(env=left).world_size == 1


def test_a_refusal_has_advice_for_notebooks_too() -> None:
    with pytest.raises(
        NotLaunched, match=r"notebook.*COLOSSALAI_ENV_RESOLVER=single-process.*resolver=\"single-process\""
    ):
        resolve(env={**BODY, "SLURM_NTASKS": "4"})
    assert resolve(env={**BODY, "SLURM_NTASKS": "4"}, resolver="single-process").world_size == 1


SALLOC = {"SLURM_JOB_ID": "8", "SLURM_NODELIST": "rack1-n9", "SLURM_JOB_NODELIST": "rack1-n9"}


@pytest.mark.parametrize("tasks", ["1", "4", "6"])
def test_a_salloc_inside_a_task_is_one_process(tasks: str) -> None:
    shell = environ(TREE, 2, **SALLOC, SLURM_NTASKS=tasks)
    if tasks == "1":
        assert resolve(env=shell).world_size == 1
        return
    with pytest.raises(NotLaunched, match="SLURM_NODELIST is 'rack1-n9', without SLURMD_NODENAME, 'gpu-a02'"):
        resolve(env=shell)


def test_a_salloc_on_the_nodes_of_the_task_is_told_by_where_it_was_submitted() -> None:
    shell = environ(TREE, 2, SLURM_JOB_ID="8", SLURM_SUBMIT_HOST="gpu-a02", SLURM_NTASKS="4")
    with pytest.raises(NotLaunched, match="SLURM_NTASKS is '4' in a job submitted from this node"):
        resolve(env=shell)


@pytest.mark.parametrize(
    ("distribution", "known"),
    [
        ("cyclic", True), ("cyclic:block", True), ("cyclic,pack", True), ("plane", True),
        ("block", False), ("block:cyclic,nopack", False), ("pack", False), ("arbitrary", False),
        ("arbitrary,pack", False), (None, False),
    ],
)  # fmt: skip
def test_under_a_topology_the_first_host_is_rank_0s_where_tasks_follow_the_list(
    distribution: str | None, known: bool
) -> None:
    changes = {} if distribution is None else {"SLURM_DISTRIBUTION": distribution}
    step = environ(CAPTURES["slurm2605_tree_srun_default_packed"], 0, **changes)
    assert resolve(env=step).host == ("gpu-a01" if known else None)


@pytest.mark.parametrize(
    ("distribution", "known"), [("block", True), ("block,pack", True), ("pack", True), ("arbitrary,nopack", False)]
)
def test_before_26_05_only_an_arbitrary_distribution_leaves_the_list(distribution: str, known: bool) -> None:
    step = environ(CAPTURES["slurm2411_srun_block"], 5, SLURM_DISTRIBUTION=distribution)
    assert resolve(env=step).host == ("gpu-a01" if known else None)


@pytest.mark.parametrize("name", ["slurm2605_alpha_srun_block", "slurm2605_dyn_srun_block"])
def test_a_list_that_is_not_in_the_order_of_names_leaves_rank_0_open(name: str) -> None:
    assert {resolve(env=task.variables).host for task in CAPTURES[name].tasks} == {None}


def test_of_two_nodes_each_rank_knows_rank_0s_whatever_the_order() -> None:
    for name in ("slurm2605_tree_sbatch_subset.relative1", "slurm2605_tree_arbitrary_on_two"):
        capture = CAPTURES[name]
        assert {resolve(env=task.variables).host for task in capture.tasks} == {capture.tasks[0].truth["rank0_host"]}


def test_pmix_tells_rank_0s_node_unless_its_mapping_is_another_steps() -> None:
    capture = CAPTURES["slurm2411_arbitrary_pmix"]
    assert {resolve(env=task.variables).host for task in capture.tasks} == {"gpu-b07"}
    assert "SLURM_PMIX_MAPPING_SERV" in resolve(env=capture.tasks[0].variables).sources["host"]
    job = capture.tasks[0].variables["SLURM_JOB_ID"]
    for left in ({"PMIX_NAMESPACE": f"slurm.pmix.{job}.9"}, {"SLURM_PMIX_MAPPING_SERV": "(vector,(9,1,1))"}):
        assert resolve(env=environ(capture, 1, **left)).host is None


def test_a_heterogeneous_step_begins_on_its_first_component() -> None:
    capture = CAPTURES["slurm2605_tree_heterogeneous_other_order.both"]
    assert {resolve(env=task.variables).host for task in capture.tasks} == {"gpu-b07"}
    left = {"SLURM_JOB_ID_HET_GROUP_0": "3", "SLURM_JOB_NODELIST_HET_GROUP_0": "gpu-b07", "SLURM_HET_SIZE": "2"}
    assert resolve(env=environ(CAPTURES["slurm2411_srun_block"], 0, **left)).host == "gpu-a01"


def test_the_first_task_on_the_lists_first_node_keeps_the_directory_whatever_its_rank() -> None:
    for name in ("slurm2605_tree_srun_block", "slurm_arbitrary", "slurm2605_tree_heterogeneous_wide.block"):
        capture = CAPTURES[name]
        named = [directory(task.variables) for task in capture.tasks]
        serving = [task.hostname for task, one in zip(capture.tasks, named, strict=True) if one and one.serves]
        assert {one.host for one in named if one} == {"gpu-a01"}
        assert serving == ["gpu-a01"]
    assert directory({**TREE.tasks[0].variables, "SLURM_STEP_NODELIST": "n[1-"}) is None


def test_a_partition_may_have_a_topology_of_its_own_so_that_names_alone_are_doubted() -> None:
    assert SLURM.directory is not None
    for name, doubted in (
        ("slurm2605_srun_block", True),
        ("slurm2605_alpha_srun_cyclic", False),
        ("slurm_block", False),
    ):
        for task in CAPTURES[name].tasks:
            spec = resolve(env=task.variables)
            assert spec.host == task.truth["rank0_host"]
            assert (SLURM.directory(spec, Environ(task.variables)) is not None) == doubted


def test_without_a_nodes_own_name_there_is_no_directory() -> None:
    assert directory({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}) is None


def directory(variables: dict[str, str]) -> Directory | None:
    """Return where a task says that the directory is."""
    assert SLURM.directory is not None
    return SLURM.directory(DistSpec(rank=1, world_size=9), Environ(variables))


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is all of the PATH, for stand-ins for Slurm's commands."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("sattach", "scontrol"):
        install(tmp_path, name, f"touch {tmp_path}/asked; exit 3")
    return tmp_path


def install(folder: Path, name: str, body: str) -> None:
    """Put a command of Slurm's on the path."""
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("rank", range(6))
def test_nothing_is_asked_of_slurm_under_a_topology(commands: Path, rank: int) -> None:
    step = environ(TREE, rank, SLURM_STEP_NODELIST="127.0.0.1,gpu-a02,gpu-b07", SLURM_NODELIST="127.0.0.[1-3]")
    step["SLURM_NODELIST"] += ",gpu-a[01-02],gpu-b07"
    step["SLURMD_NODENAME"] = step["SLURMD_NODENAME"].replace("gpu-a01", "127.0.0.1")
    spec, endpoint = locate(resolve(env=step), Environ(step), SLURM.locate, 5, SLURM.directory)
    assert (spec.host, endpoint.host) == (None, "127.0.0.1")
    assert endpoint.directory
    assert endpoint.serves_directory == (rank == 4)
    assert not (commands / "asked").exists()


def test_the_layout_is_asked_for_where_no_node_has_its_own_name(commands: Path) -> None:
    layout = "printf 'Node 0 (gpu-a01), 2 task(s): 4 5\\n Node 2 (127.0.0.1), 2 task(s): 0 1\\n'"
    install(commands, "sattach", layout)
    step = {name: text for name, text in environ(TREE, 2).items() if name != "SLURMD_NODENAME"}
    told = f"sattach --layout {resolve(env=step).job_id}"
    for more in ({}, {"COLOSSALAI_ENV_JOB_ID": "mine"}):
        spec, _ = locate(resolve(env={**step, **more}), Environ({**step, **more}), SLURM.locate, 5, SLURM.directory)
        assert (spec.host, spec.sources["host"]) == ("127.0.0.1", told)


LIBRARIES = {
    "SLURM_JOB_NODELIST": "n0,node1", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NNODES": "2", "SLURM_TASKS_PER_NODE": "2,2", "SLURM_NPROCS": "4", "SLURM_JOBID": "7", "SLURM_STEPID": "1",
}  # fmt: skip


def test_what_is_emulated_has_the_variables_that_other_libraries_read() -> None:
    emulated = SLURM.emulate(Layout(("n0", "n1"), (0, 0, 1, 1), job_id="7.1").spec(3)).variables
    assert {name: emulated[name] for name in LIBRARIES} == LIBRARIES
    uneven = SLURM.emulate(Layout(("n0", "n1"), (0, 0, 1), job_id="7.1").spec(0)).variables
    assert "SLURM_NTASKS_PER_NODE" not in uneven

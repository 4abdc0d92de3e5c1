"""Every launch on the bed: each task is who its launcher says it is."""

from collections.abc import Sequence
from typing import Any

import pytest

from .clusters import CLUSTERS, Cluster
from .record import ALIASES, Launch, Task, record
from .scenarios import SCENARIOS, Scenario
from .testbed import Bed

pytestmark = pytest.mark.launchers

NUMBERS = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes")


EVERYWHERE = [scenario for scenario in SCENARIOS if not scenario.since]
"""What later releases of Slurm alone can do runs on those."""


@pytest.mark.parametrize("scenario", EVERYWHERE, ids=lambda scenario: scenario.name)
def test_each_task_is_who_its_launcher_says(bed: Bed, scenario: Scenario) -> None:
    for launch in record(bed, scenario):
        agree(launch)


def agree(launch: Launch, cluster: Cluster = CLUSTERS["installed"]) -> None:
    """Hold what `resolve()` said on each rank against the launcher's word."""
    for task in launch.tasks:
        said = task.resolved
        if "why" in task.truth:
            refused = "though several" in task.truth["why"]
            assert said.get("error") == "NotLaunched" if refused else said.get("world_size") == 1, (
                f"{launch.name}: {said}"
            )
            continue
        assert "error" not in said, f"{launch.name}: {said}"
        for name in NUMBERS:
            if name in task.truth and said[name] is not None:
                assert said[name] == task.truth[name], f"{launch.name}: {name} of {said}, truth {task.truth}"
        assert said["host"] in hosts(launch, cluster, said, task.truth), f"{launch.name}: {said}"
        assert said["port"] == task.truth.get("master_port", said["port"])
    worlds = [task for task in launch.tasks if "why" not in task.truth]
    assert len({str([task.resolved[name] for name in ("host", "port", "job_id")]) for task in worlds}) <= 1
    _local_ranks_number_the_processes_of_each_host(launch)
    if any(task.resolved["resolver"] == "slurm" and task.resolved["host"] is None for task in worlds):
        _one_process_keeps_the_directory(worlds)


def bed_names(host: str) -> set[str]:
    """Return what a host is called: its own name, and Slurm's."""
    return next(({*pair} for pair in ALIASES.items() if host in pair), {host})


def hosts(launch: Launch, cluster: Cluster, said: dict[str, Any], truth: dict[str, Any]) -> set[str | None]:
    """Return what may stand for rank 0's host: its name, loopback on one node, or nothing where nothing says it."""
    names: set[str | None] = {*bed_names(truth["rank0_host"])}
    if truth["num_nodes"] == 1:
        names.add("127.0.0.1")
    unsaid = said["resolver"] in {"openmpi", "hydra"} or "arbitrary" in str(launch.scenario) or cluster.by_topology
    return {*names, None} if unsaid else names


def _one_process_keeps_the_directory(tasks: Sequence[Task]) -> None:
    """Where rank 0's host is open, all name one process that tells it: the one that knows that it does."""
    serving = [task for task in tasks if task.resolved["serves"]]
    assert [task.resolved["local_rank"] for task in serving] == [0]
    assert {task.resolved["directory"] for task in tasks} <= bed_names(serving[0].hostname)


def _local_ranks_number_the_processes_of_each_host(launch: Launch) -> None:
    agents = (
        "torchrun" in {task.resolved.get("resolver") for task in launch.tasks} or launch.scenario.kind == "torchrun"
    )
    for host in {task.hostname for task in launch.tasks if "error" not in task.resolved and not agents}:
        local = [task.resolved["local_rank"] for task in launch.tasks if task.hostname == host]
        assert sorted(local) == list(range(len(local))), f"{launch.name}: local ranks on {host}: {local}"

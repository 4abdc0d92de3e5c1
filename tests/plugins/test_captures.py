"""Every task of every recorded launch is who its launcher says it is, or is refused where it is no world."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from colossalai_env import NotAWorld, resolve
from colossalai_env.testing import Capture, Task, captures
from colossalai_env.testing.captures import RECORDED

NUMBERS = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes")


def tasks() -> Iterator[object]:
    for capture in captures():
        for index, task in enumerate(capture.tasks):
            yield pytest.param(task, id=f"{capture.scenario}-{index}")


@pytest.mark.parametrize("task", list(tasks()))
def test_a_recorded_task_is_known_or_refused(task: Task) -> None:
    if "why" in task.truth and "one task" not in task.truth["why"]:
        with pytest.raises(NotAWorld, match="srun"):
            resolve(env=task.variables, argv=task.argv)
        return
    spec = resolve(env=task.variables, argv=task.argv)
    found = {name: getattr(spec, name) for name in NUMBERS}
    for name, value in found.items():
        assert value is None or value == task.truth.get(name, value), f"{name}: {found}, truth {task.truth}"
    assert spec.host in {None, "127.0.0.1" if task.truth["num_nodes"] == 1 else None, task.truth["rank0_host"]}
    if "master_port" in task.truth:
        assert spec.port == task.truth["master_port"]


@pytest.mark.parametrize("capture", list(captures()), ids=lambda capture: capture.scenario)
def test_all_ranks_of_a_recorded_launch_agree(capture: Capture) -> None:
    if "why" in capture.tasks[0].truth:
        return
    specs = [resolve(env=task.variables, argv=task.argv) for task in capture.tasks]
    assert sorted(spec.rank for spec in specs) == list(range(len(specs)))
    assert len({(spec.world_size, spec.host, spec.port, spec.job_id, spec.resolver) for spec in specs}) == 1


def test_no_host_is_guessed_for_an_arbitrary_distribution() -> None:
    (capture,) = (capture for capture in captures() if capture.scenario == "slurm_srun_arbitrary")
    assert {resolve(env=task.variables).host for task in capture.tasks} == {None}


def test_resolving_imports_neither_torch_nor_anything_else_that_is_slow() -> None:
    program = """
import json, sys
from contextlib import suppress
import attrs, importlib.metadata, pluggy
before = set(sys.modules)
import colossalai_env
for path in sys.argv[1:]:
    with open(path) as file:
        for task in json.load(file)["tasks"]:
            with suppress(colossalai_env.NotAWorld):
                colossalai_env.resolve(env=task["rank_env"], argv=task["argv"])
assert not {"torch", "numpy", "subprocess", "asyncio"} & (set(sys.modules) - before), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, *map(str, RECORDED.glob("*.json"))], check=True)

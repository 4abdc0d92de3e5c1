"""Every task of every recorded launch is who its launcher says it is, or is refused where it is no world."""

import subprocess
import sys

import pytest

from colossalai_env import resolve
from colossalai_env.testing import Capture, captures, replay
from colossalai_env.testing.captures import RECORDED


@pytest.mark.parametrize("capture", list(captures()), ids=lambda capture: capture.scenario)
def test_every_recorded_task_is_who_its_launcher_says_or_is_refused(capture: Capture) -> None:
    replay(None, capture)


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
            with suppress(colossalai_env.errors.NotLaunched, colossalai_env.errors.NotAsked):
                colossalai_env.resolve(env=task["rank_env"], argv=task["argv"])
assert not {"torch", "numpy", "subprocess", "asyncio"} & (set(sys.modules) - before), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, *map(str, RECORDED.glob("*.json"))], check=True)

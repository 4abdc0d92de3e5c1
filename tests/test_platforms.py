"""Platforms that start one process a node: their processes form one group, and nodes with several GPUs are told."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from colossalai_env_skypilot import SKYPILOT

from colossalai_env import resolve
from colossalai_env._node_level import refuse_visible
from colossalai_env._registry import resolvers
from colossalai_env.errors import NodeLevelRanks, NotLaunched
from colossalai_env.resolver import DistSpec, Environ, Layer, Resolver, own_address, var
from colossalai_env.testing import Layout, launch_as
from tests.processes import Ended, Processes, run
from tests.warm import warm

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("one port")]

SUM = Path(__file__).parent / "programs/sum.py"

TABLES = [item.resolver for item in resolvers(Environ()) if isinstance(item.resolver, Resolver)]

PLATFORMS = [table for table in TABLES if table.counts_nodes]

THREE_NODES = Layout(hosts=("n0", "n1", "n2"), nodes=(0, 1, 2), port=29517, job_id="p7")

ON_CPUS = {"CUDA_VISIBLE_DEVICES": "", "MASTER_PORT": "29517"}


def told(out: str) -> dict[str, Any]:
    (line,) = (line for line in out.splitlines() if line.startswith("TOLD "))
    found: dict[str, Any] = json.loads(line.removeprefix("TOLD "))
    return found


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_one_process_on_each_node_is_one_group(platform: Resolver) -> None:
    ended = launch_as(platform, THREE_NODES, [warm(), str(SUM)], env=ON_CPUS, seconds=120)
    assert [process.code for process in ended] == [0, 0, 0], [process.err for process in ended]
    found = [told(process.out) for process in ended]
    assert [(one["resolver"], one["rank"], one["sum"]) for one in found] == [
        (platform.name, rank, 6) for rank in range(3)
    ]
    assert {(one["local_rank"], one["local_world_size"], one["num_nodes"]) for one in found} == {(0, 1, 3)}
    assert sorted(one["node_rank"] for one in found) == [0, 1, 2]


def test_a_main_node_that_is_not_told_its_address_is_met_there() -> None:
    job = {"AWS_BATCH_JOB_NUM_NODES": "2", "AWS_BATCH_JOB_MAIN_NODE_INDEX": "1", "CUDA_VISIBLE_DEVICES": ""}
    child = {"AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": own_address()}
    with Processes() as processes:
        for node, more in enumerate((child, {})):
            own = {"AWS_BATCH_JOB_NODE_INDEX": str(node), "AWS_BATCH_JOB_ID": f"p7#{node}"}
            processes.start([warm(), SUM], job | more | own)
        first, main = processes.wait(120)
    assert (first.code, main.code) == (0, 0), first.err + main.err
    assert [told(ended.out)["rank"] for ended in (first, main)] == [1, 0]
    assert {told(ended.out)["host"] for ended in (first, main)} == {own_address()}


NODE = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}


def test_a_process_that_sees_several_accelerators_is_refused_with_torchruns_line() -> None:
    spec = resolve(env=NODE)
    refuse_visible(spec, Environ(NODE), 1)
    refuse_visible(spec, Environ({**NODE, "LOCAL_RANK": "0"}), 8)
    refuse_visible(resolve(env=NODE, local_rank=0), Environ(NODE), 8)
    refuse_visible(DistSpec(rank=1, world_size=2, local_rank=0), Environ(NODE), 8)
    with pytest.raises(NodeLevelRanks) as caught:
        refuse_visible(spec, Environ(NODE), 8)
    line = "torchrun --nnodes=2 --node-rank=$SKYPILOT_NODE_RANK --nproc-per-node=8 --master-addr=10.0.0.1 "
    assert "rank 1 is alone on its node and sees 8 accelerators: skypilot's numbers count nodes" in str(caught.value)
    assert line in str(caught.value)


GPUS = """
import sys
from colossalai_env import _devices as devices
devices.choose = lambda *asked: (devices.Accelerators("cuda", 8), "gloo")
sys.argv = [sys.argv[1]]
exec(open(sys.argv[0]).read())
"""


def test_all_nodes_hear_of_the_accelerators_that_one_of_them_sees() -> None:
    layout = attrs.evolve(THREE_NODES, hosts=("n0", "n1"), nodes=(0, 1))
    argv = [warm(), "-c", GPUS, str(SUM)]
    ended = launch_as(SKYPILOT, layout, argv, env=ON_CPUS, seconds=120)
    assert [process.code for process in ended] == [1, 1]
    for process in ended:
        assert "sees 8 accelerators: skypilot's numbers count nodes" in process.err


ALONE = """
import sys, colossalai_env
try:
    job = colossalai_env.init_from_env()
    sys.stdout.write(f"rank {job.rank} of {job.world_size}\\n")
except colossalai_env.errors.NotLaunched as error:
    sys.stdout.write(f"NotLaunched: {error}\\n")
"""


def in_pbs(folder: Path, *hosts: str) -> Ended:
    """Run a process in the script of a job of PBS, whose hosts stand in a file alone."""
    path = folder / "7.head"
    path.write_text("".join(f"{host}\n" for host in hosts))
    job = {"PBS_NODEFILE": str(path), "PBS_JOBID": "7.head", "CUDA_VISIBLE_DEVICES": ""}
    return run([warm(), "-c", ALONE], job)


def test_the_script_of_a_job_whose_hosts_stand_in_a_file_is_refused_where_they_are_several(tmp_path: Path) -> None:
    several = in_pbs(tmp_path, "n1", "n1", "n2")
    assert "NotLaunched: PBS: this may be the script of a job with 2 hosts, which stand in a file" in several.out
    assert f"PBS_NODEFILE='{tmp_path}/7.head'" in several.out
    assert "torchrun once on each host" in several.out
    slots = in_pbs(tmp_path, "n1", "n1")
    assert slots.out == "rank 0 of 1\n"
    assert "PBS: " in slots.err
    one = in_pbs(tmp_path, "n1")
    assert (one.out, "PBS" in one.err) == ("rank 0 of 1\n", False)


def test_torchruns_line_names_the_variable_of_a_node_only_where_it_holds_the_rank() -> None:
    table = Resolver(
        name="glacier",
        layer=Layer.PLATFORM,
        detect="GLACIER_INDEX",
        counts_nodes=True,
        rank=var("GLACIER_INDEX", read=lambda text: int(text) - 1, write=lambda rank: str(rank + 1)),
        world_size=var("GLACIER_COUNT"),
        host=var("GLACIER_HEAD"),
        accelerators=var("GLACIER_TILES"),
    )
    node = {"GLACIER_INDEX": "2", "GLACIER_COUNT": "2", "GLACIER_HEAD": "n1", "GLACIER_TILES": "8"}
    with pytest.raises(NotLaunched, match=r"torchrun --nnodes=2 --node-rank=1 --nproc-per-node=8 --master-addr=n1 "):
        resolve(env=node, resolver=table)
    plain = attrs.evolve(table, rank=var("GLACIER_INDEX"), node_rank=None, local_rank=None)
    with pytest.raises(NotLaunched, match=r"--node-rank=\$GLACIER_INDEX "):
        resolve(env=node | {"GLACIER_INDEX": "1"}, resolver=plain)

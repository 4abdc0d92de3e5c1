"""What other libraries are handed, as far as they need not be installed for it; tests/libraries has the others."""

import re
from pathlib import Path

import attrs
import pytest

from colossalai_env import DistSpec
from colossalai_env.errors import NotYetKnown
from colossalai_env.integrations.jax import initialize_arguments
from tests.processes import TELL, Processes, free_port, run
from tests.warm import torchrun, warm

STEP = DistSpec(rank=3, world_size=4, local_rank=1, host="gpu-a01", port=29500, job_id="212.0", resolver="slurm")


def test_jax_is_told_all_that_it_asks_and_to_look_nowhere_else() -> None:
    told = initialize_arguments(STEP)
    host, _, port = told.pop("coordinator_address").rpartition(":")
    assert (host, 10000 <= int(port) < 32768) == ("gpu-a01", True)
    assert told == {
        "num_processes": 4,
        "process_id": 3,
        "local_device_ids": [1],
        "cluster_detection_method": "deactivate",
    }


def test_all_ranks_give_jax_one_port_which_is_not_the_stores() -> None:
    ranks = [attrs.evolve(STEP, rank=rank, local_rank=rank % 2) for rank in range(4)]
    assert len({initialize_arguments(spec)["coordinator_address"] for spec in ranks}) == 1
    assert initialize_arguments(STEP)["coordinator_address"] != "gpu-a01:29500"
    assert initialize_arguments(STEP, port=7000)["coordinator_address"] == "gpu-a01:7000"
    assert initialize_arguments(attrs.evolve(STEP, host="::1"), port=7000)["coordinator_address"] == "[::1]:7000"


def test_jax_is_not_told_a_place_that_nobody_knows_yet() -> None:
    with pytest.raises(NotYetKnown, match=r"openmpi does not say the place of rank 0 \(rank 3\), .*init_from_env\(\)"):
        initialize_arguments(attrs.evolve(STEP, host=None, resolver="openmpi"))
    alone = initialize_arguments(DistSpec(rank=0, world_size=1))
    assert re.fullmatch(r"127\.0\.0\.1:\d+", alone["coordinator_address"])
    assert alone["local_device_ids"] is None


BY_URL = f"""{TELL}
import sys
import torch, torch.distributed as dist
import colossalai_env.integrations.torch
for _ in range(2):
    dist.init_process_group("gloo", init_method="colossalai-env://?timeout=40")
    total = torch.ones(1)
    dist.all_reduce(total)
    tell(dist.get_rank(), dist.get_world_size(), total.item())
    dist.destroy_process_group()
"""


def test_a_url_makes_a_group_under_torchrun_by_hand_and_alone_also_a_second_time(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(BY_URL)
    two = ["0 2 2.0", "0 2 2.0", "1 2 2.0", "1 2 2.0"]
    assert sorted(run([*torchrun(), "--standalone", "--nproc-per-node=2", script]).lines("TOLD ")) == two
    with Processes() as processes:
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for rank in "01":
            processes.start([warm(), script], {"RANK": rank, **place})
        ended = processes.wait()
    assert sorted(line for one in ended for line in one.lines("TOLD ")) == two
    assert [(one.code, one.err) for one in ended] == [(0, "")] * 2
    assert run([warm(), script]).lines("TOLD ") == ["0 1 1.0"] * 2


def test_a_url_holds_the_roll_call_and_its_errors_are_this_librarys(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(BY_URL.replace("timeout=40", "timeout=3"))
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ended = run([warm(), script], {"RANK": "0", "WORLD_SIZE": "2", **place})
    assert "MissingRanks: rank(s) 1 of 2 did not come within 3.0 s" in ended.err
    assert "MalformedVariable: torch: RANK is 'x'" in run([warm(), script], {"RANK": "x", "WORLD_SIZE": "2"}).err


def test_a_rank_and_a_world_size_beside_a_url_count(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    said = 'timeout=40", rank=int(sys.argv[1]), world_size=2'
    script.write_text(BY_URL.replace('timeout=40"', said))
    with Processes() as processes:
        place = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "COLOSSALAI_ENV_RESOLVER": "single-process",
        }
        for rank in "01":
            processes.start([warm(), script, rank], place)
        ended = processes.wait()
    assert [one.lines("TOLD ") for one in ended] == [["0 2 2.0"] * 2, ["1 2 2.0"] * 2]

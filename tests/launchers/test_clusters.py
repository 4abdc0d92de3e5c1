"""Slurm of other releases and topologies: each task is who it is, and jobs over hosts meet without a flag."""

import json
import re
import shlex

import attrs
import pytest

from tests.warm import warm

from .clusters import Cluster
from .launch import command, within
from .record import lacking, record
from .scenarios import SLURM, Scenario
from .test_launchers import agree
from .testbed import HEAD, ROOT, Bed, Ran

pytestmark = pytest.mark.launchers

SPANNING = [scenario for scenario in SLURM if scenario.spans]
EVERYWHERE = [
    *(("24.11", scenario) for scenario in SLURM),
    *((name, scenario) for name in ("26.05-tree", "26.05-pack") for scenario in SPANNING),
]


def named(value: object) -> str | None:
    """Name what has a name."""
    return value.name if isinstance(value, (Scenario, Job)) else None


@pytest.mark.parametrize(("cluster_bed", "scenario"), EVERYWHERE, indirect=["cluster_bed"], ids=named)
def test_each_task_is_who_its_launcher_says(cluster_bed: tuple[Cluster, Bed], scenario: Scenario) -> None:
    cluster, bed = cluster_bed
    reason = lacking(bed, scenario)
    if reason:
        pytest.skip(reason)
    for launch in record(bed, scenario):
        agree(launch, cluster)


@attrs.frozen
class Job:
    """A launch that forms a process group: srun's options, and what it is started in."""

    name: str
    options: str = ""
    outer: str = ""
    size: int = 6
    worlds: int = 1
    """How many groups it forms."""


BLOCK = Job("block", "-N3 -n6 --exclusive")
CYCLIC = Job("cyclic", "-N3 -n6 --exclusive -m cyclic")
ARBITRARY = Job("arbitrary", "-n6 -m arbitrary --nodelist={hosts}")
JOBS = [
    BLOCK,
    CYCLIC,
    Job("plane", "-N3 -n6 --exclusive -m plane=2"),
    ARBITRARY,
    Job("relative", "-N2 -n4 -r1", "salloc -N3 -n6 --exclusive", 4),
    Job("array", "", "sbatch -N3 -n6 --array=3,5 --exclusive", worlds=2),
]
WITHOUT = ["env", "-u", "SLURM_HOSTFILE", "PATH=/nowhere"]
"""As in a container that has neither Slurm's commands nor the host file."""


def start(bed: Bed, job: Job, around: list[str]) -> Ran:
    """Run a job whose ranks sum up what they are; `around` starts each of them."""
    hosts = bed.folder / "hosts"
    hosts.write_text(
        "".join(f"{name}\n" for name in ("gpu-b07", "gpu-a01", "gpu-b07", "gpu-a02", "gpu-b07", "gpu-a01"))
    )
    program = [*around, warm(), str(ROOT / "tests/programs/sum.py")]
    words = command(bed, "srun", job.options.format(hosts=hosts), program)
    if job.outer:
        folder = bed.folder / "jobs" / f"{job.name}-{'-'.join(around[-1:]).replace('/', '')}"
        folder.mkdir(parents=True)
        return within(
            bed,
            job.outer,
            ["sh", "-c", f"{shlex.join(words)} > {folder}/out.$SLURM_JOB_ID; cat {folder}/out.*"],
            folder,
        )
    return bed.run(HEAD, words, {"SLURM_HOSTFILE": str(hosts)} if job is ARBITRARY else {})


def assert_summed(ran: Ran, job: Job) -> None:
    """All ranks of all groups were there, and have the same sum."""
    told = [json.loads(line) for line in dict.fromkeys(re.findall(r"TOLD (\{.*\})", ran.out))]
    assert ran.code == 0, f"{ran.out}\n{ran.err}"
    assert sorted(one["rank"] for one in told) == sorted([*range(job.size)] * job.worlds), f"{ran.out}\n{ran.err}"
    assert {one["sum"] for one in told} == {job.size * (job.size + 1) / 2}


@pytest.mark.parametrize("around", [[], WITHOUT], ids=["with sattach", "without any command"])
@pytest.mark.parametrize("job", JOBS, ids=named)
@pytest.mark.parametrize("cluster_bed", ["26.05-tree"], indirect=True)
def test_a_job_meets_under_a_topology_without_a_flag(
    cluster_bed: tuple[Cluster, Bed], job: Job, around: list[str]
) -> None:
    assert_summed(start(cluster_bed[1], job, around), job)


@pytest.mark.parametrize("job", [BLOCK, CYCLIC, ARBITRARY], ids=named)
@pytest.mark.parametrize("cluster_bed", ["24.11"], indirect=True)
def test_nothing_is_asked_of_slurm_where_names_resolve(cluster_bed: tuple[Cluster, Bed], job: Job) -> None:
    _, bed = cluster_bed
    spied = bed.folder / f"spied-{job.name}"
    spied.mkdir()
    for name in ("sattach", "scontrol"):
        program = spied / name
        program.write_text(f'#!/bin/sh\ntouch {spied}/asked-{name}\nexec /usr/bin/{name} "$@"\n')
        program.chmod(0o755)
    assert_summed(start(bed, job, ["env", f"PATH={spied}:/usr/bin:/bin"]), job)
    assert [*spied.glob("asked-*")] == []

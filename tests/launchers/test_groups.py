"""Jobs over several hosts train, with init_from_env() as their only launch line."""

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pace import pace
from tests.pages import EXAMPLES, FENCE, commands
from tests.tutorial import SCRIPTS, Block, assert_trained, blocks
from tests.warm import torchrun, warm

from .groups import GROUPS, HYDRA3, OMPI3, Group
from .launch import agents, command
from .slurm import Slurm
from .testbed import HEAD, ROOT, Bed, Ran, wait_until

pytestmark = pytest.mark.launchers

PROGRAMS = ROOT / "tests" / "programs"


def told(*ended: Ran) -> list[dict[str, Any]]:
    """Return what all ranks printed, by rank."""
    for ran in ended:
        assert ran.code == 0, f"{ran.out}\n{ran.err}"
    lines = [line for ran in ended for line in re.findall(r"TOLD (\{.*\})", ran.out)]
    return sorted((json.loads(line) for line in lines), key=lambda one: one["rank"])


def start(bed: Bed, group: Group) -> list[Ran]:
    """Run a group's job to its end."""
    (bed.folder / "list121").write_text("gpu-b07\ngpu-a01\ngpu-b07\n")
    options = group.options.format(list121=bed.folder / "list121")
    env = {"SLURM_HOSTFILE": str(bed.folder / "list121")} if "arbitrary" in options else {}
    script = [str(PROGRAMS / "train.py"), *group.script]
    if group.agents:
        return [ran for _, ran in agents(bed, group.agents, script)]
    program = [sys.executable if group.cold else warm(), *script]
    if group.torchrun:
        program = [*torchrun(), *shlex.split(group.torchrun), *script]
    if group.exported:
        program = ["env", *group.exported, *program]
    return [bed.run(HEAD, command(bed, group.kind, options, program), env)]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_job_over_hosts_trains_with_nothing_but_its_script(bed: Bed, group: Group) -> None:
    ranks = told(*start(bed, group))
    assert [one["rank"] for one in ranks] == list(range(group.size))
    assert {one["size"] for one in ranks} == {group.size}
    assert len({one["weight"] for one in ranks}) == 1
    assert {one["rank0"] for one in ranks} == {group.rank0}


FORMS: list[tuple[str, str, str, list[str]]] = [
    ("srun", "-N3 -n3 --exclusive", "from_slurm.py", []),
    ("srun", "-N3 -n3 --exclusive", "from_slurm.py", ["--host", "gpu-a01", "--port", "29621"]),
    ("openmpi4", OMPI3, "from_openmpi.py", []),
    ("openmpi5", OMPI3, "from_openmpi.py", ["--host", "gpu-b07", "--port", "29622"]),
]


@pytest.mark.parametrize(("kind", "options", "script", "words"), FORMS)
def test_the_forms_of_the_launch_page_train_over_hosts(
    bed: Bed, kind: str, options: str, script: str, words: list[str]
) -> None:
    folder = ROOT / "examples" / "launch"
    config = ["--config", str(folder / "config.py")] if words else []
    program = [warm(), str(folder / script), "--backend=gloo", *words, *config]
    ran = bed.run(HEAD, command(bed, kind, options, program))
    assert ran.code == 0, f"{ran.out}\n{ran.err}"
    resolver = {"from_slurm.py": "slurm", "from_openmpi.py": "openmpi"}[script]
    losses = re.findall(rf"3 processes, {resolver}: loss ([\d.]+)", ran.out)
    assert [float(loss) < 0.1 for loss in losses] == [True]


@pytest.mark.parametrize(("kind", "options"), [("srun", "-N3 -n4 --exclusive"), ("openmpi4", OMPI3), ("mpich", HYDRA3)])
def test_the_check_draws_the_map_of_a_job_over_hosts(bed: Bed, kind: str, options: str) -> None:
    drawn = bed.folder / f"{kind}.svg"
    python = sys.executable if kind == "mpich" else warm()  # Hydra speaks with the process alone that it started
    program = [python, "-m", "colossalai_env", "check", "--largest", "512", "--svg", str(drawn)]
    ran = bed.run(HEAD, command(bed, kind, options, program))
    assert ran.code == 0, f"{ran.out}\n{ran.err}"
    for host in ("gpu-a01", "gpu-a02", "gpu-b07"):
        assert re.search(rf"\d +{host} +\d", ran.out)
        assert host in drawn.read_text()
    assert ran.out.count("All ranks met, and their sums are right.") == 1


def test_the_check_of_a_launch_without_a_rank_ends_everywhere(bed: Bed) -> None:
    words = [
        "sh",
        "-c",
        f"test $SLURM_PROCID = 1 || {warm()} -m colossalai_env check --timeout {8 * pace():.0f}",
    ]
    ran = bed.run(HEAD, command(bed, "srun", "-N3 -n3 --exclusive", words))
    assert ran.code == 1
    for rank in (0, 2):
        assert re.search(rf"^ *{rank}: MissingRanks: rank\(s\) 1 of 3 did not come", ran.err, re.MULTILINE)


@pytest.mark.parametrize("block", [block for block in blocks() if block.starter == "srun"], ids=str)
def test_the_slurm_commands_of_the_tutorial_train(bed: Bed, block: Block) -> None:
    for line in block.lines:
        words = [warm() if word == "python" else word for word in line.split()]
        ran = bed.run(HEAD, [str(SCRIPTS / word) if word.endswith(".py") else word for word in words])
        assert ran.code == 0, f"{ran.out}\n{ran.err}"
        assert_trained(block, ran.out)


def shell(bed: Bed, folder: Path, script: str) -> Ran:
    """Run a script of a page on the head host, in a folder with the examples, by the warm interpreter."""
    if not folder.exists():
        shutil.copytree(EXAMPLES, folder)
    here = script.replace("colossalai-env", "python -m colossalai_env")
    return bed.run(HEAD, ["bash", "-ec", f"PATH={os.path.dirname(warm())}:$PATH\ncd {folder}\n{here}"])


def batch(bed: Bed, folder: Path) -> int:
    """Submit the batch script, stop it as the end of its time would, and return the epoch with which it began."""
    slurm = Slurm(bed)
    ran = shell(bed, folder, "sed -i 's/--epochs 100$/--epochs 100000/' train.sbatch\nsbatch --parsable train.sbatch")
    assert ran.code == 0, ran.err
    job = ran.out.strip()
    try:
        logs = [folder / f"train-{job}-{rank}.out" for rank in range(4)]
        wait_until(lambda: logs[0].exists() and "loss" in logs[0].read_text(), "the first epoch is over", 60)
        assert all(log.exists() for log in logs)
        assert slurm.run("scancel", "--signal=USR1", job).code == 0
        queued = ["--noheader", "--format=%T %r", "--job", job]
        wait_until(lambda: slurm.run("squeue", *queued).out.split() == ["PENDING", "BeginTime"], "it is requeued", 60)
    finally:
        slurm.run("scancel", job)
    (begun,) = re.findall(r"4 ranks begin with epoch (\d+)", logs[0].read_text())
    return int(begun)


def test_the_batch_script_saves_at_the_signal_is_requeued_and_goes_on(bed: Bed) -> None:
    """Slurm starts a requeued job after two minutes, which are not waited for: a second job goes on in its place."""
    assert batch(bed, bed.folder / "batch") == 0
    assert batch(bed, bed.folder / "batch") > 0


def test_the_line_that_checks_a_launch_under_slurm_draws_its_map(bed: Bed) -> None:
    (block,) = commands("docs/how-to/run-under-slurm.md")
    ran = shell(bed, bed.folder / "checked", block.text)
    assert ran.code == 0, ran.err
    assert "All ranks met, and their sums are right." in ran.out


STEPS = [
    line
    for page in ("how-to/check-a-launch", "reference/command-line")
    for block in commands(f"docs/{page}.md")
    for line in block.text.splitlines()
    if line.startswith("srun")
]


@pytest.mark.parametrize("line", STEPS)
def test_a_step_that_a_page_shows_does_what_it_says(bed: Bed, line: str) -> None:
    folder = bed.folder / "steps"
    shell(bed, folder, "true")
    found = FENCE.findall((ROOT / "README.md").read_text())
    (folder / "train.py").write_text(next(text for language, text in found if language == "python"))
    job = "salloc -N2 -n4 bash -ec" if "train.py" in line else "bash -ec"
    job = f"env SLURM_PARTITION=all {job}" if "doctor" in line else job  # four hosts are in no other
    ran = shell(bed, folder, f"{job} {shlex.quote(line)}")
    assert ran.code == 0, f"{ran.out}\n{ran.err}"
    if "check" in line:
        assert "All ranks met, and their sums are right." in ran.out
        assert all((folder / name).exists() for name in re.findall(r"--svg (\S+)", line))
    if "explain" in line:
        assert sorted(re.findall(r"^Answer: rank (\d) of 2.* by slurm", ran.out, re.MULTILINE)) == ["0", "1"]
    if "doctor" in line:
        assert len(re.findall(r"^ok +versions", ran.out, re.MULTILINE)) == 4
    if "train.py" in line:
        assert sorted(re.findall(r"^rank (\d) of 4 on cpu: 4$", ran.out, re.MULTILINE)) == ["0", "1", "2", "3"]


def test_the_first_group_of_the_front_page_is_made_by_srun(bed: Bed) -> None:
    found = FENCE.findall((ROOT / "README.md").read_text())
    script = next(text for language, text in found if language == "python")
    line = next(line for _, text in found for line in text.splitlines() if line.startswith("srun"))
    size = int(re.findall(r"--ntasks=(\d+)", line)[0])
    folder = bed.folder / "front"
    shell(bed, folder, "true")
    (folder / "train.py").write_text(script)
    ran = shell(bed, folder, line)
    assert ran.code == 0, ran.err
    assert sorted(re.findall(rf"rank (\d) of {size} on cpu: {size}$", ran.out, re.MULTILINE)) == [
        *map(str, range(size))
    ]


def test_two_steps_of_one_job_at_once_meet_apart(bed: Bed) -> None:
    program = shlex.join([warm(), str(PROGRAMS / "train.py")])
    step = f"srun --exact -N2 -n2 --ntasks-per-node=1 {program}"
    ran = Slurm(bed).run("salloc", "-N2", "-n4", "--exclusive", "sh", "-c", f"{step} & {step} & wait")
    ranks = told(ran)
    assert [one["rank"] for one in ranks] == [0, 0, 1, 1]
    ports = {rank: sorted(one["port"] for one in ranks if one["rank"] == rank) for rank in (0, 1)}
    assert ports[0] == ports[1]
    assert len(set(ports[0])) == 2


def test_a_job_that_is_started_again_on_the_same_nodes_meets_again(bed: Bed) -> None:
    program = shlex.join([warm(), str(PROGRAMS / "train.py")])
    script = f"for again in 1 2; do srun -N2 -n2 {program}; done"
    ranks = told(Slurm(bed).run("salloc", "-N2", "-n2", "--exclusive", "sh", "-c", script))
    assert [one["rank"] for one in ranks] == [0, 0, 1, 1]

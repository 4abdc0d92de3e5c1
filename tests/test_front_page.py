"""README: a newcomer installs, starts the first group in each way that it shows, and reads the first error."""

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from socket import gethostname

import pytest

from colossalai_env.resolver import own_address
from tests.pages import FENCE, MPIRUN, ROOT, environment, starters
from tests.processes import Ended, Processes, free_port
from tests.warm import warm

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
BLOCKS = FENCE.findall(README)
SCRIPT, PARSED = (text for language, text in BLOCKS if language == "python")
INSTALL, STARTED, BY_HAND = (text for language, text in BLOCKS if language == "bash")
SECONDS = 10
"""Longer than the import of torch by one rank may lag behind the other's."""

PLAIN = f"""
import datetime, torch
torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds={SECONDS}))
"""
OURS = f"""
import colossalai_env, torch
colossalai_env.init_from_env(timeout={SECONDS})
"""


def start(processes: Processes, line: str, folder: Path) -> None:
    first, *words = line.partition(" #")[0].removesuffix("&").split()
    root = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    words = [warm() if word == "python" else word for word in words]
    processes.start([*starters()[first], *words], {**root, "CUDA_VISIBLE_DEVICES": ""}, folder)


@pytest.mark.parametrize("line", [line for line in STARTED.splitlines() if not line.startswith("srun")])
def test_the_first_group_is_made_in_each_way(line: str, tmp_path: Path) -> None:
    """The one of srun is made by tests/launchers."""
    if line.startswith("mpirun") and not MPIRUN.exists():
        pytest.skip("no Open MPI in .venv/mpi (make .venv/mpi/ready)")
    (tmp_path / "train.py").write_text(SCRIPT)
    size = int((re.findall(r"-np?(?:roc-per-node)?[ =](\d+)", line) or ["1"])[0])
    with Processes() as processes:
        start(processes, line, tmp_path)
        (ended,) = processes.wait(120)
    assert ended.code == 0, ended.err
    found = re.findall(rf"rank (\d) of {size} on cpu: {size}", ended.out)
    assert sorted(found) == [str(rank) for rank in range(size)], ended.out


def test_ranks_started_by_hand_read_their_own_options_too(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PARSED)
    port = str(free_port())
    with Processes() as processes:
        for line in BY_HAND.replace("29500", port).splitlines():
            start(processes, line, tmp_path)
        ended = processes.wait()
    assert [one.out for one in ended] == [f"rank {rank} of 2 learns with 0.2\n" for rank in (0, 1)], ended


def failed(program: str, folder: Path) -> list[Ended]:
    """Start ranks 0 and 1 of 3."""
    (folder / "train.py").write_text(program)
    where = {"WORLD_SIZE": "3", "MASTER_ADDR": own_address(), "MASTER_PORT": str(free_port())}
    with Processes() as processes:
        for rank in ("0", "1"):
            processes.start([warm(), "train.py"], {**where, "RANK": rank, "CUDA_VISIBLE_DEVICES": ""}, folder)
        return processes.wait()


def sentence(ended: Ended) -> str:
    line = ended.err.strip().splitlines()
    found = next(one for one in reversed(line) if re.match(r"[\w.]+(Error|Ranks): ", one))
    return (
        re.sub(r"\[[^\]]*\.cpp:\d+\] ", "", found).rpartition("distributed.")[2].removeprefix("colossalai_env.errors.")
    )


def test_the_failed_launch_is_told_as_the_front_page_says(tmp_path: Path) -> None:
    plain, ours = re.findall(r"^\| (?:plain torch|colossalai-env) \| (.*?) \|", README, re.MULTILINE)
    shown = [*re.findall(r"rank \d: `(.*?)`", plain), *re.findall(r"both: `(.*?)`", ours)]
    first, second = failed(PLAIN, tmp_path)
    slow = [
        sentence(first).replace(f"{SECONDS + 1} seconds", "1801 seconds"),
        sentence(second).replace(f"{SECONDS}000ms", "1800000ms"),
    ]
    quick = {
        sentence(one).replace(f"{SECONDS}.0 s", "300.0 s").replace(gethostname(), "gpu-a01")
        for one in failed(OURS, tmp_path)
    }
    assert len(quick) == 1
    assert [*slow, *quick] == shown


def test_the_library_is_installed_beside_the_torch_that_is_there(tmp_path: Path) -> None:
    """The line for torch is left out, as the page says, and the environment sees this one's packages."""
    builder = venv.EnvBuilder(with_pip=True)
    builder.create(tmp_path / "fresh")
    (site,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "torch_is_there.pth").write_text(f"{here}\n")
    lines = [line for line in INSTALL.splitlines() if not line.startswith(("#", "pip install torch"))]
    assert lines == ["pip install ."]
    checkout = shutil.copytree(
        ROOT,
        tmp_path / "clone",
        ignore=shutil.ignore_patterns(".venv", ".git", "_build", ".*_cache", "shared", "tests"),
    )
    env = {**environment(), "PATH": f"{tmp_path}/fresh/bin:/usr/bin:/bin"}
    script = "\n".join([*lines, "cd /", "colossalai-env explain", "pip show colossalai-env | grep Location"])
    ran = subprocess.run(["bash", "-ec", script], cwd=checkout, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "torch" not in ran.stdout.partition("Successfully installed")[2].partition("\n")[0]
    assert str(site) in ran.stdout


def test_what_replaces_the_boilerplate_is_python() -> None:
    (diff,) = (text for language, text in BLOCKS if language == "diff")
    for sign in "-+":
        compile("\n".join(line[1:] for line in diff.splitlines() if line.startswith(sign)), "README.md", "exec")


def test_a_contributor_finds_the_two_commands() -> None:
    assert re.findall(r"^    make (\w+) +# ", README, re.MULTILINE) == ["demo", "test"]
    assert len(README.split()) < 1000  # five minutes

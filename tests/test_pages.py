"""The pages for users: scripts are the files that they name, and commands do what is said of them."""

import importlib.metadata
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

import colossalai_env
from tests.pages import (
    EXAMPLES,
    FENCE,
    MPIRUN,
    PAGES,
    ROOT,
    SHOWN,
    Commands,
    commands,
    environment,
    examples_in,
    sections,
    starters,
)
from tests.processes import TORCHRUN, Processes, free_port, run
from tests.warm import torchrun, warm, warm_path

pytestmark = pytest.mark.slow

yaml = pytest.importorskip("yaml")

CODE = {"python", "py", "bash", "sh", "yaml", "dockerfile", "diff"}
"""Languages that a reader copies."""

WIDEST = 88
"""Characters of code that fit on a page."""

WRAPPED = {"contract", "node-level-launchers", "testing", "write-a-resolver"}
"""Pages whose code is as long as the files that it is written into; docs.css wraps it."""

HOW_TO = "docs/how-to/"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_script_on_a_page_is_the_file_that_it_names(page: Path) -> None:
    text = page.read_text()
    shown = SHOWN.findall(text)
    for name, script in shown:
        assert script == (ROOT / name).read_text(), f"{page.name} shows another {name}"
    if page.name != "write-a-resolver.md":  # its py block is a file that the page has written
        assert len(re.findall(r"^```py$", text, re.MULTILINE)) == sum(name.endswith(".py") for name, _ in shown)


def test_the_index_leads_to_every_page() -> None:
    """In one click, on a forge too, which shows no table of contents."""
    index = ROOT / "docs/index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([\w/-]+\.md)", index.read_text())}
    assert {page for page in PAGES if page.name != "README.md"} - linked == {index}


def test_every_example_stands_on_a_page() -> None:
    shown = {name for page in PAGES for name, _ in SHOWN.findall(page.read_text())}
    found = [path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    files = {str(path.relative_to(ROOT)) for path in found}
    assert files - shown == {"examples/train.py"}  # what `make demo` runs


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in WRAPPED], ids=lambda page: page.stem)
def test_no_line_of_code_runs_over_the_edge(page: Path) -> None:
    blocks = [text for language, text in FENCE.findall(page.read_text()) if language in CODE]
    assert [line for block in blocks for line in block.splitlines() if len(line) > WIDEST] == []


RUN = [
    block for page in ("train-and-restart", "recipes", "override-a-config") for block in commands(f"{HOW_TO}{page}.md")
]

PRINTED = {
    "ddp.py": "epoch 19: loss 0.0",
    "test_sum.py": "1 passed",
    "spawn.py": "2 ranks\n",
    "workers.py": "64 samples by 2 ranks\n",
    "overrides.py": "Config({'epochs': 7, 'optimizer': {'lr': 0.2}})\n",
    "with_hydra.py": "2 Config({'epochs': 5, 'optimizer': {'lr': 0.2}})\n",
}
"""What a script prints once."""


@pytest.mark.parametrize("block", RUN, ids=str)
def test_the_commands_of_a_page_do_what_it_says(block: Commands, tmp_path: Path) -> None:
    ended = block.run(examples_in(tmp_path))
    assert ended.code == 0, ended.err
    (script,) = {name for name in PRINTED if name in block.text}
    once = 1 if script == "ddp.py" else sum(script in line for line in block.text.splitlines())
    expected = 3 if script == "test_sum.py" else once  # pytest prints on each rank
    assert ended.out.count(PRINTED[script]) == expected, ended.out


COMMANDS = [*commands("docs/reference/command-line.md"), *commands(f"{HOW_TO}check-a-launch.md")]
"""What is typed of this library's own; tests/launchers run what srun starts."""

LAUNCHED = [line for block in COMMANDS for line in block.text.splitlines() if line.startswith(("torchrun", "mpirun"))]


@pytest.mark.parametrize("line", LAUNCHED)
def test_a_command_of_this_library_is_started_by_a_launcher_as_its_page_says(line: str, tmp_path: Path) -> None:
    if line.startswith("mpirun") and not MPIRUN.exists():
        pytest.skip("no Open MPI in .venv/mpi (make .venv/mpi/ready)")
    (tmp_path / "hosts").write_text("localhost slots=8\n")
    started, command = line.split(" colossalai-env ")
    first, *options = started.split()
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "CUDA_VISIBLE_DEVICES": ""}
    with Processes() as processes:
        more = ["--oversubscribe"] if first == "mpirun" else []
        words = [*starters()[first], *more, *options, warm(), "-m", "colossalai_env", *command.split()]
        processes.start(words, root, tmp_path)
        (ended,) = processes.wait(120)
    assert ended.code == 0, ended.err
    (size,) = re.findall(r"-np?(?:roc-per-node)?[ =](\d+)", line)
    if command == "explain":
        answers = re.findall(r"^Answer: rank (\d) of (\d)", ended.out, re.MULTILINE)
        assert sorted(answers) == [(str(rank), size) for rank in range(int(size))]
    else:
        assert ended.out.startswith(f"{size} ranks on 1 node, gloo"), ended.out
        assert [(tmp_path / name).exists() for name in re.findall(r"--html (\S+)", line)] in ([], [True])


def test_an_environment_is_explained_as_the_command_lines_page_says(tmp_path: Path) -> None:
    (block,) = (block for block in COMMANDS if "--env-file" in block.text)
    here = Commands(block.page, block.text.replace("/4711/", "/$$/"))
    ended = here.run(tmp_path)
    assert ended.code == 0, ended.err
    answers = re.findall(r"^Answer: (rank \d of \d).*, by (\S+)$", ended.out, re.MULTILINE)
    assert answers == [("rank 3 of 4", "cli-args"), ("rank 0 of 1", "single-process")], ended.out


def test_plugins_are_written_as_the_command_lines_page_says(tmp_path: Path) -> None:
    (block,) = (block for block in COMMANDS if "new-plugin" in block.text)
    assert block.run(tmp_path).code == 0
    modules = [(tmp_path / f"colossalai-env-{name}/colossalai_env_{name}/__init__.py") for name in ("acme", "cloud")]
    assert ["counts_nodes" in module.read_text() for module in modules] == [False, True]


def test_every_command_of_this_library_on_a_page_is_run() -> None:
    """By a test above, by the bed's, or by the page's own; so is what a page shows with what it prints."""
    left = [
        block.text for block in COMMANDS if not re.search(r"^srun|^(torch|mpi)run|--env-file|new-plugin", block.text)
    ]
    assert left == []
    pages = {page.stem for page in PAGES for language, _ in FENCE.findall(page.read_text()) if language == "bash"}
    assert pages == {
        *("README", "launch", "index", "check-a-launch", "command-line", "override-a-config", "recipes"),
        *("run-under-slurm", "train-and-restart", "use-gpus", "use-jax", "use-lightning", "write-a-resolver"),
    }


def made() -> list[str]:
    """Return what the pages and a contributor's page have make do."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / f"{HOW_TO}use-gpus.md"]
    return sorted(
        {name for page in pages for name in re.findall(r"^ *make ([\w-]+) +#", page.read_text(), re.MULTILINE)}
    )


@pytest.mark.parametrize("target", made())
def test_what_a_page_has_make_do_is_known_to_it(target: str) -> None:
    ran = run(["make", "--dry-run", "--directory", ROOT, target])
    assert ran.code == 0, ran.err


def test_the_demo_trains_together_and_alone(tmp_path: Path) -> None:
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {warm()} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "ready").touch()
    path = {"CUDA_VISIBLE_DEVICES": "", "PYTHON_EXEC": warm(), "PATH": "/usr/bin:/bin"}
    ran = run(["make", "--directory", ROOT, "demo", f"DEMO={tmp_path}"], path, 120)
    assert ran.code == 0, ran.err
    assert "four processes train on CPUs" in ran.out
    assert ran.out.count("accuracy on 360 unseen digits") == 2


def test_torchrun_starts_the_ranks_again_and_they_go_on(tmp_path: Path) -> None:
    folder = examples_in(tmp_path)
    (block,) = commands(f"{HOW_TO}train-and-restart.md")
    words = block.text.replace("--epochs 20", "--epochs 100000").split()
    assert words[0] == "torchrun"
    with Processes() as processes:
        env = {"PYTHON_EXEC": warm(), "CUDA_VISIBLE_DEVICES": ""}  # of its ranks: the agent's process is known
        agent = processes.start([*TORCHRUN, *words[1:]], env, folder)
        assert agent.stdout is not None
        try:
            next(line for line in agent.stdout if line.startswith("epoch 3"))
            ranks = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
            os.kill(int(ranks[-1]), signal.SIGKILL)
            begun = next(line for line in agent.stdout if "begin with epoch" in line)
        finally:
            agent.terminate()  # it ends its ranks, which are in sessions of their own
            agent.communicate(timeout=60)
    assert int(begun.split()[-1]) >= 3


def test_the_recipes_run_with_several_ranks(tmp_path: Path) -> None:
    text = (ROOT / f"{HOW_TO}recipes.md").read_text()
    script = tmp_path / "recipes.py"
    script.write_text("\n".join(found for language, found in FENCE.findall(text) if language == "python"))
    ended = run([*torchrun(), "--standalone", "--nproc-per-node=2", script], {"CUDA_VISIBLE_DEVICES": ""})
    assert ended.code == 0, ended.err
    assert ended.out.count("once in the job") == ended.out.count("once on each node") == 1
    opened = re.findall(r"rank (\d) opens the data set", ended.out)
    assert sorted(opened) == ["0", "1"]
    assert ended.err.count("rank 0 root: shown by rank 0 alone") == 1


def test_the_cells_of_the_notebook_run(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    first = next(found for _, found in FENCE.findall((ROOT / f"{HOW_TO}recipes.md").read_text()))
    cells = [first + "print(job)\njob.close()", "with colossalai_env.init_from_env() as job: print(job)"]
    cells += [found for _, found in FENCE.findall(sections(f"{HOW_TO}recipes.md")["In a notebook"])]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path = tmp_path / "run.py"
    path.write_text(
        "import json, nbclient, nbformat, sys\n"
        "book = nbformat.reads(sys.stdin.read(), as_version=4)\n"
        "nbclient.NotebookClient(book, timeout=120, resources={'metadata': {'path': '.'}}).execute()\n"
        "print(json.dumps([''.join(out.get('text', '') for out in cell.outputs) for cell in book.cells]))\n"
    )
    del nbclient
    env = {**environment(), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, path], input=nbformat.writes(book), cwd=tmp_path, env=env, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    alone, again, _, several = json.loads(ran.stdout.splitlines()[-1])
    assert "rank 0 of 1" in alone
    assert "rank 0 of 1" in again
    assert sorted(re.findall(r"rank \d of 2", several)) == ["rank 0 of 2", "rank 1 of 2"]


def logging_options() -> dict[str, tuple[str, str]]:
    rows = re.findall(
        r"^\| (\S.*?) \| `(.*?)` \| `(.*?)` \|$", sections(f"{HOW_TO}recipes.md")["Logs of each rank"], re.MULTILINE
    )
    return {launcher: (files, lines) for launcher, files, lines in rows}


@pytest.mark.parametrize("launcher", [name for name in logging_options() if name != "srun"])
def test_the_launchers_options_keep_the_ranks_logs_apart(launcher: str, tmp_path: Path) -> None:
    """Those of srun are in the batch script, which tests/launchers run."""
    mpich = MPIRUN.parents[2] / "mpich/bin/mpiexec"
    if launcher != "torchrun" and not (MPIRUN.exists() and mpich.exists()):
        pytest.skip("no MPI in .venv/mpi (make .venv/mpi/ready)")
    start = {
        "torchrun": [*torchrun(), "--standalone", "--nproc-per-node=2"],
        "Open MPI 5": [str(MPIRUN), "-np", "2", "--bind-to", "none", "--oversubscribe"],
        "MPICH, Intel MPI": [str(mpich), "-n", "2"],
    }[launcher]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    program = tmp_path / "says.py"
    program.write_text("import sys\nsys.stdout.write('it works\\n')\n")
    to_files, to_lines = logging_options()[launcher]
    python = [] if launcher == "torchrun" else [sys.executable]
    for number, options in enumerate((to_files, to_lines)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Processes() as processes:
            processes.start([*start, *options.split(), *python, program], root, folder)
            (ended,) = processes.wait()
        assert ended.code == 0, ended.err
        if number == 0:
            written = [path for path in folder.rglob("*") if path.is_file() and path.read_text() == "it works\n"]
            assert len(written) == 2, [*folder.rglob("*")]
        else:
            assert len(re.findall(r"^(?=.*0).+it works$", ended.out, re.MULTILINE)) >= 1, ended.out
            assert ended.out.count("it works") == 2


def pods() -> dict[str, tuple[list[str], list[dict[str, str]]]]:
    """Return what the containers of each manifest run, and the variables that the platform sets in each."""
    job: Any = yaml.safe_load((EXAMPLES / "trainjob.yaml").read_text())["spec"]["trainer"]
    nodes, each = job["numNodes"], job["numProcPerNode"]
    told: dict[str, str] = {"PET_NNODES": str(nodes), "PET_NPROC_PER_NODE": str(each), "PET_MASTER_ADDR": "127.0.0.1"}
    kubeflow = [{**told, "PET_MASTER_PORT": "29500", "PET_NODE_RANK": str(node)} for node in range(nodes)]
    jobs: Any = yaml.safe_load((EXAMPLES / "jobset.yaml").read_text())
    (replicated,) = jobs["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["parallelism"] == spec["completions"]
    first = f"{jobs['metadata']['name']}-{replicated['name']}-0-0.{jobs['metadata']['name']}"
    words = [word.replace(first, "127.0.0.1") for word in [*container["command"], *container["args"]]]
    jobset = [{"JOB_COMPLETION_INDEX": str(index)} for index in range(spec["completions"])]
    return {"trainjob.yaml": (job["command"], kubeflow), "jobset.yaml": (words, jobset)}


@pytest.mark.parametrize("manifest", ["trainjob.yaml", "jobset.yaml"])
def test_the_pods_of_a_manifest_train_together(manifest: str, tmp_path: Path) -> None:
    folder = examples_in(tmp_path)
    words, environments = pods()[manifest]
    port = str(free_port())
    with Processes() as processes:
        for variables in environments:
            env = {"PATH": warm_path(), "CUDA_VISIBLE_DEVICES": "", **variables}
            here = {name: value.replace("29500", port) for name, value in env.items()}
            processes.start([word.replace("29500", port) for word in words], here, folder)
        ended = processes.wait()
    assert [process.code for process in ended] == [0, 0], ended
    assert sum(process.out.count("4 ranks begin with epoch 0") for process in ended) == 1


def test_the_image_starts_what_it_was_given(tmp_path: Path) -> None:
    lines = (EXAMPLES / "Dockerfile").read_text().splitlines()
    told = dict(line.split(" ", 1) for line in lines if line)
    assert told["RUN"] == "pip install /src/colossalai-env"  # README's line, by tests/test_front_page.py
    folder = examples_in(tmp_path)
    with Processes() as processes:
        starter, *words = json.loads(told["CMD"])
        assert starter == "torchrun"
        processes.start([*torchrun(), *words], {"CUDA_VISIBLE_DEVICES": ""}, folder)
        (ended,) = processes.wait()
    assert ended.code == 0, ended.err
    assert "begin with epoch 0" in ended.out


def test_containers_on_two_nodes_train_together(tmp_path: Path) -> None:
    """The words after the image's name, once for each node, as processes of this host."""
    page = (ROOT / f"{HOW_TO}run-in-containers.md").read_text()
    (typed,) = (text for language, text in FENCE.findall(page) if language == "sh" and "--nnodes" in text)
    options, _, command = typed.replace("\\\n", " ").partition(" train ")
    assert options.startswith("docker run --gpus all ")
    words = command.replace("gpu-a01", "127.0.0.1").replace("29500", str(free_port())).split()
    assert words[0] == "torchrun"
    folder = examples_in(tmp_path)
    with Processes() as processes:
        for node in ("0", "1"):
            here = [word.replace("--node-rank=0", f"--node-rank={node}").replace("=auto", "=2") for word in words[1:]]
            processes.start([*torchrun(), *here], {"CUDA_VISIBLE_DEVICES": ""}, folder)
        ended = processes.wait()
    assert [process.code for process in ended] == [0, 0], ended
    assert sum(process.out.count("4 ranks begin with epoch 0") for process in ended) == 1


def test_every_extra_that_a_page_installs_is_there() -> None:
    extras = set(importlib.metadata.metadata("colossalai-env").get_all("Provides-Extra") or ())
    named = {name for page in PAGES for name in re.findall(r"pip install [^\n]*\.\[(\w+)\]", page.read_text())}
    assert named == {"testing", "torch"}
    assert named <= extras


def rows(page: str, head: str) -> list[list[str]]:
    """Return the cells of a table on a page, without its head."""
    table = (ROOT / page).read_text().partition(f"| {head} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_the_table_of_keywords_is_the_signature() -> None:
    page = "docs/reference/api/joining.md"
    told = {row[0].strip("| `"): row[1] for row in rows(page, "keyword of `init_from_env`")}
    parameters = inspect.signature(colossalai_env.init_from_env).parameters
    assert list(told) == list(parameters)
    stated = {name: text.strip("` ") for name, text in told.items() if "`" in text and "]" not in text}
    assert stated == {name: str(one.default) for name, one in parameters.items() if one.default is not None}
    members = {name for row in rows(page, "member of `Job`") for name in re.findall(r"`(\w+)", row[0])}
    job = colossalai_env.init_from_env(device="cpu")
    assert members == {name for name in dir(job) if not name.startswith("_")}
    (peer,) = job.topology
    job.close()
    fields = {name for row in rows(page, "field of `Peer`") for name in re.findall(r"`(\w+)`", row[0])}
    assert fields == {field.name for field in attrs.fields(type(peer))}

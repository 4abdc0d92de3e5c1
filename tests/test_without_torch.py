"""Where torch is not installed, everything works but the process group, and that says what to type."""

import json
import pickle
import sys
from pathlib import Path

import pytest

from colossalai_env.errors import ColossalaiEnvError, UnsupportedTorch
from tests.bare import Bare
from tests.processes import Ended, Processes, free_port, run

pytestmark = pytest.mark.slow

INIT = "import colossalai_env; colossalai_env.init_from_env(timeout=60)"


def test_an_installation_brings_no_torch(bare: Bare, tmp_path: Path) -> None:
    installed = {item["name"] for item in json.loads(bare.run("pip list --format=json", tmp_path))}
    assert "colossalai-env" in installed
    assert installed.isdisjoint({"torch", "numpy"})


def test_who_a_process_is_needs_no_torch(bare: Bare, tmp_path: Path) -> None:
    program = "import colossalai_env, colossalai_env.integrations.jax as jax; print(colossalai_env.resolve())"
    step = "env -i PATH=$PATH RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=n1 MASTER_PORT=29500"
    assert bare.run(f"{step} python -c '{program}'", tmp_path).startswith("rank 1 of 2")
    assert "wins: rank 1 of 2" in bare.run(f"{step} colossalai-env explain", tmp_path)
    assert "slurm" in bare.run("colossalai-env plugins", tmp_path)
    assert "torch 2.6 or newer" in bare.run("colossalai-env doctor || true", tmp_path)


def sentence(ended: Ended) -> str:
    assert ended.code == 1, ended
    return ended.err.rstrip().splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ["-c", INIT],
        ["-c", "import colossalai_env; colossalai_env.launch({}, 0, 1, 'localhost', 29500)"],
        ["-m", "colossalai_env", "check"],
    ],
    ids=["init_from_env", "launch", "check"],
)
def test_a_process_alone_is_told_what_to_install(bare: Bare, words: list[str]) -> None:
    told = sentence(run([bare.python, *words]))
    assert "UnsupportedTorch: torch is not installed, for " in told
    assert f"{bare.python} -m pip install 'torch>=2.6'" in told
    assert "resolve() and explain() work without torch" in told


@pytest.mark.parametrize("without", [(0, 1), (0,), (1,)], ids=str)
def test_all_ranks_learn_which_of_them_have_no_torch(bare: Bare, without: tuple[int, ...]) -> None:
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with Processes() as processes:
        for rank in (0, 1):
            python = bare.python if rank in without else Path(sys.executable)
            processes.start([python, "-c", INIT], {**both, "RANK": str(rank)})
        ended = processes.wait()
    for rank in (0, 1):
        told = sentence(ended[rank])
        if rank in without:
            assert f"torch is not installed, for {bare.python} on " in told
        else:
            assert "RankFailed" in told
            assert f"torch is not installed, for {bare.python}" in told


def fake_torch(folder: Path, text: str) -> dict[str, str]:
    """Put a torch in front of the installed one."""
    (folder / "torch").mkdir()
    (folder / "torch/__init__.py").write_text(text)
    (folder / "torch/distributed.py").write_text("")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("more", [{}, {"RANK": "0", "WORLD_SIZE": "2"}], ids=["alone", "one of two"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("__version__ = '2.5.1+cpu'\n", "torch 2.5.1+cpu is too old, for "),
        (
            "raise OSError('libcudart.so.13: cannot open shared object file')\n",
            "torch cannot be imported (OSError: libcudart.so.13: cannot open shared object file), for ",
        ),
    ],
    ids=["too old", "broken"],
)
def test_a_torch_that_is_of_no_use_is_told_with_its_fault(
    tmp_path: Path, text: str, told: str, more: dict[str, str]
) -> None:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} if more else {}
    ended = run([sys.executable, "-c", INIT], {**fake_torch(tmp_path, text), **more, **where})
    assert told in sentence(ended)


def test_the_error_is_an_import_error_and_crosses_process_boundaries() -> None:
    error = UnsupportedTorch("torch is not installed", "python3", "n1")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ImportError)
    assert isinstance(again, ColossalaiEnvError)
    assert (str(again), again.values()) == (str(error), error.values())
